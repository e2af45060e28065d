"""How soon a file of an image in a registry is read, over a link of 50 ms and 100 Mbit/s, next to the whole image.

    scripts/soak first-byte [--members N] [--runs N] [--times N]

The images are a Debian with nginx, or its first members, alone and below a layer with two files, as skopeo 1.18 and
ctr-remote write them.  A proxy behind the link speaks TLS and counts requests and bytes.  If crane is there, `crane
export` of the whole image is measured, too, in turns.  With --times N, the times are those of a machine that is N times
as fast: the link is N times as slow, and all times are divided by N.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.certificates import Authority
from tests.support.changesets import changeset, file, folder
from tests.support.fault_proxy import Proxy, fault_proxy
from tests.support.folders import new_folder
from tests.support.layouts import Layout
from tests.support.lazy_images import by_ctr_remote, by_skopeo, lazy_root
from tests.support.mounts import COMMAND
from tests.support.real_image import root_file_system
from tests.support.registries import push, registry
from tests.support.slow_link import slow_link

_RUNS = 5
_LARGEST = 1_000_000
"""Bytes of a file, if only some members are taken."""


class Measured(NamedTuple):
    """What one access cost; the median of several runs, by their time."""

    seconds: float
    requests: int
    sent: int


def certificates(work: Path) -> tuple[Path, Path]:
    """Return certificate and key of a server, by an authority in *work*."""
    return Authority(work / "authority").issue("server", server=True)


def trusting(work: Path) -> dict[str, str]:
    """Return the environment in which programs trust that authority, and those of the system, as they do by default."""
    return os.environ | {"SSL_CERT_FILE": f"{work}/authority/ca.pem"}


def took(work: Callable[[], object]) -> float:
    """Return the seconds that *work* takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def exported(image: str, work: Path) -> float:
    """Write the files of *image* to nowhere with crane; return the seconds that took."""
    command = ["crane", "export", image.removeprefix("docker://"), "-"]
    return took(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=trusting(work)))


def _once(proxy: Proxy, work: Path, *command: str) -> Measured:
    proxy.requests()
    proxy.sent = 0
    seconds = took(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=trusting(work)))
    return Measured(seconds, len(proxy.requests()), proxy.sent)


def _first_and_second(
    proxy: Proxy, host: str, work: Path, files: tuple[str, str], *options: str
) -> tuple[Measured, Measured]:
    """Mount the image with an empty cache and read two files: the start of the command counts for the first one.

    *host* is the link to the *proxy*.
    """
    mountpoint, cache = work / f"mnt-{uuid.uuid4().hex}", work / f"cache-{uuid.uuid4().hex}"
    mountpoint.mkdir()
    image, first, second = f"docker://{host}/bench/app:1", *(mountpoint / "rootfs" / name for name in files)
    given = " ".join(("-q --driver fuse", f"--cache-dir {cache} --log-file {work}/log", *options))
    mount = f"{COMMAND} mount {given} {image} {mountpoint}"
    try:
        made = _once(proxy, work, "sh", "-ec", f"{mount}; exec head -c1 {first}")
        return made, _once(proxy, work, "head", "-c1", str(second))
    finally:
        subprocess.run([COMMAND, "umount", mountpoint], check=True)
        shutil.rmtree(cache)


class Costs(NamedTuple):
    """What was measured of an image."""

    first: Measured
    second: Measured
    whole: Measured
    """The first file with ``--strict``: whole layers."""
    total: int
    """Bytes of all layers."""
    peer: float | None
    """Seconds of `crane export`; None without crane."""


def measure(layout: Layout, work: Path, files: tuple[str, str], runs: int = _RUNS, times: int = 1) -> Costs:
    """Return the costs of the first and the second of *files*, on a link that is so many *times* as slow."""
    with (
        registry(work / "registry") as server,
        fault_proxy(server.host, tls=certificates(work)) as proxy,
        slow_link(proxy.host, 50 * times, 100 // times) as host,
    ):
        push(layout, server, "bench/app:1")
        found, peer = [], []
        for _ in range(runs):
            first, second = _first_and_second(proxy, host, work, files)
            found.append((first, second, _first_and_second(proxy, host, work, files, "--strict")[0]))
            if shutil.which("crane"):
                peer.append(exported(f"docker://{host}/bench/app:1", work))
    first, second, whole = (sorted(column)[runs // 2] for column in zip(*found, strict=True))
    (entry,) = layout.entries
    manifest = json.loads(layout.files[f"blobs/{entry['digest'].replace(':', '/')}"])
    for name in ("registry", "authority"):
        shutil.rmtree(work / name)
    total = sum(described["size"] for described in manifest["layers"])
    return Costs(first, second, whole, total, sorted(peer)[runs // 2] if peer else None)


def _base(members: int | None) -> bytes:
    """Return the tar of a Debian; or of its first *members*, but for large files."""
    path = root_file_system()
    if members is None:
        return path.read_bytes()
    made = io.BytesIO()
    with tarfile.open(path) as source, tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in itertools.islice((member for member in source if member.size <= _LARGEST), members):
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
    return made.getvalue()


def _top() -> bytes:
    return changeset(folder("app/"), file("app/config", b"port = 80\n"), file("app/other", os.urandom(500_000)))


def _image(*layers: bytes) -> Layout:
    layout = Layout()
    return layout.list(layout.image([*layers]), "1")


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """Give a folder below /var/tmp for as long as the block takes."""
    path = new_folder("first-byte")
    try:
        yield path
    finally:
        shutil.rmtree(path)


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, help="so many in the base (default: all, 9,300)")
    parser.add_argument("--runs", type=int, default=_RUNS, help="the median of so many (default: 5)")
    parser.add_argument(
        "--times",
        type=int,
        default=1,
        help="print what a machine takes that is so many times as fast: on a slower link",
    )
    arguments = parser.parse_args()
    base = _base(arguments.members)
    of_top, of_base = ("app/config", "app/other"), ("etc/debian_version", "etc/issue")
    second_file = "second file: requests|seconds"
    print(f"|layers|a file of|requests|bytes|of the layers|seconds|of crane|{second_file}|`--strict`: seconds|")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, convert in (("zstd:chunked", by_skopeo), ("eStargz", by_ctr_remote)):
        for layers, cases in (
            ([base], [("the only layer", of_base)]),
            ([base, _top()], [("the top layer", of_top), ("the base", of_base)]),
        ):
            with work_folder() as work:
                layout = convert(lazy_root(), work, _image(*layers))
                for where, files in cases:
                    found = measure(layout, work, files, arguments.runs, arguments.times)
                    first, second, whole = found.first, found.second, found.whole
                    seconds = [measured.seconds / arguments.times for measured in (first, second, whole)]
                    share = f"{first.seconds / found.peer:.2f}" if found.peer else "–"
                    print(
                        f"|{name}|{where}|{first.requests}|{first.sent:,}|{first.sent / found.total:.1%}|"
                        f"{seconds[0]:.2f}|{share}|{second.requests}|{seconds[1]:.2f}|{seconds[2]:.2f}|",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
