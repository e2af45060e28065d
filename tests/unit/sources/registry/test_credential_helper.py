"""Credential helpers that print without end, hang, or leave programs behind; and Ctrl-C meanwhile."""

import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.errors import UsageError
from fusefs.sources.registry.credential_helper import ask_helper
from tests.support.processes import until

_ASK = """
import sys
from fusefs.sources.registry import credential_helper
credential_helper._PARTING = float(sys.argv[2])
print(credential_helper.ask_helper(sys.argv[1], 'r', 20))
"""


@pytest.fixture(name="helper")
def helper_fixture(tmp_path: Path) -> Callable[[str], str]:
    """Give what writes a helper and returns its path."""

    def write(script: str) -> str:
        path = tmp_path / "docker-credential-x"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


def wait_for_number(path: Path) -> int:
    """Return the number in the file, once it is there."""
    until(lambda: path.exists() and path.read_text().endswith("\n"), f"there is a number in {path.name}")
    return int(path.read_text())


def is_running(process: int) -> bool:
    """Return whether the process runs: it may be a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("script", ["exec yes", "yes & wait", "exec yes >&2"])
def test_output_without_end_takes_no_memory(helper: Callable[[str], str], script: str) -> None:
    program, before = helper(script), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = "did not answer within 1 s" if ">&2" in script else "docker-credential-x prints more than 1 MiB"
    with pytest.raises(UsageError, match=message):
        ask_helper(program, "example.org", 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_a_helper_that_hangs_is_killed_with_all_that_it_has_started(
    helper: Callable[[str], str], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    program = helper(f"(sh -c 'sleep 47 & echo $! >{pids}; wait'; true) & wait")
    with pytest.raises(UsageError, match="did not answer within 1 s"):
        ask_helper(program, "example.org", 0.6)
    ended = wait_for_number(pids)
    until(lambda: not is_running(ended), "what it has started is killed")


def test_a_program_that_a_helper_leaves_behind_delays_no_answer(helper: Callable[[str], str], tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = helper(f"read registry; echo answer for $registry; sleep 47 & echo $! >{pids}")
    began = time.monotonic()
    assert ask_helper(program, "example.org\n", 20) == (0, b"answer for example.org\n")
    assert time.monotonic() - began < 5
    agent = wait_for_number(pids)
    assert is_running(agent)
    os.kill(agent, signal.SIGKILL)


def test_an_interrupt_ends_the_helper(helper: Callable[[str], str], tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = helper(f"sleep 47 & echo $! >{pids}; wait")
    with subprocess.Popen([sys.executable, "-c", _ASK, program, "0.1"], stderr=subprocess.PIPE) as asking:
        sleeping = wait_for_number(pids)
        time.sleep(0.3)  # until it waits for the answer
        asking.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in asking.communicate(timeout=10)[1]
    until(lambda: not is_running(sleeping), "what it has started is killed")


def test_a_helper_asks_at_the_terminal_and_ends_by_itself_at_ctrl_c(
    helper: Callable[[str], str], tmp_path: Path
) -> None:
    pids, ended = tmp_path / "pids", tmp_path / "ended"
    program = helper(
        f"trap 'echo 1 >{ended}; exit 1' INT; read answer </dev/tty; echo answer $answer; echo $$ >{pids}; sleep 47"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", _ASK, program, "10"])
    try:
        os.write(terminal, b"secret\n")
        asked = wait_for_number(pids)
        time.sleep(0.3)  # as above
        os.write(terminal, b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGINT
    finally:
        os.close(terminal)
    assert wait_for_number(ended) == 1
    until(lambda: not is_running(asked), "it has ended")
