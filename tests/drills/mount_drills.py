"""Drills of what may happen to mounts: short in the tests, long in ``scripts/soak``."""

import contextlib
import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.builders import Archive, compressed, image_config, layer, sha256
from tests.support.mounts import Bench, Finished, mounted_below
from tests.support.processes import until


def _files(seed: int, sizes: tuple[int, ...]) -> dict[str, bytes]:
    rng = random.Random(seed)
    return {f"d{seed}/{number % 7}/f{number}": rng.randbytes(size) for number, size in enumerate(sizes)}


SMALL = _files(1, (0, 1, 511, 512, 4096, 70_000) * 20)
LARGE = _files(2, (9 << 20, 8 << 20, 300_000, 5))
"""Enough for a child process to index it."""
TOP = {"d1/0/f0": b"from the top", **_files(3, (100, 200_000))}
FILES = (SMALL, LARGE, TOP)
LAYERS = tuple(map(layer, FILES))
ROOTFS = {**SMALL, **LARGE, **TOP}


def plain_archive() -> Archive:
    """Return an image whose layers are stored plain."""
    return Archive(layers=LAYERS)


def zipped_archive() -> Archive:
    """Return one whose layers are stored compressed."""
    names = [f"{number}.tar.gz" for number in range(len(LAYERS))]
    stored = [compressed(data, "gzip") for data in LAYERS]
    return Archive(layers=stored, layer_names=names, config=image_config(LAYERS))


@dataclass(frozen=True)
class Case:
    """One way to mount."""

    image: Path
    options: tuple[str, ...] = ()


def kill_cases(imgfs: Bench) -> list[Case]:
    """Write the images that are mounted while something is killed."""
    plain = plain_archive().write(imgfs.folder / "plain.tar")
    layers = zipped_archive().write(imgfs.folder / "layers.tar")
    whole = imgfs.folder / "whole.tar.gz"
    whole.write_bytes(gzip.compress(plain.read_bytes(), 1))
    return [
        Case(plain),
        Case(plain, ("--index",)),
        Case(plain, ("--verify",)),
        Case(layers),
        Case(layers, ("--index",)),
        Case(layers, ("--verify",)),
        Case(whole),
        Case(whole, ("--index",)),
    ]


def check_blobs(mountpoint: Path) -> int:
    """Compare each blob with its name; return how many bytes that were."""
    count = 0
    for path in (mountpoint / "blobs" / "sha256").iterdir():
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == path.name
        count += len(data)
    return count


def check_rootfs(mountpoint: Path) -> int:
    """Compare each file of the merged tree; return how many bytes that were."""
    for name, data in ROOTFS.items():
        assert (mountpoint / "rootfs" / name).read_bytes() == data, name
    return sum(map(len, ROOTFS.values()))


def kill_everything(imgfs: Bench, rng: random.Random) -> None:
    """Kill all processes, a random one first."""
    there = imgfs.processes()
    for pid in [*rng.sample(sorted(there), min(1, len(there))), *there, *imgfs.processes()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not imgfs.processes(), "what was killed ends")


def clear_away(imgfs: Bench, mountpoint: Path, client: "subprocess.Popen[bytes] | None") -> bool:
    """Unmount what was killed, after which nothing is left; return whether it was mounted."""
    if client:
        client.wait(20)
    was_mounted = bool(mounted_below(mountpoint))
    if was_mounted:
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()
    return was_mounted


def kill_once(imgfs: Bench, case: Case, rng: random.Random, mountpoint: Path) -> str:
    """Kill something at a random moment, and see that nothing is left and all is right again; return what was hit."""
    process = imgfs.start("mount", "-q", "--log-file", imgfs.log, *case.options, case.image, mountpoint)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=rng.uniform(0.05, 1.5))
    client = None
    if process.poll() is not None:
        client = subprocess.Popen(
            ["tar", "-C", mountpoint, "-cf", "-", "rootfs", "blobs", "layers"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(rng.uniform(0, 1.0))
    there = imgfs.processes()
    hit = "served" if client else "mounting"
    if any("fusefs.layers.child" in word for words in there.values() for word in words):
        hit += ", indexing"
    kill_everything(imgfs, rng)
    process.communicate()
    if clear_away(imgfs, mountpoint, client):
        hit += ", mounted"
    assert imgfs.run("mount", "-q", "--log-file", imgfs.log, case.image, mountpoint) == Finished(0, "", "")
    check_blobs(mountpoint)
    check_rootfs(mountpoint)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()
    return hit


def kill(imgfs: Bench, rounds: int, seed: int = 0) -> Counter[str]:
    """Kill *rounds* times; return what was hit how often."""
    rng = random.Random(seed)
    cases = kill_cases(imgfs)
    mountpoint = imgfs.mountpoint()
    return Counter(kill_once(imgfs, cases[number % len(cases)], rng, mountpoint) for number in range(rounds))


def write_reference(folder: Path) -> None:
    """Write what a mount of `plain_archive` has to show: blobs, layers, rootfs."""
    config = plain_archive().config_data
    shown: dict[str, bytes] = {f"blobs/sha256/{sha256(data)[7:]}": data for data in (*LAYERS, config)}
    for place, files in (*((f"layers/{number}", files) for number, files in enumerate(FILES)), ("rootfs", ROOTFS)):
        shown |= {f"{place}/{name}": data for name, data in files.items()}
    for name, data in shown.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in shown.items())
    (folder / "SHA256SUMS").write_text(sums, encoding="ascii")


@dataclass(frozen=True)
class Load:
    """What a load came to."""

    operations: int
    verified: int
    """Bytes that were read and compared."""
    slowest: float
    """Seconds that the slowest single read took."""
    memory: tuple[int, int]
    """Resident KiB of the serving process before and after."""
    descriptors: tuple[int, int]


def load(imgfs: Bench, clients: int, seconds: float) -> Load:
    """Let *clients* read, map, list and hash for *seconds*; every byte is compared."""
    archive = plain_archive().write(imgfs.folder / "load.tar")
    reference = imgfs.mountpoint("reference")
    write_reference(reference)
    mountpoint = imgfs.mount(archive)
    check_blobs(mountpoint)
    check_rootfs(mountpoint)
    for number in range(len(FILES)):
        os.listdir(mountpoint / "layers" / str(number))
    serving = imgfs.serving(mountpoint)
    command = [sys.executable, "-m", "tests.programs.load_client", str(mountpoint), str(reference), str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, env=environment))
            for seed in range(clients)
        ]
        warm = min(5.0, seconds / 2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running[0].wait(warm)
        before = _resident(serving), _descriptors(serving)
        results = [json.loads(client.communicate(timeout=seconds + 300)[0]) for client in running]
    # Those who have ended close their files a moment later.
    until(lambda: _descriptors(serving) <= before[1], "descriptors are closed")
    after = _resident(serving), _descriptors(serving)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()
    return Load(
        operations=sum(result["operations"] for result in results),
        verified=sum(result["verified"] for result in results),
        slowest=max(result["slowest"] for result in results),
        memory=(before[0], after[0]),
        descriptors=(before[1], after[1]),
    )


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def mounts(imgfs: Bench, loops: int, at_once: int) -> Mapping[str, float]:
    """Mount and unmount *loops* times, then *at_once* next to each other; return seconds."""
    archive = Archive().write(imgfs.folder / "small.tar")
    mountpoint = imgfs.mountpoint("loop")
    began = time.monotonic()
    for number in range(loops):
        assert imgfs.run("mount", "-q", "--log-file", imgfs.log, archive, mountpoint) == Finished(0, "", "")
        assert (mountpoint / "config").read_bytes() == Archive().config_data
        if number % 2:
            os.kill(imgfs.serving(mountpoint), signal.SIGTERM)
        else:
            assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        imgfs.nothing_left()
    looped = time.monotonic()
    mountpoints = [imgfs.mountpoint(f"once{number}") for number in range(at_once)]
    for path, process in _all_started(imgfs, "mount", "-q", "--log-file", str(imgfs.log), str(archive), at=mountpoints):
        assert (*process.communicate(timeout=300), process.returncode) == ("", "", 0)
        assert (path / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    assert len(mounted_below(imgfs.folder)) == at_once
    for _, process in _all_started(imgfs, "umount", at=mountpoints):
        assert (*process.communicate(timeout=300), process.returncode) == ("", "", 0)
    imgfs.nothing_left()
    return {"loop": looped - began, "at once": time.monotonic() - looped}


def _all_started(imgfs: Bench, *words: str, at: list[Path]) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    started = [imgfs.start(*words, path) for path in at]
    return iter(zip(at, started, strict=True))


def unmount_busy(imgfs: Bench, rounds: int) -> None:
    """Unmount while files are open and being read: refused by `umount`, done at once by a signal."""
    archive = plain_archive().write(imgfs.folder / "busy.tar")
    mountpoint = imgfs.mountpoint("busy")
    for number in range(rounds):
        assert imgfs.run("mount", "-q", "--log-file", imgfs.log, archive, mountpoint) == Finished(0, "", "")
        path = mountpoint / "blobs" / "sha256" / sha256(LAYERS[1])[7:]
        with path.open("rb") as file:
            file.read(100)
            why = f"in use by {Path('/proc/self/comm').read_text().strip()} ({os.getpid()}): {path}"
            said = f"imgfs: cannot unmount {mountpoint}: {why}; close it, or imgfs umount -l {mountpoint}\n"
            assert imgfs.run("umount", mountpoint) == Finished(9, "", said)
            client = subprocess.Popen(
                ["sha256sum", *mountpoint.glob("blobs/sha256/*")], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(number % 5 / 100)
            os.kill(imgfs.serving(mountpoint), signal.SIGTERM)
            imgfs.nothing_left()
            client.wait(20)
