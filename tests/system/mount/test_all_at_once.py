"""``imgfs mount --all`` with as many images as large engines have: bounds of time, requests and memory."""

import subprocess
import threading
import time
from pathlib import Path

from tests.support.builders import Archive
from tests.support.changesets import changeset, file
from tests.support.many_images import ManyImages, many_images
from tests.support.mounts import Bench
from tests.support.processes import until

_IMAGES = 500
_AT_ONCE = 50


def _resident(process: int) -> int:
    """Return resident kilobytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_five_hundred_images_are_listed_with_one_request_and_fifty_are_opened_at_once(imgfs: Bench) -> None:
    names = [f"team{number % 10}/app{number}:1" for number in range(_IMAGES)]
    images = ManyImages({name: Archive(layers=(changeset(file("name", name.encode())),)) for name in names})
    with many_images(imgfs.folder / "engine.sock", images) as engine:
        mountpoint = imgfs.mountpoint()
        done = imgfs.run("mount", "--all", "-H", engine.host, "--log-file", imgfs.log, mountpoint)
        assert done.status == 0, done.err
        serving, asked = imgfs.serving(mountpoint), engine.lists
        begin = time.monotonic()
        listed = subprocess.run(["ls", "-l", *mountpoint.glob("team*")], check=True, capture_output=True, text=True)
        took = time.monotonic() - begin
        assert sum("@1" in line for line in listed.stdout.splitlines()) == _IMAGES
        assert engine.lists <= asked + 1 + took // 2
        assert engine.saves == 0
        assert _resident(serving) < 50_000
        times = _opened_at_once(mountpoint, names[:_AT_ONCE])
        assert max(times) <= 3 * sum(times) / len(times)
        assert engine.saves == _AT_ONCE
        assert imgfs.run("umount", mountpoint).status == 0
        until(lambda: not imgfs.processes(), "the mount ends")


def _opened_at_once(mountpoint: Path, names: list[str]) -> list[float]:
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
