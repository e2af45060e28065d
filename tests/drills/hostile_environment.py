"""Hostile environments: variables, locales, signals, streams and directories that a caller may pass on."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.drills.hostile_drill import REFUSALS, Case, Command, mount_words
from tests.drills.mount_drills import check_blobs
from tests.support import mounts
from tests.support.builders import LAYERS, Archive, layer
from tests.support.mounts import Bench, Finished

SKIPPED = ".wh."
"""A member that is not shown: a first access warns of it."""
ZEROS = 16 << 20
IMAGE = Archive(
    layers=(*LAYERS, layer({"zeros": bytes(ZEROS), "d\u00e9\u4e00/\u20ac": b"euro", f"\u20ac/{SKIPPED}": b""}))
)
"""A child process indexes its last layer, and warns."""
_ISOLATED = (sys.executable, "-I", mounts.COMMAND)
"""The command as scripts/install installs it."""
_LOCALE = "en_US.ISO-8859-1"
_RIGHT = frozenset({0})
_FAILED = frozenset({errno.ENOMEM, errno.ENOSPC, errno.EIO})
"""Error numbers of a request that a limit made fail."""

Environment = Mapping[str, str | None]


_FILES = {"etc/motd": b"hello\n", "d\u00e9\u4e00/\u20ac": b"euro", "zeros": bytes(ZEROS)}


def check_trees(imgfs: Bench, _: Finished) -> None:
    """Check all blobs, and files of the merged tree."""
    mountpoint = imgfs.folder / "mnt"
    assert check_blobs(mountpoint) > ZEROS
    for name, data in _FILES.items():
        assert _read(mountpoint, name) == data


def check_what_is_answered(imgfs: Bench, __: Finished) -> None:
    """Check that files are right, unless the request fails alone: documents are always answered."""
    mountpoint = imgfs.folder / "mnt"
    for _ in range(2):
        for path in (mountpoint / "blobs" / "sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        for name, data in _FILES.items():
            try:
                assert _read(mountpoint, name) == data
            except OSError as error:
                if error.errno not in _FAILED:
                    raise
        assert (mountpoint / "manifest.json").read_bytes()


def _read(mountpoint: Path, name: str) -> bytes:
    with open(os.path.join(os.fsencode(mountpoint / "rootfs"), name.encode()), "rb") as file:
        return file.read()


def mounting(
    environment: Environment | None = None,
    wrapper: Sequence[str] = (),
    program: Sequence[str] = (mounts.COMMAND,),
    prepare: Callable[[Bench], Environment] | None = None,
    options: Sequence[str] = (),
) -> Callable[[Bench], AbstractContextManager[Command]]:
    """Return the arrangement of a mount of `IMAGE` in an *environment*; *prepare* returns more variables."""

    @contextmanager
    def arrange(imgfs: Bench) -> Iterator[Command]:
        archive = IMAGE.write(imgfs.folder / "image.tar")
        more = prepare(imgfs) if prepare else {}
        words = mount_words(imgfs, archive, *options)
        yield Command(words, wrapper, {**(environment or {}), **more}, program)

    return arrange


def _shell(script: str) -> tuple[str, ...]:
    """Return a wrapper that executes the command after *script*."""
    return ("sh", "-c", f'{script}; exec "$@"', "sh")


def _redirected(streams: str) -> tuple[str, ...]:
    return ("sh", "-c", f'exec "$@" {streams}', "sh")


def signals(setup: str) -> tuple[str, ...]:
    """Return a wrapper that executes the command after the Python statement *setup*."""
    return (sys.executable, "-c", f"import os, signal, sys; {setup}; os.execvp(sys.argv[1], sys.argv[1:])")


def _planted(*names: str) -> Callable[[Bench], Environment]:
    """Let PYTHONPATH lead to modules that end the program."""

    def prepare(imgfs: Bench) -> Environment:
        folder = imgfs.folder / "planted"
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("raise SystemExit('planted')")
        return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    return prepare


def latin1(imgfs: Bench) -> Environment:
    """Return the variables of a locale in Latin-1, made for this case."""
    folder = imgfs.folder / "locales"
    folder.mkdir(exist_ok=True)
    words = ["localedef", "--no-archive", "-c", "-i", "en_US", "-f", "ISO-8859-1", str(folder / _LOCALE)]
    subprocess.run(words, check=True, capture_output=True)
    return {"LOCPATH": str(folder), "LC_ALL": _LOCALE}


def has_locales() -> bool:
    """Return whether `latin1` can make its locale."""
    return shutil.which("localedef") is not None and Path("/usr/share/i18n/locales/en_US").exists()


_PYTHON: dict[str, Environment] = {
    "PYTHONINSPECT": {"PYTHONINSPECT": "1"},
    "PYTHONIOENCODING latin-1": {"PYTHONIOENCODING": "latin-1"},
    "PYTHONIOENCODING utf-16": {"PYTHONIOENCODING": "utf-16"},
    "PYTHONUTF8=0 in the C locale": {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    "PYTHONOPTIMIZE": {"PYTHONOPTIMIZE": "2"},
    "PYTHONDEVMODE": {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "ignore"},
    "PYTHONFAULTHANDLER, PYTHONTRACEMALLOC": {"PYTHONFAULTHANDLER": "1", "PYTHONTRACEMALLOC": "25"},
    "PYTHONSTARTUP": {"PYTHONSTARTUP": "/nowhere"},
    "PYTHONMALLOC=debug": {"PYTHONMALLOC": "debug"},
}
"""Variables of Python that pip's console script ignores."""
_PYTHON_ISOLATED: dict[str, tuple[Environment, Callable[[Bench], Environment] | None]] = {
    "PYTHONVERBOSE": ({"PYTHONVERBOSE": "2"}, None),
    "PYTHONHOME": ({"PYTHONHOME": "/nowhere"}, None),
    "PYTHONPATH with another fusefs": ({}, _planted("fusefs/__init__.py", "trio.py", "json.py", "struct.py")),
    "PYTHONPROFILEIMPORTTIME": ({"PYTHONPROFILEIMPORTTIME": "1"}, None),
    "PYTHONPLATLIBDIR": ({"PYTHONPLATLIBDIR": "nowhere"}, None),
}
"""Those that only the installed command ignores."""
_OTHERS: dict[str, Environment] = {
    "no variables": {"PATH": None, "HOME": None, "PYTHONWARNINGS": None},
    "PATH empty": {"PATH": ""},
    "HOME unset": {"HOME": None},
    "HOME missing": {"HOME": "/nowhere"},
    "HOME relative": {"HOME": "."},
    "TMPDIR missing": {"TMPDIR": "/nowhere"},
    "TMPDIR a file": {"TMPDIR": "/etc/passwd"},
    "XDG_ directories missing": dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"), "/dev/null/x"),
    "LC_ALL unknown": {"LC_ALL": "xx_YY.nonsense"},
    "LC_ALL=C": {"LC_ALL": "C"},
    "LC_ALL=POSIX without coercion": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
    "LANG of 10,000 characters": {"LANG": "x" * 10_000, "LANGUAGE": "\n"},
    "COLUMNS and TERM": {"COLUMNS": "9" * 30, "LINES": "-1", "TERM": "\x1b[0m"},
    "bytes that are no UTF-8": {"IMGFS": "\udcff", "HOME": "/\udcff", "LC_MESSAGES": "\udcff"},
    "variables of 1 MB": {f"IMGFS{number}": "x" * 100_000 for number in range(10)},
    "DOCKER_HOST": {"DOCKER_HOST": "\x1b://[", "DOCKER_CONTEXT": "..", "DOCKER_CONFIG": "/dev/null"},
    "NOTIFY_SOCKET": {"NOTIFY_SOCKET": "@\x1b"},
    "TZ": {"TZ": "/dev/zero"},
    "malloc": {"MALLOC_PERTURB_": "165", "MALLOC_ARENA_MAX": "1", "MALLOC_CHECK_": "3"},
    "GLIBC_TUNABLES": {"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.pthread.rseq=0:x"},
    "proxies": {"http_proxy": "x", "HTTPS_PROXY": "\udcff", "REQUESTS_CA_BUNDLE": "/nowhere"},
}
_REFUSED: dict[str, Environment] = {
    "IMGFS_TMPDIR missing": {"IMGFS_TMPDIR": "/nowhere"},
    "IMGFS_TMPDIR a file": {"IMGFS_TMPDIR": "/etc/passwd"},
    "IMGFS_TMPDIR read-only": {"IMGFS_TMPDIR": "/proc"},
    "IMGFS_CACHE_DIR below a file": {"IMGFS_CACHE_DIR": "/etc/passwd/x"},
    "IMGFS_CACHE_DIR read-only": {"IMGFS_CACHE_DIR": "/proc/x"},
    "IMGFS_CACHE_DIR too long": {"IMGFS_CACHE_DIR": "/tmp/" + "x" * 1000},
}
"""Either nothing needs the directory, or the command says that it cannot be used."""
_WRAPPERS: dict[str, tuple[str, ...]] = {
    "stdin closed": _redirected("<&-"),
    "stdout closed": _redirected(">&-"),
    "stderr closed": _redirected("2>&-"),
    "no streams": _redirected("<&- >&- 2>&-"),
    "streams that are full": _redirected(">/dev/full 2>/dev/full"),
    "umask 0777": _shell("umask 0777"),
    "umask 0": _shell("umask 0"),
    "a directory that was removed": _shell('mkdir gone && cd gone && rmdir "$OLDPWD/gone"'),
    "nice 19": ("nice", "-n", "19"),
    "setsid": ("setsid", "-w"),
    "SIGCHLD ignored": signals("signal.signal(signal.SIGCHLD, signal.SIG_IGN)"),
    "SIGPIPE and SIGHUP ignored": signals(
        "[signal.signal(s, signal.SIG_IGN) for s in (signal.SIGPIPE, signal.SIGHUP)]"
    ),
    "SIGTERM blocked": signals("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"),
    "all signals blocked": signals("signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"),
    "all signals ignored": signals(
        "[signal.signal(s, signal.SIG_IGN) for s in signal.valid_signals() if s not in (9, 19)]"
    ),
    "one processor": ("taskset", "-c", "0"),
    "1,000 open files": signals("[os.set_inheritable(os.dup(0), True) for _ in range(900)]"),
}


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for name, environment in _PYTHON.items():
        yield Case(name, mounting(environment), check_trees, _RIGHT)
    for name, (environment, prepare) in _PYTHON_ISOLATED.items():
        yield Case(name, mounting(environment, program=_ISOLATED, prepare=prepare), check_trees, _RIGHT)
    for name, environment in _OTHERS.items():
        yield Case(name, mounting(environment), check_trees, _RIGHT)
    for name, environment in _REFUSED.items():
        yield Case(name, mounting(environment), check_what_is_answered, _RIGHT | REFUSALS)
    for name, wrapper in _WRAPPERS.items():
        yield Case(name, mounting(wrapper=wrapper), check_trees, _RIGHT)
    if has_locales():
        yield Case("a locale in Latin-1", mounting(prepare=latin1), check_trees, _RIGHT)
