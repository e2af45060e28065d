"""The parser of each command: errors in one line, help that fits a screen."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

from fusefs.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Reports a usage error as every other error: in one line."""

    def __init__(  # noqa: PLR0913 - what help is made of
        self,
        *,
        prog: str,
        description: str,
        notes: str = "",
        examples: Sequence[str] = (),
        help_option: Sequence[str] = ("-h", "--help"),
        named_only: Sequence[str] = (),
        **_: Any,
    ) -> None:
        """Make a parser of the command *prog*.

        *notes* and *examples* end the help.  Groups whose titles are in *named_only* are other commands' as well:
        help only names what is in them, the manual says it once.
        """
        super().__init__(prog=prog, description=description, allow_abbrev=False, add_help=False)
        self.notes = notes
        self.examples = tuple(examples)
        self.named_only = tuple(named_only)
        self._help_option = help_option

    def add_help_last(self, group: "argparse._ActionsContainer | None" = None) -> None:
        """Add ``--help``: nobody looks for it first."""
        (group or self).add_argument(*self._help_option, action="help", help="show this help and exit")

    def format_help(self) -> str:
        """Return the help, as long as a screen is wide."""
        from fusefs.cli.helptext import help_text  # noqa: PLC0415 - only help needs it

        return help_text(self)

    def error(self, message: str) -> NoReturn:
        """Raise the error."""
        msg = f"{message}; see {self.prog} --help"
        raise UsageError(msg)

    def _parse_optional(self, arg_string: str) -> Any:
        """Take a path in the image on standard input, ``-:/etc``, for no option."""
        return None if arg_string.startswith("-:/") else super()._parse_optional(arg_string)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - its only name
"""What commands are added to."""
