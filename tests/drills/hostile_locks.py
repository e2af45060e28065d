"""Files of imgfs that are locked by others, have wrong modes or owners, or are something else."""

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.drills.hostile_drill import REFUSALS, Case, Command, check_mount, mount_words
from tests.support.builders import Archive
from tests.support.mounts import Bench, Finished
from tests.support.processes import umask_of
from tests.support.users import USER

Arrange = Callable[[Path], None]
_RIGHT = frozenset({0})
_ANY = _RIGHT | REFUSALS
_KINDS = ("lock", "saved", "files", "CACHEDIR.TAG")
"""Names in a cache."""
_LOCKER = """
import fcntl, os, sys
for place, folders, files in os.walk(sys.argv[1]):
    for name in (".", *files):
        try:
            fcntl.flock(os.open(os.path.join(place, name), os.O_RDONLY | os.O_NONBLOCK), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
print("ready", flush=True)
sys.stdin.read()
"""


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for mode in (0, 0o500, 0o711, 0o755, 0o1755):
        yield _of_cache(f"a cache of mode {mode:o}", _chmod(mode), _RIGHT)
    for mode in (0o720, 0o707, 0o777, 0o1777):
        yield _of_cache(f"a cache of mode {mode:o}", _chmod(mode), frozenset({8}))
    yield _of_cache("a cache of another user", _chown, frozenset({8}))
    for name in _KINDS:
        for arrange in (_dangling, _link, _fifo, _file, _folder, _socket, _device):
            yield _of_cache(f"{name}: {arrange.__name__[1:]}", _replacing(name, arrange), _ANY)
        for mode in (0, 0o777):
            yield _of_cache(f"{name}: mode {mode:o}", _below(name, _chmod(mode)), _RIGHT)
        yield _of_cache(f"{name}: another user's", _below(name, _chown), _ANY)
    for arrange in (_dangling, _link, _fifo, _file, _folder, _socket, _device):
        yield _of_cache(f"an entry: {arrange.__name__[1:]}", _replacing("files/*", arrange), _RIGHT)
        yield _of_cache(f"the index: {arrange.__name__[1:]}", _replacing("files/*/index", arrange), _RIGHT)
    for mode in (0, 0o777):
        yield _of_cache(f"an entry: mode {mode:o}", _below("files/*", _chmod(mode)), _RIGHT)
        yield _of_cache(f"the index: mode {mode:o}", _below("files/*/index", _chmod(mode)), _RIGHT)
    yield from _locked()
    yield from _logs()
    for umask in (0, 0o777):
        yield _of_umask(umask)


@contextmanager
def _archive(imgfs: Bench) -> Iterator[Path]:
    """Give an image; at the end, nothing of the cache or the log is left, whatever it was made."""
    victim = imgfs.folder / "victim"
    victim.mkdir()
    (victim / "file").write_bytes(b"precious")
    try:
        yield Archive().write(imgfs.folder / "image.tar")
        assert [(path.name, path.read_bytes()) for path in victim.iterdir()] == [("file", b"precious")]
    finally:
        for path in (victim, imgfs.cache, *imgfs.folder.glob("log-*")):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_cache(imgfs: Bench, archive: Path) -> None:
    """Let a mount make the cache, with an entry."""
    mountpoint = imgfs.folder / "first"
    mountpoint.mkdir(exist_ok=True)
    assert imgfs.run("mount", "-q", "--log-file", "/dev/null", archive, mountpoint) == Finished(0, "", "")
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()


def _of_cache(name: str, arrange: Arrange, statuses: frozenset[int], options: tuple[str, ...] = ()) -> Case:
    """Return the case of a mount with a cache that *arrange* has changed."""

    @contextmanager
    def arranged(imgfs: Bench) -> Iterator[Command]:
        with _archive(imgfs) as archive:
            _make_cache(imgfs, archive)
            arrange(imgfs.cache)
            yield Command(mount_words(imgfs, archive, *options))

    return Case(name, arranged, _check, statuses=statuses)


def _check(imgfs: Bench, finished: Finished) -> None:
    check_mount(imgfs, finished)
    assert (imgfs.folder / "mnt" / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"


def _below(pattern: str, arrange: Arrange) -> Arrange:
    """Return what applies *arrange* to the one path of this *pattern* in a folder."""

    def apply(folder: Path) -> None:
        (path,) = folder.glob(pattern)
        arrange(path)

    return apply


def _replacing(pattern: str, arrange: Arrange) -> Arrange:
    def apply(path: Path) -> None:
        _remove(path)
        arrange(path)

    return _below(pattern, apply)


def _chmod(mode: int) -> Arrange:
    return lambda path: path.chmod(mode)


def _chown(path: Path) -> None:
    os.chown(path, USER, USER)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _link(path: Path) -> None:
    victim = next(parent / "victim" for parent in path.parents if (parent / "victim").is_dir())
    path.symlink_to(victim / "file" if path.name in ("lock", "index", "CACHEDIR.TAG", "log-of-this") else victim)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _file(path: Path) -> None:
    path.write_bytes(b"x" * 1000)


def _folder(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{here}/{path.name}")  # an address is short
    finally:
        os.close(here)


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


@contextmanager
def _locker(folder: Path) -> Iterator[None]:
    """Let another user lock all that they can open."""
    words = ["setpriv", f"--reuid={USER}", "--clear-groups", "/usr/bin/env", "python3", "-c", _LOCKER, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
        assert locker.stdout is not None
        assert locker.stdout.readline() == b"ready\n"
        yield
        locker.communicate(b"")


def _locked() -> Iterator[Case]:
    for mode in ("0755", "-R a+rX"):

        @contextmanager
        def by_another(imgfs: Bench, mode: str = mode) -> Iterator[Command]:
            with _archive(imgfs) as archive:
                _make_cache(imgfs, archive)
                subprocess.run(["chmod", *mode.split(), imgfs.cache], check=True)
                with _locker(imgfs.cache):
                    yield Command(mount_words(imgfs, archive))

        yield Case(f"locked by another user after chmod {mode}", by_another, _check, statuses=_RIGHT)
    for pattern, statuses in ((".", _RIGHT), ("saved", _RIGHT), ("files", _RIGHT), ("files/*", _RIGHT), ("lock", _ANY)):

        @contextmanager
        def by_root(imgfs: Bench, pattern: str = pattern) -> Iterator[Command]:
            with _archive(imgfs) as archive, ExitStack() as stack:
                _make_cache(imgfs, archive)
                for path in (imgfs.cache,) if pattern == "." else imgfs.cache.glob(pattern):
                    file = os.open(path, os.O_RDONLY)
                    stack.callback(os.close, file)
                    fcntl.flock(file, fcntl.LOCK_EX)
                yield Command(mount_words(imgfs, archive))

        yield Case(f"{pattern}: locked by root", by_root, _check, statuses=statuses)


def _logs() -> Iterator[Case]:
    refused = frozenset({8})
    kinds: tuple[tuple[Arrange, frozenset[int]], ...] = (
        (_dangling, refused), (_link, refused), (_fifo, refused), (_folder, refused), (_socket, refused),
        (_file, _RIGHT), (_device, _RIGHT),
    )  # fmt: skip
    for arrange, statuses in kinds:
        yield _of_log(arrange.__name__[1:], arrange, statuses)
    for device, statuses in (("/dev/null", _RIGHT), ("/dev/full", _RIGHT)):
        yield _of_log(device, None, statuses, device)
    for path in ("/proc/1/x", "/", "/nowhere/log", "x" * 300):
        yield _of_log(path[:30], None, _ANY, path)


def _of_log(name: str, arrange: Arrange | None, statuses: frozenset[int], path: str = "") -> Case:
    """Return the case of a mount with a log that *arrange* makes, or that is at *path*."""

    @contextmanager
    def arranged(imgfs: Bench) -> Iterator[Command]:
        with _archive(imgfs) as archive:
            log = imgfs.folder / "log-of-this"
            if arrange is not None:
                arrange(log)
            yield Command(mount_words(imgfs, archive, "--log-file", path or log))

    return Case(f"log: {name}", arranged, _check, statuses=statuses)


def _of_umask(umask: int) -> Case:
    @contextmanager
    def arranged(imgfs: Bench) -> Iterator[Command]:
        with _archive(imgfs) as archive, umask_of(0o022):
            yield Command(
                mount_words(imgfs, archive, "--cache-dir", imgfs.cache / "a" / "b"),
                wrapper=[
                    sys.executable,
                    "-c",
                    f"import os, sys; os.umask({umask}); os.execv(sys.argv[1], sys.argv[1:])",
                ],
            )
            modes = {path.stat().st_mode & 0o777 for path in (imgfs.cache, imgfs.log, *imgfs.cache.rglob("*"))}
            assert modes == {0o700, 0o600}, modes

    return Case(f"umask {umask:o}", arranged, _check, statuses=_RIGHT)
