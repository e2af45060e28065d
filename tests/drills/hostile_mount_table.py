"""Mounts of other users with names that are chosen to be misread, and FUSE servers that never answer."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.drills.hostile_drill import REFUSALS, Case, Command, check_mount, mount_words
from tests.programs import silent_server
from tests.support.builders import Archive
from tests.support.folders import new_folder
from tests.support.mounts import Bench, Finished
from tests.support.processes import mounts_at
from tests.support.users import USER

_ANY = frozenset({0}) | REFUSALS
_NAMES = tuple(
    map(
        os.fsdecode,
        (
            b"a\rb", b"a\nb", b"a\tb", b"a b", b"a\\040b", b"a\\b", b"a#b", b"a - b", b"a\xffb", b"a\xc2\x85b",
            b"a\xe2\x80\xa8b", b"a\x1b[2Jb", b"a\x0cb", b"\xff" * 200, b"a\n36 35 98:0 / \n", b"//deleted", b" ",
        ),
    )
)  # fmt: skip
"""Names of mountpoints and of devices: separators, escapes, ends of lines of Unicode, bytes that are not UTF-8."""
_TYPES = ("fuse.imgfs", *map(os.fsdecode, (b"fuse.imgfs\r", b"fuse.\xff", b"fuse.a\nb", b"fuse. - ", b"fuse.imgfs x")))
_SECONDS = 5.0
"""Within which each command has to end: it may ask for 3, and a mount takes a part of one."""
_libc = ctypes.CDLL(None, use_errno=True)


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for number, name in enumerate(_NAMES):
        for verb in ("list", "list --json", "umount", "umount -l", "mount here", "mount"):
            yield _case(f"{verb}: named {name!r}, {number}", verb, name, "tmpfs")
    for file_system in _TYPES:
        for verb in ("list", "list --json", "umount", "umount -l", "mount here", "mount below", "mount"):
            yield _case(f"{verb}: silent {file_system!r}", verb, "mnt", file_system)
    for verb in ("list", "list --json", "mount"):
        yield _case(f"{verb}: twenty that are silent", verb, "mnt", "fuse.imgfs", number=20)


def _case(name: str, verb: str, base: str, file_system: str, number: int = 1) -> Case:
    """Return the case of a command beside *number* mounts named *base* of one type, or on the first of them."""

    mountpoints: list[Path] = []

    @contextmanager
    def arranged(imgfs: Bench) -> Iterator[Command]:
        with ExitStack() as stack:
            made = [stack.enter_context(_hostile(base, file_system)) for _ in range(number)]
            mountpoints[:] = [made[0][0]]
            servers = [str(server) for _, server in made if server is not None]
            # A child that the command has left behind ends with the server that it waits for.
            ending = ["sh", "-c", f'"$@"; status=$?; kill -9 {" ".join(servers)}; exit $status', "sh"]
            yield Command(_words(imgfs, verb, made[0][0]), wrapper=ending if servers else [])

    def check(imgfs: Bench, finished: Finished) -> None:
        if verb == "mount":
            check_mount(imgfs, finished)
        if verb == "mount here":
            (mountpoint,) = mountpoints
            assert (mountpoint / "config").read_bytes() == Archive().config_data
            assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        assert finished.out.isprintable() or finished.out.replace("\n", "").isprintable()

    beside = verb == "mount" or verb.startswith("list")
    return Case(name, arranged, check, statuses=frozenset({0}) if beside else _ANY, seconds=_SECONDS)


def _words(imgfs: Bench, verb: str, mountpoint: Path) -> list[str | Path]:
    archive = Archive().write(imgfs.folder / "image.tar")
    words = mount_words(imgfs, archive)
    match verb:
        case "mount":
            return words
        case "mount here":
            return [*words[:-1], mountpoint]
        case "mount below":
            return [*words[:-1], mountpoint / "below"]
        case _:
            return [*verb.split(), *([mountpoint] if verb.startswith("umount") else [])]


@contextmanager
def _hostile(name: str, file_system: str) -> Iterator[tuple[Path, int | None]]:
    """Mount something as *name*, outside of the bench, whose own mounts are looked for at the end.

    Gives the mountpoint and the process of a server, if there is one.
    """
    folder = new_folder("hostile", 0o755)
    mountpoint = folder / (name if "/" not in name else name.strip("/") or "mnt")
    try:
        mountpoint.mkdir(parents=True)
        with ExitStack() as stack:
            if file_system == "tmpfs":
                if _libc.mount(os.fsencode(name), os.fsencode(mountpoint), b"tmpfs", 0, b"size=4096") != 0:
                    raise OSError(ctypes.get_errno(), "mount")
                yield mountpoint, None
            else:
                yield mountpoint, stack.enter_context(_silent(mountpoint, file_system))
    finally:
        for mount in mounts_at(folder):
            subprocess.run(["umount", "-l", mount.path], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(folder)


@contextmanager
def _silent(mountpoint: Path, file_system: str) -> Iterator[int]:
    words = [sys.executable, silent_server.__file__, str(mountpoint), str(USER), file_system]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield server.pid
        finally:
            server.kill()  # which ends the connection and all who wait
