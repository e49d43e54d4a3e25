"""``sterna train``: the arguments and the work are in :mod:`sterna.train.cli`, which needs PyTorch."""

from __future__ import annotations

import argparse

from sterna.errors import SternaError

NAME = "train"
_MISSING = "training needs PyTorch, which is not installed ({}): pip install 'sterna[train]'"


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
        from sterna.train import cli
    except ImportError as error:
        raise SternaError(_MISSING.format(error)) from error
    parser = subparsers.add_parser(
        NAME, help=summary, description=cli.DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_arguments(parser)
    parser.set_defaults(func=cli.run_train)
