"""The command: arguments in, messages and exit codes out.

Only this package reads the environment and knows the terminal.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from fusefs.cli.arguments import parse_arguments
from fusefs.errors import ImgfsError, printable

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return the exit status."""
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        # Only the command that was asked for is imported: FUSE alone takes 0.2 s.
        command = importlib.import_module(f"fusefs.cli.{arguments.command}")
        command.run(arguments, os.environ)
    except ImgfsError as error:
        print(f"imgfs: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("imgfs: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0
