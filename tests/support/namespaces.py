"""Mounts that nobody else sees: a mount namespace of the test's own, where imgfs is installed."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mounts import Bench, Finished
from tests.support.processes import until
from tests.support.requirements import need

SOURCES = Path(__file__).parents[2]
ALONE = "umount -a -l -t fuse.imgfs; "
"""The shell's command to begin with: copies of others' mounts would keep those from ending."""
_TIMEOUT = 60


@dataclass(frozen=True)
class Namespace:
    """A mount namespace, which a process holds; it and the mounts in it end together."""

    imgfs: Bench
    holder: int

    def run(self, *command: str | Path, **environment: str) -> Finished:
        """Run *command* in it, in the bench's folder, with nothing in its environment but what is given.

        That, and what the tests themselves need: a mark on all processes, and the package that is tested.
        """
        mark, value = self.imgfs.marker.split("=")
        kept = {name: text for name, text in self.imgfs.environment.items() if name in (mark, "PYTHONPATH")}
        done = subprocess.run(
            ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", f"--wd={self.imgfs.folder}", "--", *map(str, command)],
            env={**kept, mark: value, "PATH": os.environ["PATH"], **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def mounted(self) -> list[str]:
        """Return the device of each image that is mounted in the bench's folder."""
        lines = Path(f"/proc/{self.holder}/mounts").read_text().splitlines()
        images = (words for words in map(str.split, lines) if words[2] == "fuse.imgfs")
        return [words[0] for words in images if words[1].startswith(f"{self.imgfs.folder}/")]


def install(folder: Path, *options: str) -> str:
    """Run scripts/install for the root directory *folder* and return its output."""
    script = SOURCES / "scripts" / "install"
    environment = os.environ | {"DESTDIR": str(folder)}
    return subprocess.run([script, *options], env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(name="installation", scope="session")
def installation_fixture() -> Iterator[Path]:
    """Install imgfs once below a root directory that has a folder, and return that; it takes 15 seconds."""
    with tempfile.TemporaryDirectory(prefix="imgfs-tests-installed-", dir="/var/tmp") as folder:
        (Path(folder) / "usr/local/share/man").mkdir(parents=True)
        install(Path(folder))
        yield Path(folder)


def covering(installation: Path) -> str:
    """Return shell commands that mount the files of *installation* over those of the machine."""
    return "".join(
        f"mount -t overlay imgfs -o lowerdir={installation}/{place}:$(realpath /{place}) $(realpath /{place}) && "
        for place in ("usr/local/bin", "usr/local/lib", "sbin")
    )


@pytest.fixture(name="namespace")
def namespace_fixture(imgfs: Bench, installation: Path) -> Iterator[Namespace]:
    """Give a namespace with imgfs in /usr/local/bin and /sbin, and with empty folders for its cache and logs."""
    need("unshare", "nsenter", "mount.fuse3")
    ready = imgfs.folder / "ready"
    script = ALONE + covering(installation)
    script += f"mount -t tmpfs t /var/cache && mount -t tmpfs t /var/log && touch {ready} && exec sleep 600"
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script])
    namespace = Namespace(imgfs, holder.pid)
    try:
        until(lambda: ready.exists() or holder.poll() is not None, "the namespace is there")
        assert holder.poll() is None, "no overlay can be mounted"
        yield namespace
        for _ in namespace.mounted():
            namespace.run("umount", "-a", "-t", "fuse.imgfs")
        until(lambda: not imgfs.processes(), "all processes end")
    finally:
        for pid in imgfs.processes():
            os.kill(pid, signal.SIGKILL)
        holder.kill()
        holder.wait()
