"""The command: arguments in, messages and exit codes out.

Only this package reads the environment and knows the terminal.
"""

import gc
import importlib
import os
import sys
from collections.abc import Sequence

from fusefs.cli.output.stdout import ReaderGone, leave_stderr, say
from fusefs.cli.parsing.mount8 import FAILURE, is_helper, mount_status, parse_call
from fusefs.errors import ImgfsError
from fusefs.text import printable

_INTERRUPTED = 130
_BROKEN_PIPE = 141
"""As a shell says it of a program that SIGPIPE has ended."""


def _open_standard_streams() -> None:
    """Open what the caller has closed: else a file of ours gets the number 0, 1 or 2 and is lost later."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return the exit status: as a helper of mount(8), that of mount(8)."""
    _open_standard_streams()
    program, *words = sys.argv if argv is None else ("imgfs", *argv)
    helper = is_helper(program, words)
    try:
        status = _run(program, words)
        return mount_status(status) if helper else status
    except Exception:
        if not helper:
            raise
        sys.excepthook(*sys.exc_info())  # a bug, shown as ever; but mount(8) would take Python's 1 for a usage error
        return FAILURE
    finally:
        leave_stderr()


def _run(program: str, words: Sequence[str]) -> int:
    try:
        arguments = parse_call(program, words)
        # Only the command that was asked for is imported: FUSE alone takes 0.2 s.
        gc.disable()  # nothing that an import makes is garbage, and to look for it is a tenth of the time
        command = importlib.import_module(f"fusefs.cli.commands.{arguments.command}")
        gc.freeze()  # nor later
        gc.enable()
        command.run(arguments, os.environ)
    except ImgfsError as error:
        say(printable(str(error)))
        return error.exit_code
    except ReaderGone:
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        say("interrupted")
        return _INTERRUPTED
    return 0
