"""Kills while an engine sends an image and while that is kept: short in the tests, long in ``scripts/soak``."""

import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.drills.mount_drills import (
    check_blobs,
    check_rootfs,
    clear_away,
    kill_everything,
    plain_archive,
    zipped_archive,
)
from tests.support.builders import Archive
from tests.support.fake_engine import Answer, Engine, default_engine
from tests.support.mounts import Bench, Finished
from tests.support.processes import until

_PIECE = 1 << 18
_PAUSE = 0.004
"""Seconds between two pieces, so that a save takes about a third of a second."""
_JITTER = {"saving": 0.01, "keeping": 0.03}
"""Seconds within which the kill comes, where that is not 0.3: these moments are over soon."""
MOMENTS = ("preparing", "saving", "keeping", "looking", "serving")


class SlowStream:
    """What an engine sends of *archive*, piece by piece, each time that it is asked."""

    def __init__(self, archive: Archive) -> None:
        self._data = archive.data()
        self.sent = 0
        """Bytes, of the last answer."""

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), _PIECE):
            self.sent = start
            yield self._data[start : start + _PIECE]
            threading.Event().wait(_PAUSE)

    def until_sent(self, fraction: float) -> None:
        """Wait until as much of the archive has been sent."""
        until(lambda: self.sent >= fraction * (len(self._data) - _PIECE), "the image is sent")


def kill(imgfs: Bench, rounds: int, seed: int = 0) -> Counter[str]:
    """Kill *rounds* times; return at which moments how often."""
    rng = random.Random(seed)
    mountpoint = imgfs.mountpoint()
    found: Counter[str] = Counter()
    with default_engine(imgfs) as engine:
        for number in range(rounds):
            engine.script.archive = rng.choice((plain_archive, zipped_archive))()
            found[_kill_once(imgfs, engine, rng, mountpoint, MOMENTS[number % len(MOMENTS)])] += 1
    return found


def _kill_once(imgfs: Bench, engine: Engine, rng: random.Random, mountpoint: Path, moment: str) -> str:
    """Kill at a random time of a *moment*, and see that nothing is left and all is right again."""
    if moment in MOMENTS[:3] or rng.randint(0, 1):
        assert imgfs.run("cache", "prune", "--all").status == 0
        assert _entries(imgfs) == []
    stream, gate = SlowStream(engine.script.archive), threading.Event()
    engine.script.save = Answer(parts=stream, gate=gate if moment == "preparing" else None)
    process = imgfs.start("mount", "-q", "--log-file", imgfs.log, "img", mountpoint)
    before = len(engine.asked)
    client = None
    if moment == "preparing":
        until(lambda: engine.asked[before:] and engine.asked[-1].endswith("/get"), "the image is asked for")
    elif moment == "saving":
        stream.until_sent(rng.random())
    else:
        assert process.wait(20) == 0
    if moment in ("looking", "serving"):
        places = ["rootfs"] if moment == "looking" else ["blobs", "config"]
        client = _reader(mountpoint, *places)
    threading.Event().wait(rng.uniform(0, _JITTER.get(moment, 0.3)))
    kill_everything(imgfs, rng)
    gate.set()
    process.communicate()
    clear_away(imgfs, mountpoint, client)
    engine.script.save = None
    moment += ", kept" if [*imgfs.cache.glob("saved/*/index")] else ""
    all_is_right(imgfs, engine, mountpoint)
    return moment


def _reader(mountpoint: Path, *places: str) -> "subprocess.Popen[bytes]":
    command = ["tar", "-C", str(mountpoint), "-cf", "-", *places]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def all_is_right(imgfs: Bench, engine: Engine, mountpoint: Path) -> None:
    """Mount twice: whatever was left in the cache, nobody waits for it, it is not taken for whole, and not left."""
    for asked in ("/get", "/json"):
        began = len(engine.asked)
        assert imgfs.run("mount", "-q", "--log-file", imgfs.log, "img", mountpoint) == Finished(0, "", "")
        check_blobs(mountpoint)
        check_rootfs(mountpoint)
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        imgfs.nothing_left()
        assert asked == "/get" or engine.asked[began:] == ["/images/img/json"]
    assert imgfs.run("cache", "prune").out.startswith("freed 0 B\n")
    for entry in _entries(imgfs):
        assert {"index", "tar"} <= set(os.listdir(entry))


def _entries(imgfs: Bench) -> list[Path]:
    """Return the directories of the images that are kept, or are to be."""
    return [*imgfs.cache.glob("saved/*")]
