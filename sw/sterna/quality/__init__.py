"""What the integers of a model cost against float32, value by value.

Data flows one way: ``tracing`` (every value of a token, from both models) -> ``statistics`` (errors, ranges, flips) ->
``report`` (of a text) -> ``plot``.
"""
