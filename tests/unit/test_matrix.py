"""scripts/matrix.py: what cannot be tested is said, and what fails is a failure."""

import subprocess
from pathlib import Path

import matrix
import pytest

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


@pytest.mark.parametrize("status", [0, 1])
def test_a_row_that_ends_has_the_result_of_its_tests(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["bash", "-c", f"echo 9 tests; exit {status}"]
    assert matrix.row("it", lambda: subprocess.run(run, capture_output=True, check=False, text=True)) is (status == 0)
    assert capsys.readouterr().out == "it: 9 tests\n"
