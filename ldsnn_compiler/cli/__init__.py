"""The command line: ``ldsnn COMMAND``. Each command is one Python function that returns what it found as an Answer."""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``ldsnn`` script."""
    from ldsnn_compiler.cli.app import app

    app()
