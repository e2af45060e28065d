"""Reads that wait for a disk, and others meanwhile: short in the tests, long in ``scripts/soak``."""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fusefs.content.pagecache import is_cached
from tests.programs.waiting_clients import READ, places
from tests.support.builders import Archive, layer, sha256
from tests.support.mounts import Bench
from tests.support.processes import threads_inside, until
from tests.support.slow_archive import SlowFile
from tests.support.slow_disk import slow_disk

HOT = layer({"hot": random.Random(8).randbytes(8 << 20)})
COLD = layer({"cold": random.Random(9).randbytes(32 << 20)})
_PREAD64 = 17 if os.uname().machine == "x86_64" else 67

with tempfile.TemporaryFile() as _file:
    MOST = 100 if is_cached(_file.fileno(), 0, 1) is None else 1000
"""Reads that can wait for a disk while others are served.

It takes 128 requests, and then whoever makes another waits: which reads would make one, Linux tells from 6.5 on.
"""


@dataclass(frozen=True)
class Served:
    """What a reader of what is in memory got while others waited."""

    count: int
    """How often it read."""
    median: float
    """Seconds that a read and a look at a name took together."""
    slowest: float


def wait(imgfs: Bench, waiting: int, seconds: int) -> Served:
    """Let *waiting* reads wait, and another client read meanwhile for *seconds*; all bytes are right in the end.

    No more than `MOST`.
    """
    with ExitStack() as stack:
        slow, archive = stack.enter_context(slow_disk(imgfs, "image.tar", Archive(layers=(HOT, COLD)).data()))
        blobs = imgfs.mount(archive) / "blobs" / "sha256"
        hot, cold = (blobs / sha256(data)[7:] for data in (HOT, COLD))
        assert hot.read_bytes() == HOT  # it is in the disk's page cache now
        slow.hold()
        blocked = stack.enter_context(_client("blocked", cold, waiting))
        stack.callback(slow.go)
        until(lambda: threads_inside(blocked.pid, _PREAD64) == waiting, "all reads wait", 60)
        # A process of its own: one that waits can only be killed.
        with _client("hot", hot, seconds) as client:
            try:
                served = client.communicate(timeout=seconds + 30)[0]
            finally:
                client.kill()
        assert threads_inside(blocked.pid, _PREAD64) == waiting
        slow.go()
        _all_right(blocked, waiting)
    return Served(**json.loads(served))


def wait_for_a_file(imgfs: Bench, waiting: int) -> None:
    """Let *waiting* reads wait for a file whose reads always may, and look at all that needs none of it meanwhile."""
    with ExitStack() as stack:
        slow = SlowFile(imgfs, Archive(layers=(HOT, COLD)).data())
        stack.callback(slow.end)
        mountpoint = imgfs.mount(slow.path)
        hot, cold = (mountpoint / "blobs" / "sha256" / sha256(data)[7:] for data in (HOT, COLD))
        assert hot.read_bytes() == HOT  # the kernel keeps it
        slow.hold()
        blocked = stack.enter_context(_client("blocked", cold, waiting))
        stack.callback(slow.go)
        until(lambda: threads_inside(blocked.pid, _PREAD64) == waiting, "all reads wait", 60)
        script = "cat config manifest.json index.json; ls -lR blobs; ! stat absent blobs/absent; df .; sha256sum $0"
        command = ["timeout", "-s", "KILL", "60", "sh", "-ec", script, str(hot)]
        done = subprocess.run(command, cwd=mountpoint, check=True, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1].partition(" ")[0] == hot.name
        assert threads_inside(blocked.pid, _PREAD64) == waiting
        slow.go()
        _all_right(blocked, waiting)


def _all_right(blocked: "subprocess.Popen[str]", waiting: int) -> None:
    data = b"".join(COLD[place : place + READ] for place in places(len(COLD), waiting))
    assert blocked.communicate(timeout=60)[0].strip() == hashlib.sha256(data).hexdigest()


def _client(kind: str, path: Path, number: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.programs.waiting_clients", kind, str(path), str(number)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
