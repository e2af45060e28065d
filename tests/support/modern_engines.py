"""Docker 26, skopeo 1.18 and erofs-utils 1.8, from a Debian 13 of their own: newer than the tests' machines have."""

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.debian_roots import debian_root
from tests.support.engines import RealEngine, _folder, _listens
from tests.support.processes import marked, until
from tests.support.requirements import ROOT, need

_PACKAGES = "docker.io,docker-cli,skopeo,ca-certificates"

_ENTER = """\
root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for empty in run tmp var/tmp var/lib; do mount -t tmpfs tmpfs "$root/$empty"; done
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    shift
done
shift
cd "$root"
pivot_root . .
umount -l .
exec "$@"
"""
"""Runs a command in a root, with folders of this machine at their own paths.  All of it ends with the namespaces."""

Skopeo = Callable[..., bytes]


def debian_13(name: str = "docker-1", packages: str = _PACKAGES) -> Path:
    """Return the root directory of a Debian 13 with *packages*, made once for all sessions, as *name*."""
    return debian_root("trixie", name, *packages.split(","))


@pytest.fixture(scope="session", name="modern_root")
def modern_root_fixture() -> Path:
    """Give the root of a Debian 13, which every session uses and none writes to."""
    need(ROOT, "unshare")
    return debian_13()


def inside(root: Path, folders: list[Path], *command: str) -> list[str]:
    """Return a command that runs *command* in *root*, where *folders* below ``/var/tmp`` are, too.

    It is the first process of its own: with it, killed or not, every other one in there ends.
    """
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _ENTER, "enter", str(root)]
    return [*enter, *map(str, folders), "--", *command]


@contextmanager
def docker_26(root: Path, name: str, **settings: object) -> Iterator[RealEngine]:
    """Give a Docker 26 with no image, run in *root* with *settings*, for as long as the block takes."""
    with _folder(name) as folder:
        (folder / "daemon.json").write_text(json.dumps(settings))
        socket_path = folder / "docker.sock"
        options = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
        options += ["--iptables=false", "--ip6tables=false", "--bridge=none", f"--config-file={folder}/daemon.json"]
        command = inside(root, [folder], "/usr/sbin/dockerd", *options, "-H", f"unix://{socket_path}")
        with _running(command, folder / "log", socket_path):
            engine = RealEngine(name, f"unix://{socket_path}", folder)
            assert json.loads(engine.docker("version", "-f", "{{json .Server.Version}}")).startswith("26.")
            yield engine


@contextmanager
def _running(command: list[str], log: Path, ready: Path) -> Iterator[None]:
    """Run a command of `inside` for as long as the block takes; it is *ready* once it listens there."""
    name, value = "IMGFS_TESTS_ENGINE", uuid.uuid4().hex
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | {name: value}
        )
    try:
        until(lambda: process.poll() is not None or _listens(ready), f"{ready} answers", 60)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.kill()  # unshare lets SIGTERM pass; and nothing in there is to be kept
        process.wait()
        until(lambda: not marked(f"{name}={value}"), "all that was started inside ends")


@pytest.fixture(scope="session", name="docker26_classic")
def docker26_classic_fixture(modern_root: Path) -> Iterator[RealEngine]:
    """Give a Docker 26 with the classic image store, and nothing in it."""
    need("docker")
    with docker_26(modern_root, "docker26") as engine:
        yield engine


@pytest.fixture(scope="session", name="docker26_containerd")
def docker26_containerd_fixture(modern_root: Path) -> Iterator[RealEngine]:
    """Give a Docker 26 with the containerd image store, and nothing in it."""
    need("docker")
    with docker_26(modern_root, "docker26-containerd", features={"containerd-snapshotter": True}) as engine:
        yield engine


@pytest.fixture(scope="session", name="skopeo118")
def skopeo118_fixture(modern_root: Path) -> Skopeo:
    """Give a function that runs skopeo 1.18 where *folders* of this machine are, and returns what it prints."""

    def run(*arguments: str | Path, folders: list[Path]) -> bytes:
        command = inside(modern_root, folders, "skopeo", "--insecure-policy", *map(str, arguments))
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run
