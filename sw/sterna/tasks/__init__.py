"""Zero-shot tasks on local files, by lm-evaluation-harness, on any device.

Data flows one way: ``definitions`` (what a task is) -> ``data`` (documents of a file) -> ``harness`` (prompts and
metrics) -> ``model`` (its requests as token ids) -> ``likelihood`` (on a device) -> ``run`` (all of it).
"""
