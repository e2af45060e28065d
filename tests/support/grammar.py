"""The parsers that the command line is made of, so that tests can ask for every command and option."""

import argparse
from unittest import mock

from fusefs.cli.parsing.program import program_parser


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return every parser by its name, as ``imgfs cache list``."""
    made: list[argparse.ArgumentParser] = []
    initialise = argparse.ArgumentParser.__init__

    def noted(parser: argparse.ArgumentParser, *words: object, **options: object) -> None:
        initialise(parser, *words, **options)  # type: ignore[arg-type]
        made.append(parser)

    with mock.patch.object(argparse.ArgumentParser, "__init__", noted):
        program_parser()
    return {parser.prog: parser for parser in made}


def long_options_of(command: str) -> dict[str, bool]:
    """Return the long options of *command* without their dashes, and whether each takes a value."""
    return {
        name.removeprefix("--"): action.nargs != 0
        for action in parsers()[f"imgfs {command}"]._actions
        for name in action.option_strings
        if name.startswith("--")
    }
