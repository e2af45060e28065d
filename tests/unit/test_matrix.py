"""scripts/matrix.py: what cannot be tested is said, and what fails is a failure."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import matrix
import pytest

from tests.support.processes import until
from tests.support.requirements import SKIP_NOTHING


@pytest.mark.parametrize("version", ["3.11", "3.12"])
@pytest.mark.parametrize("strict", ["0", "1"])
def test_rows_that_cannot_be_tested_are_named_and_are_no_success(
    version: str, strict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SKIP_NOTHING, strict)
    monkeypatch.setenv("PATH", str(tmp_path))  # without Python and mmdebstrap
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert matrix.main([version]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": not tested: ")[0] for line in lines] == [
        f"Python {version}, lowest.txt",
        f"Python {version}, dev.txt",
    ]


def test_a_row_that_does_not_end_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.row("it", lambda: subprocess.run(["sleep", "60"], timeout=0.01, check=False, text=True)) is False
    assert capsys.readouterr().out == "it: not finished after 0 s\n"


@pytest.mark.parametrize("trap", ["", "trap '' INT TERM; "])
def test_tests_that_do_not_end_are_ended(trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "_RUN", trap + "sleep 600 & echo $! > {folder}/pid; wait; wait")
    monkeypatch.setattr(matrix, "_SECONDS", 1)
    monkeypatch.setattr(matrix, "_GRACE", 0.1)
    with pytest.raises(subprocess.TimeoutExpired):
        matrix.with_interpreter("python", {"folder": tmp_path})
    until(lambda: has_ended(tmp_path / "pid"), "it ends")


def test_tests_end_with_the_matrix(tmp_path: Path) -> None:
    code = f"import matrix; matrix._RUN = 'sleep 600 & echo $! > {tmp_path}/pid; wait'; "
    code += "matrix.with_interpreter('python', {})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE) as running:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it starts")
        running.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in running.communicate(timeout=30)[1]
    until(lambda: has_ended(tmp_path / "pid"), "it ends")


def has_ended(pid: Path) -> bool:
    """Return whether the process whose number is in the file *pid* has ended."""
    try:
        stat = Path("/proc", pid.read_text().strip(), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("status", [0, 1])
def test_a_row_that_ends_has_the_result_of_its_tests(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["bash", "-c", f"echo 9 tests; exit {status}"]
    assert matrix.row("it", lambda: subprocess.run(run, capture_output=True, check=False, text=True)) is (status == 0)
    assert capsys.readouterr().out == "it: 9 tests\n"
