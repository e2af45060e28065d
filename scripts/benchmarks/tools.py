"""imgfs and its peers: how each mounts, where its files are then, and which versions are here."""

import os
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.inputs import Blob
from benchmarks.workplace import Mount, Workplace

_LIBRARIES = ("pyfuse3", "trio", "docker", "isal", "backports.zstd")
_PROGRAMS = {
    "archivemount": ("dpkg-query", "-W", "-f", "${Version}", "archivemount"),  # it tells only that of libfuse
    "skopeo": ("skopeo", "--version"),
    "umoci": ("umoci", "--version"),
    "podman": ("podman", "--version"),
    "dockerd": ("dockerd", "--version"),
}
_QUIETLY = ("mount", "--quiet")
FUSE = ("--driver", "fuse")
EROFS = ("--driver", "erofs")
FUSE_PEERS = RATARMOUNT, FUSE_ARCHIVE = "ratarmount", "fuse-archive"
USER = 65534
"""The user who mounts without privileges."""


@dataclass(frozen=True)
class Tools:
    """The programs of a run."""

    work: Workplace
    ratarmount: str | None
    archivemount: str | None
    fuse_archive: str | None = None
    """Its path, from the user: no package of Debian or PyPI has it."""
    prefix: tuple[str, ...] = ()
    """Runs a program as another user."""
    own: str | None = None
    """The command imgfs; None: that of the interpreter that runs the benchmark."""

    @classmethod
    def found(cls, work: Workplace, peers: Path, fuse_archive: str | None = None) -> "Tools":
        """Look for the peers, first in *peers*, the venv made for them."""
        path = f"{peers / 'bin'}:{os.environ['PATH']}"
        may_mount = os.geteuid() == 0 or shutil.which("fusermount")  # of libfuse 2
        archivemount = shutil.which("archivemount") if may_mount else None
        return cls(work, shutil.which("ratarmount", path=path), archivemount, fuse_archive)

    @property
    def imgfs(self) -> str:
        """The command."""
        return self.own or str(Path(sys.executable).parent / "imgfs")

    @property
    def _owner(self) -> int | None:
        return USER if self.prefix else None

    @contextmanager
    def imgfs_mount(self, source: str | Path, *options: str, cache: Path | None = None) -> Iterator[Mount]:
        """Mount an image; without the *cache* of an earlier mount with a new one."""
        command = [*self.prefix, self.imgfs, *_QUIETLY, *options, source]
        with self._cache(cache) as environment, self.work.mounted(command, environment, self._owner) as mount:
            yield mount

    @contextmanager
    def imgfs_mount_pipe(self, archive: Path, *options: str) -> Iterator[Mount]:
        """Mount an archive that comes through a pipe."""
        script = 'archive=$1; shift; cat "$archive" | exec "$@"'
        command: list[str | Path] = ["sh", "-c", script, "sh", archive, self.imgfs, *_QUIETLY, *options, "-"]
        with self._cache(None) as environment, self.work.mounted(command, environment) as mount:
            yield mount

    @contextmanager
    def _cache(self, cached: Path | None) -> Iterator[dict[str, str]]:
        """Give an environment with a cache folder: *cached*, or a new one that is removed."""
        folder = cached or self.work.new_path("cache")
        if self._owner is not None:
            folder.mkdir(mode=0o700, exist_ok=True)
            os.chown(folder, self._owner, self._owner)
        try:
            yield {"IMGFS_CACHE_DIR": str(folder)}
        finally:
            if not cached:
                shutil.rmtree(folder, ignore_errors=True)

    def ratarmount_mount(self, archive: Path) -> AbstractContextManager[Mount]:
        """Mount a tar with ratarmount, which indexes it then; the index stays in memory."""
        assert self.ratarmount
        return self.work.mounted(
            [*self.prefix, self.ratarmount, "--index-file", ":memory:", archive], owner=self._owner
        )

    def archivemount_mount(self, archive: Path) -> AbstractContextManager[Mount]:
        """Mount a tar with archivemount."""
        assert self.archivemount
        return self.work.mounted([self.archivemount, "-o", "ro", archive])

    def fuse_peers(self, tar: Path) -> dict[str, Callable[[], AbstractContextManager[Mount]]]:
        """Return the installed peers that serve *tar* by FUSE, and how they mount it."""
        peers: dict[str, Callable[[], AbstractContextManager[Mount]]] = {}
        if self.ratarmount:
            peers[RATARMOUNT] = lambda: self.ratarmount_mount(tar)
        if self.fuse_archive:
            words: list[str | Path] = [self.fuse_archive, tar]
            peers[FUSE_ARCHIVE] = lambda: self.work.mounted(words)
        return peers

    @contextmanager
    def as_user(self) -> Iterator["Tools | None"]:
        """Give the same tools run by a user without privileges; None where root or a program is missing for that."""
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            yield None
            return
        mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
        os.chmod("/dev/fuse", 0o666)  # noqa: S103 - as udev has it; given back below
        try:
            yield self._as_user()
        finally:
            os.chmod("/dev/fuse", mode)

    def _as_user(self) -> "Tools | None":
        as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        # The interpreter may lie in root's home: then the user may read what root may, but nothing else.
        reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        for prefix in (as_user, as_user + reading):
            commands = [[*prefix, tool, "--version"] for tool in (self.imgfs, self.ratarmount) if tool]
            if all(subprocess.run(words, capture_output=True, check=False).returncode == 0 for words in commands):
                return replace(self, prefix=prefix)
        return None


def blob_of(mount: Mount, blob: Blob) -> Path:
    """Return where imgfs shows a *blob*."""
    return mount.path / "blobs" / "sha256" / blob.digest


def member_of(mount: Mount, blob: Blob) -> Path:
    """Return where the others show it."""
    return mount.path / blob.member


def versions(tools: Tools) -> dict[str, str | None]:
    """Return the versions of imgfs, of what it stands on, and of the peers; None for what is not here."""
    script = "import importlib.metadata as m, sys\nfor name in sys.argv[1:]:\n try: print(m.version(name))\n"
    script += " except m.PackageNotFoundError: print()\n"
    names = ("imgfs", *_LIBRARIES)
    printed = _output((sys.executable, "-c", script, *names)).split("\n")
    found: dict[str, str | None] = {name: version or None for name, version in zip(names, printed, strict=False)}
    if tools.ratarmount:
        python = Path(tools.ratarmount).parent / "python"
        found["ratarmount"] = _output((str(python), "-c", script, "ratarmount")).strip() or "unknown"
    else:
        found["ratarmount"] = None
    found[FUSE_ARCHIVE] = _output((tools.fuse_archive, "--version")).strip() if tools.fuse_archive else None
    for name, command in _PROGRAMS.items():
        text = _output(command) if shutil.which(name) else ""
        found[name] = text.strip().splitlines()[0] if text.strip() else None
    return found


def _output(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout or done.stderr


def machine() -> dict[str, str | int]:
    """Return what the run was on."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpus[0].partition(": ")[2] if cpus else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
    }
