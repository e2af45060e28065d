"""The command in hostile surroundings: a sample of the cases of ``scripts/soak hostile``."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.drills import hostile_drill
from tests.drills.hostile_cases import KINDS
from tests.drills.hostile_drill import Case, Command, drill
from tests.support.mounts import Bench

_SAMPLE = 12
"""Cases of each kind."""


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_surroundings_end_right_or_with_one_line(imgfs: Bench, kind: str) -> None:
    cases = list(KINDS[kind]())
    report = drill(imgfs, kind, cases[:: max(1, len(cases) // _SAMPLE)])
    assert report.faults == []


_WRONG = {
    "sleep 60": "does not end within 1 s",
    "sleep 60 & exit 0": "leaves a process",
    "echo Traceback >&2; echo more >&2; exit 1": "exit status 1",
    "echo imgfs: one >&2; echo imgfs: two >&2; exit 3": "2 lines on stderr",
    "printf 'imgfs: \\033[0m\\n' >&2; exit 3": "stderr: ",
    "exit 3": "0 lines on stderr",
    "touch file; echo imgfs: no >&2; exit 3": "files are left",
    "mkdir -p cache/saved/x/y; echo imgfs: no >&2; exit 3": "an entry of the cache is left",
    "echo Traceback >log": "a traceback in the log",
    "exec python3 -c 'bytearray(300 << 20)[::4096] = bytes(76800)'": "takes 3",
    "kill -9 $$": "exit status 137",
    "exit 0": "AssertionError: not right",
}


@pytest.mark.parametrize(("script", "fault"), _WRONG.items())
def test_the_drill_notices_it(imgfs: Bench, monkeypatch: pytest.MonkeyPatch, script: str, fault: str) -> None:
    monkeypatch.setattr(hostile_drill, "_PATIENCE", 1.0)

    @contextmanager
    def arranged(_: Bench) -> Iterator[Command]:
        yield Command([], program=["sh", "-c", script])

    def check(*_: object) -> None:
        assert script != "exit 0", "not right"

    outcome = hostile_drill.run(imgfs, Case("wrong", arranged, check, seconds=1))
    assert any(found.startswith(fault) for found in outcome.faults), outcome.faults
    for name in ("file", "log"):
        (imgfs.folder / name).unlink(missing_ok=True)
