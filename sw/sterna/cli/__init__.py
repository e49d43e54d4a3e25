"""The command ``sterna``: one module a subcommand, wired in :mod:`sterna.cli.main`."""
