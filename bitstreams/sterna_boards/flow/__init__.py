"""From a board's top level to a bitstream that meets timing: ``python -m sterna_boards.flow BOARD``.

:mod:`design` elaborates, :mod:`tools` runs the open tools, :mod:`build` orders the steps and keeps what they made,
:mod:`report` says what came of it.
"""
