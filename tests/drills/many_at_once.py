"""Hundreds of images as one directory: how long a listing takes, and 50 first accesses at the same time."""

import http.client
import io
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.support.engines import RealEngine, empty_docker
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.relay import relay

_IMPORTS_AT_ONCE = 8


class Crowd(NamedTuple):
    """What a mount of many images came to."""

    listing: float
    """Seconds of ``ls -l`` of all directories."""
    lists: int
    """Requests for the list of images meanwhile."""
    saves_for_names: int
    resident: int
    """Kilobytes after that."""
    opened: Sequence[float]
    """Seconds of each of the first accesses at the same time."""
    saves: int

    @property
    def unfair(self) -> float:
        """How much longer than the mean the slowest took."""
        return max(self.opened) * len(self.opened) / sum(self.opened)


def look_at_many(imgfs: Bench, host: str, names: Sequence[str], at_once: int, asked: Callable[[], list[str]]) -> Crowd:
    """Mount all images of the engine at *host*, which has *names* (``teamN/…:1``), and look into the first *at_once*.

    *asked* returns the paths of all requests so far.
    """

    def lists() -> int:
        return sum(path.partition("?")[0].endswith("/images/json") for path in asked())

    def saves() -> int:
        return sum(path.partition("?")[0].endswith("/get") for path in asked())

    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--all", "-H", host, "--log-file", imgfs.log, mountpoint)
    assert done.status == 0, done.err
    serving, before = imgfs.serving(mountpoint), lists()
    begin = time.monotonic()
    listed = subprocess.run(["ls", "-l", *mountpoint.glob("team*")], check=True, capture_output=True, text=True)
    took = time.monotonic() - begin
    assert sum("@1" in line for line in listed.stdout.splitlines()) == len(names)
    asked_for_names, saves_for_names, resident = lists() - before, saves(), _resident(serving)
    opened = _opened_at_once(mountpoint, names[:at_once])
    found = Crowd(took, asked_for_names, saves_for_names, resident, opened, saves())
    assert imgfs.run("umount", mountpoint).status == 0
    until(lambda: not imgfs.processes(), "the mount ends")
    return found


def _resident(process: int) -> int:
    """Return resident kilobytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _opened_at_once(mountpoint: Path, names: Sequence[str]) -> list[float]:
    """Read a file of each image, all at the same time, and return how long each took in seconds."""
    times: list[float] = []
    wrong: list[str] = []

    def read(name: str) -> None:
        begin = time.monotonic()
        if (mountpoint / name.replace(":", "@") / "rootfs" / "name").read_bytes() != name.encode():
            wrong.append(name)
        times.append(time.monotonic() - begin)

    threads = [threading.Thread(target=read, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, len(times)) == ([], len(names))
    return times


def look_at_imported(imgfs: Bench, images: int, at_once: int) -> tuple[float, Crowd]:
    """Import so many images into a real dockerd; return how long that took, in seconds, and what a mount came to."""
    with empty_docker() as docker:
        names = [f"team{number % 10}/app{number}:1" for number in range(images)]
        begin = time.monotonic()
        with ThreadPoolExecutor(_IMPORTS_AT_ONCE) as pool:
            for _ in pool.map(lambda name: _import(docker, name), names):
                pass
        took = time.monotonic() - begin
        with relay(imgfs.folder / "relay.sock", docker.host) as between:
            return took, look_at_many(imgfs, between.host, names, at_once, lambda: [*between.asked])


def _import(docker: RealEngine, name: str) -> None:
    """Do what ``docker import`` does, without a process: an image whose file ``name`` has its name in it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("name")
        member.size = len(name)
        tar.addfile(member, io.BytesIO(name.encode()))
    repository, _, tag = name.partition(":")
    connection = http.client.HTTPConnection("localhost", timeout=120)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(docker.host.removeprefix("unix://"))
    path = f"/images/create?fromSrc=-&repo={repository}&tag={tag}"
    connection.request("POST", path, archive.getvalue(), {"Content-Type": "application/x-tar"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status == 200, text
