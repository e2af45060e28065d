"""The context of a benchmark case, and its sampling: in pairs, in changing order."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.engine import Engine
from benchmarks.inputs import Inputs
from benchmarks.podman import Podman
from benchmarks.results import Curve, Row
from benchmarks.tools import Tools
from benchmarks.workplace import Workplace

Sample = Mapping[str, float]
"""The result of one round of one contestant: numbers by their names."""
Contestant = Callable[[], Sample]
Measure = Callable[["Bench"], Iterator[Row | Curve]]

FRESH = "the mount (fresh each time)"
"""The kernel has no page, name or attribute of it; the tarball is in the page cache."""


class Samples:
    """The samples of one paired run."""

    def __init__(self, taken: Mapping[str, list[Sample]]) -> None:
        self._taken = taken

    def of(self, contestant: str, number: str = "") -> list[float]:
        """Return all rounds of one number; empty if the contestant is not installed."""
        return [sample[number] for sample in self._taken.get(contestant, [])]


def take_turns(contestants: Mapping[str, Contestant], rounds: int, *, warm_up: bool) -> Samples:
    """Let each contestant take a sample a round, in an order that changes; a round to *warm up* does not count."""
    taken: dict[str, list[Sample]] = {name: [] for name in contestants}
    order = list(contestants)
    for number in range(-1 if warm_up else 0, rounds):
        for name in order:
            sample = contestants[name]()
            if number >= 0:
                taken[name].append(sample)
        order.reverse()
    return Samples(taken)


@dataclass
class Bench:
    """A run of the benchmark."""

    work: Workplace
    tools: Tools
    inputs: Inputs
    runs: int
    quick: bool
    say: Callable[[str], None]
    _engine: list[Engine] = field(default_factory=list)

    @property
    def root(self) -> bool:
        """Tell whether this is root's run."""
        return os.geteuid() == 0

    @functools.cached_property
    def engine(self) -> Engine:
        """An engine of our own with the image; runs until the benchmark ends."""
        self.say("starting dockerd")
        return Engine.started(self.work, self.inputs.image)

    @functools.cached_property
    def podman(self) -> Podman:
        """A store of Podman with the image; the workplace removes it."""
        self.say("loading the image into podman")
        podman = Podman.new(self.work)
        podman.load(self.inputs.image)
        return podman

    def paired(self, contestants: Mapping[str, Contestant | None], *, warm_up: bool = True) -> Samples:
        """Let the *contestants* take turns, in changing order, for the rounds of this run.

        One that is None is not installed.  The round before the first, *warm_up*, does not count.
        """
        present = {name: contestant for name, contestant in contestants.items() if contestant}
        return take_turns(present, self.runs, warm_up=warm_up and not self.quick)

    def drop_caches(self) -> None:
        """Drop the page cache and all names and attributes, of the whole machine; root only."""
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


@dataclass(frozen=True)
class Case:
    """A case: rows of the issue's table that are measured together."""

    name: str
    number: int
    """Of the row in the table of targets."""
    measure: Measure
    needs: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Return what it measures, in a line."""
        return (self.measure.__doc__ or "").partition("\n")[0]

    def missing(self) -> str:
        """Return what it needs and is not here; empty if nothing."""
        for need in self.needs:
            if need == "root" and os.geteuid() != 0:
                return "needs root"
            if need != "root" and not shutil.which(need):
                return f"needs {need}"
        return ""


CASES: dict[str, Case] = {}


def case(number: int, name: str, *needs: str) -> Callable[[Measure], Measure]:
    """Make a function the case *name*, which *needs* ``root`` or programs."""

    def enter(measure: Measure) -> Measure:
        CASES[name] = Case(name, number, measure, needs)
        return measure

    return enter
