"""``sterna train``: the arguments and the work are in :mod:`sterna.cli.training`, which needs PyTorch."""

from __future__ import annotations

import argparse

from sterna.errors import SternaError

NAME = "train"
_MISSING = "training needs PyTorch and its companions, which are not installed ({}): pip install 'sterna[train]'"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], *, complete: bool) -> None:
    """Add the command to the parser of ``sterna``; its arguments only if ``complete``, because PyTorch loads slowly.

    Raises:
        SternaError: ``complete``, and PyTorch is not installed.
    """
    summary = "train a ternary model on text and write a Hugging Face checkpoint"
    if not complete:
        subparsers.add_parser(NAME, help=summary)
        return
    try:
        from sterna.cli import training
    except ImportError as error:
        raise SternaError(_MISSING.format(error)) from error
    parser = subparsers.add_parser(
        NAME, help=summary, description=training.DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    training.add_arguments(parser)
    parser.set_defaults(func=training.run_train)
