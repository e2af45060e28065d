"""Coverage-guided fuzzers side by side, a process for each target: for ``scripts/soak fuzz``."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.oracles import TARGETS

_SHARES = {"_any_tar": 3, "_sealed_tar": 3, "_stack": 2, "_damaged_stack": 3, "check_image": 2}
"""Of the time, for what is slow and matters most; the others have one each."""
_LONGEST = {"check_documents": 4096, "check_records": 4096, "check_map": 4096, "check_image": 1 << 16}
"""Bytes of an input; of archives that are scanned a quarter of an image's."""
_AT_ONCE = os.cpu_count() or 1

Target = Callable[[bytes], None]
"""What is fuzzed: takes any bytes."""


def name_of(target: Target) -> str:
    """Return what a target is called."""
    return target.__name__.strip("_")


def longest(target: Target) -> int:
    """Return how many bytes an input may have."""
    return _LONGEST.get(target.__name__, 1 << 14)


class Fuzzed(NamedTuple):
    """What became of one target."""

    target: str
    executions: int
    peak: int
    """Memory in MB."""
    failed: bool


def fuzz(python: Path, folder: Path, seconds: float) -> Iterator[Fuzzed]:
    """Fuzz all targets for *seconds* together; the corpora and what crashes stay in *folder*."""
    share = seconds * _AT_ONCE / sum(map(_share, TARGETS))

    def run(target: Target) -> Fuzzed:
        return _fuzz_one(python, folder, target, max(1, round(share * _share(target))))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # The longest first, so that all end at about the same time.
        yield from pool.map(run, sorted(TARGETS, key=_share, reverse=True))


def _share(target: Target) -> int:
    return _SHARES.get(target.__name__, 1)


def _fuzz_one(python: Path, folder: Path, target: Target, seconds: int) -> Fuzzed:
    name = name_of(target)
    corpus = folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": longest(target),
        "timeout": 10,
        "rss_limit_mb": 1024,
        "print_final_stats": 1,
        "artifact_prefix": folder / f"crash-{name}-",
    }
    command: list[str | Path] = [
        # Over a shell, since the peak that Linux tells of a program begins with that of the one that started it.
        *("sh", "-c", '"$@"; exit "$?"', "fuzz"),
        python,
        "-m",
        "tests.fuzz.coverage",
        corpus,
        *(f"-{key}={value}" for key, value in options.items()),
    ]
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    said = log.read_text("utf-8", "replace")
    executions, peak = (_said(said, key) for key in ("number_of_executed_units", "peak_rss_mb"))
    return Fuzzed(name, executions, peak, status != 0 or not executions)


def _said(log: str, key: str) -> int:
    found = re.search(rf"stat::{key}: +(\d+)", log)
    return int(found[1]) if found else 0
