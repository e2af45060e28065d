"""What the process behind a mount may do, and what it touches: nothing that an image's names say."""

import compileall
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fusefs
from tests.support.builders import LAYERS, Archive, compressed, image_config, layer, pax
from tests.support.changesets import changeset, device, fifo, file, folder, hard_link, symlink
from tests.support.mounts import COMMAND, Bench
from tests.support.processes import until
from tests.support.requirements import need
from tests.support.slow_archive import SlowFile

SYS_ADMIN = 1 << 21
BIG = layer({"zeros": bytes(9 << 20), "more": bytes(9 << 20)})
"""Large enough for a child process to index it."""


def capabilities(pid: int) -> set[tuple[int, ...]]:
    """Return effective, permitted, inheritable, bounding and ambient capabilities of each thread of *pid*."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t") for line in (thread / "status").read_text().splitlines() if ":\t" in line)
        found.add(tuple(int(status[f"Cap{name}"], 16) for name in ("Eff", "Prm", "Inh", "Bnd", "Amb")))
    return found


def test_roots_process_keeps_only_what_unmounts_in_every_thread(imgfs: Bench) -> None:
    mountpoint = imgfs.mount(Archive().write(imgfs.folder / "image.tar"))
    serving = imgfs.serving(mountpoint)
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"  # a thread has made that
    assert len(os.listdir(f"/proc/{serving}/task")) > 1
    assert capabilities(serving) == {(SYS_ADMIN, SYS_ADMIN, 0, 0, 0)}
    os.kill(serving, signal.SIGTERM)
    imgfs.nothing_left()


@pytest.fixture(name="slow")
def slow_file(imgfs: Bench) -> Iterator[SlowFile]:
    """Give an archive that answers when it is told to; let everything pass at the end."""
    slow = SlowFile(imgfs, Archive(layers=(*LAYERS, BIG)).data())
    try:
        yield slow
    finally:
        slow.end()


def test_an_indexer_has_no_capabilities_at_all(imgfs: Bench, slow: SlowFile) -> None:
    mountpoint = imgfs.mount(slow.path)
    slow.hold()
    with subprocess.Popen(["ls", mountpoint / "layers" / "4"], stdout=subprocess.PIPE) as client:
        try:
            slow.hear("waiting")
            (child,) = (pid for pid in imgfs.processes() if _parent(pid) == imgfs.serving(mountpoint))
            assert capabilities(child) == {(0, 0, 0, 0, 0)}
        finally:
            slow.go()
        assert client.communicate(timeout=20)[0] == b"more\nzeros\n"


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def test_the_kernel_reads_far_ahead_all_the_same(imgfs: Bench) -> None:
    mountpoint = imgfs.mount(Archive().write(imgfs.folder / "image.tar"))
    until(lambda: _reads_ahead(mountpoint) == 1024, "the kernel is told")


def _reads_ahead(mountpoint: Path) -> int:
    """Return how many KiB the kernel reads ahead there."""
    number = os.stat(mountpoint).st_dev
    return int(Path(f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}/read_ahead_kb").read_text())


HOSTILE = changeset(
    file("../../etc/passwd", b"above"),
    file("/etc/shadow", b"absolute"),
    file("a/../../../tmp/x"),
    symlink("passwd", "/etc/passwd"),
    symlink("up", "../../../../../../etc"),
    file("up/group", b"through a link"),
    symlink("proc", "/proc/self/root"),
    hard_link("hosts", "/etc/hosts"),
    hard_link("hosts2", "../../etc/hosts"),
    hard_link("through", "proc/etc/hostname"),
    device("null", "c", 1, 3),
    device("disk", "b", 8, 0),
    fifo("fifo"),
    folder("dev/"),
    device("dev/mem", "c", 1, 1),
    file(".wh..wh..opq"),
    file("lib/.wh.../x"),
    file("\x1b[2Jname\nwith\rcontrols", b"1"),
    pax({"path": "/etc/../etc/pax", "linkpath": "/etc/fstab"}) + file("short"),
    pax({"GNU.sparse.name": "/etc/sparse"}) + file("short2"),
)
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OURS = re.compile(
    r"/proc/self/fd/\d+|/proc/sys/fs/pipe-max-size|\.|index|lock|[0-9a-f]+(-[0-9a-f]+)*(\.(tar|layer|seal))*"
)
"""Descriptors, a limit that libfuse reads, and names in the folder of a cache that are made of numbers and digests."""
_SYSTEM = re.compile(
    r"/(usr|lib|lib64)\b|/etc/(ld\.so\..*|localtime)|/dev/null|/proc/sys/vm/overcommit_memory|/proc/self/fd$"
    r"|.*/lib/python3[^/]*(/os\.pyc?)?$"
)


def walked(top: Path) -> int:
    """Read all below *top* without following links; return how many files there are."""
    count = 0
    for place, _, names in os.walk(top):
        for name in names:
            path = os.path.join(place, name)
            count += 1
            if os.path.islink(path):
                os.readlink(path)
            elif os.path.isfile(path):
                Path(path).read_bytes()
            os.listxattr(path, follow_symlinks=False)
    return count


def touched(trace: str) -> tuple[set[str], set[str], list[str]]:
    """Return the paths that system calls of the serving process named, those of its children, and their programs."""
    lines = [line.split(maxsplit=1) for line in trace.splitlines() if not line.split()[1].startswith(("+++", "---"))]
    children = {pid for pid, call in lines if call.startswith("execve(")}
    serving, below = set[str](), set[str]()
    programs: list[str] = []
    for pid, call in lines:
        found = {os.path.normpath(path) for path in _PATHS.findall(call.split("[")[0].split("{")[0]) if path}
        if call.startswith("execve("):
            programs += found
        elif pid in children:
            below |= found
        else:
            serving |= found
    return serving, below, programs


def test_the_process_opens_nothing_that_an_image_names(imgfs: Bench) -> None:
    need("strace")
    package = str(Path(fusefs.__file__).parent)
    compileall.compile_dir(package, quiet=1)  # else the first import writes files
    plain = (HOSTILE, BIG, layer({"zipped": b"1"}))
    archive = Archive(
        layers=(HOSTILE, BIG, compressed(plain[2], "gzip")),
        layer_names=["hostile.tar", "big.tar", "zipped.tar.gz"],
        config=image_config(plain),
    ).write(imgfs.folder / "image.tar")
    imgfs.log_is_quiet = False  # it says what it has skipped
    trace = imgfs.folder / "trace"
    calls = "trace=%file,%process"
    imgfs.command = ("strace", "-f", "-qq", "-s", "4096", "-e", calls, "-e", "signal=none", "-o", str(trace), COMMAND)
    mountpoint = imgfs.mountpoint()
    process = imgfs.start("mount", "-q", "-f", "--log-file", imgfs.log, archive, mountpoint)
    until(lambda: (mountpoint / "config").exists() and _reads_ahead(mountpoint) == 1024, "it is mounted")
    until(lambda: "layers/writer.py" in trace.read_text(), "all that it ever imports is imported")
    before = len(trace.read_text())
    assert walked(mountpoint) > 20
    after = trace.read_text()[before:]
    serving, below, programs = touched(after[after.index("\n") + 1 :])
    imgfs.command = (COMMAND,)
    imgfs.end_mounts()
    process.wait(20)
    foreign = {path for path in serving if not _OURS.fullmatch(path) and not path.startswith(package)}
    assert foreign <= {str(imgfs.spool)}
    assert len(set(programs)) == 1
    assert [path for path in sorted(below) if not _of_interpreter(path)] == []


def _of_interpreter(path: str) -> bool:
    folders = {sys.prefix, os.path.dirname(sys.base_prefix), str(Path(__file__).parents[3]), *filter(None, sys.path)}
    known = tuple(folders | {os.path.realpath(folder) for folder in folders})
    # It begins in the root directory, and finds its prefix through a link without a slash.
    return path == "/" or "/" not in path or path.startswith(known) or _SYSTEM.match(path) is not None
