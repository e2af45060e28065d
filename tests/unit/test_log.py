"""The loggers of imgfs: `logging` is imported and set up with the first message."""

import subprocess
import sys

_FIRST_MESSAGE = """
import sys
from fusefs.cli.output.messages import log_to_stderr
from fusefs.log import logger
log_to_stderr()
log = logger("fusefs.x")
print("logging" in sys.modules)
log.info("information")
log.warning("a %s", "warning")
"""
_OTHERS = """
import logging
from fusefs.cli.output.messages import log_to_stderr
from fusefs.log import begin_to_log
log_to_stderr(quiet=True)
begin_to_log()
logging.getLogger("urllib3").warning("a warning")
logging.getLogger("urllib3").error("an error")
"""


def _run(code: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_the_first_message_imports_logging_and_finds_it_set_up() -> None:
    assert _run(_FIRST_MESSAGE) == ("False\n", "imgfs: warning: a warning\n")


def test_messages_of_other_libraries_are_written_as_those_of_imgfs() -> None:
    assert _run(_OTHERS) == ("", "imgfs: error: an error\n")
