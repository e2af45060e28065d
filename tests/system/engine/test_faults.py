"""A real engine that dies, stalls or changes its mind: all of the image that was asked for, or a clear error."""

import json
import os
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.drills.mount_drills import check_blobs
from tests.support.builders import Archive, layer, sha256
from tests.support.engines import OwnDocker
from tests.support.mounts import Bench, Finished
from tests.support.processes import until
from tests.support.relay import ALL, ASKED, Relay, relay

IMAGE, OTHER = "faults:1", "faults:other"
_RNG = random.Random(6)
_LAYERS = [layer({f"d/{number}": _RNG.randbytes(8 << 20), "which": b"this"}) for number in range(3)]
ARCHIVE = Archive(layers=_LAYERS, tags=[IMAGE])
"""Far more than what the buffers between an engine and imgfs take."""
OTHER_ARCHIVE = Archive(layers=[_LAYERS[0], layer({"which": b"other"})], tags=[OTHER])

MIDDLE = 12_000_000
"""Bytes, in the middle of the second layer."""
PREPARING = -2
"""The engine writes the image into its own folder, and nothing of it has come."""

CLOSED = "Remote end closed connection without response"
CUT = "its answer is cut short or garbled"
NEAR_MIDDLE = r"1[12]\.\d MB"
"""Whole MiB, of what was held and what the system has from an engine that has ended."""


@pytest.fixture(scope="module", name="archives")
def both_archives(own_docker: OwnDocker) -> list[Path]:
    """Give the files that the images are loaded from."""
    folder = own_docker.engine.folder
    return [ARCHIVE.write(folder / "image.tar"), OTHER_ARCHIVE.write(folder / "other.tar")]


@pytest.fixture(name="docker")
def docker_with_both_images(own_docker: OwnDocker, archives: list[Path]) -> Iterator[OwnDocker]:
    """Give a dockerd that runs and has both images; it runs afterwards, whatever the test does to it."""
    for path in archives:
        own_docker.engine.docker("load", "-q", "-i", path)
    yield own_docker
    own_docker.start()


@pytest.fixture(name="between")
def relay_to_the_engine(imgfs: Bench, docker: OwnDocker) -> Iterator[Relay]:
    """Give the relay through which imgfs reaches the engine."""
    with relay(imgfs.folder / "relay.sock", docker.engine.host) as made:
        imgfs.environment["DOCKER_HOST"] = made.host
        yield made


class Mounting:
    """A mount of the image that is being made."""

    def __init__(self, imgfs: Bench, *options: str) -> None:
        self._imgfs = imgfs
        self.mountpoint = imgfs.mountpoint(f"mnt{len(os.listdir(imgfs.folder))}")
        self._process = imgfs.start("mount", "-q", "--log-file", imgfs.log, *options, IMAGE, self.mountpoint)

    def waits_for_another(self) -> bool:
        """Return whether it has the cache entry open that another one fills, and so waits for its lock."""
        found = set()
        files = Path(f"/proc/{self._process.pid}/fd")
        for name in os.listdir(files):
            with suppress(FileNotFoundError):  # it is closed meanwhile
                found.add(Path(os.readlink(files / name)).parent.name)
        return "saved" in found

    def ends(self, status: int, message: str = "") -> None:
        """Assert that the command ends so: with one line, of this pattern, or with none."""
        out, err = self._process.communicate(timeout=20)
        assert (self._process.returncode, out) == (status, "")
        assert re.fullmatch(f"imgfs: {message}\n" if message else "", err), err

    def fails(self, status: int, message: str) -> None:
        """Assert that the command ends so, and that nothing is mounted, left or kept."""
        self.ends(status, message)
        self._imgfs.nothing_left()
        assert os.listdir(self.mountpoint) == []
        assert [*self._imgfs.cache.glob("saved/*")] == []

    def shows(self, archive: Archive = ARCHIVE) -> None:
        """Assert that this image is mounted, under the name that was asked for, and nothing of another."""
        at = self.mountpoint
        manifest, index = ((at / name).read_bytes() for name in ("manifest.json", "index.json"))
        (listed,) = json.loads(index)["manifests"]
        assert listed["annotations"] == {"org.opencontainers.image.ref.name": "1"}
        assert (at / "config").read_bytes() == archive.config_data
        blobs = {sha256(data) for data in (archive.config_data, manifest, *archive.layers)} | {listed["digest"]}
        assert {f"sha256:{path.name}" for path in (at / "blobs" / "sha256").iterdir()} == blobs
        assert check_blobs(at) > sum(map(len, archive.layers))
        assert (at / "rootfs" / "which").read_bytes() == (b"other" if archive is OTHER_ARCHIVE else b"this")

    def is_right(self, archive: Archive = ARCHIVE) -> None:
        """Assert that this image is mounted, and nothing left of that once it is unmounted."""
        self.ends(0)
        self.shows(archive)
        assert self._imgfs.run("umount", self.mountpoint) == Finished(0, "", "")
        self._imgfs.nothing_left()


def _stopped_sending(between: Relay, after: str, why: str) -> str:
    return rf"the engine at {between.host} stopped sending {IMAGE} after {after}: {why}"


@pytest.mark.parametrize(
    ("moment", "options", "after", "why"),
    [
        (ASKED, (), r"0\.0 MB", CLOSED),
        (PREPARING, (), r"0\.0 MB", CLOSED),
        (1000, (), r"0\.0 MB", CUT),
        (MIDDLE, (), NEAR_MIDDLE, CUT),
        (MIDDLE, ("--no-cache",), NEAR_MIDDLE, CUT),
        (ALL, (), r"2\d\.\d MB", CUT),
    ],
    ids=["asked", "preparing", "beginning", "middle", "not kept", "all but the end"],
)
def test_an_engine_that_is_killed(
    imgfs: Bench, docker: OwnDocker, between: Relay, *, moment: int, options: tuple[str, ...], after: str, why: str
) -> None:
    between.hold(0 if moment == PREPARING else moment)
    mounting = Mounting(imgfs, *options)
    if moment == PREPARING:
        exports = docker.engine.folder / "data" / "tmp"
        until(lambda: list(exports.glob("docker-export-*")), "the engine prepares the image")
    else:
        between.until_held()
    docker.kill()
    if moment == MIDDLE:
        between.let_go()  # what the system has of the engine arrives
    else:
        between.lose()
    mounting.fails(3, _stopped_sending(between, after, why))
    docker.start()
    Mounting(imgfs, *options).is_right()


def test_who_waits_for_another_save_hears_of_the_kill_too(imgfs: Bench, docker: OwnDocker, between: Relay) -> None:
    between.hold(MIDDLE)
    first = Mounting(imgfs)
    between.until_held()
    second = Mounting(imgfs)
    until(second.waits_for_another, "the second one waits for the first")
    docker.kill()
    between.let_go()
    first.ends(3, _stopped_sending(between, NEAR_MIDDLE, CUT))
    gone = "cannot reach an engine at [^ ]*: Connection reset by peer; .*"  # if it cannot connect any more
    stopped = _stopped_sending(between, r"0\.0 MB", f"(?:Broken pipe|Connection reset by peer|{CLOSED})")
    second.fails(3, f"(?:{stopped}|{gone})")
    docker.start()
    Mounting(imgfs).is_right()


def test_what_is_mounted_needs_no_engine(imgfs: Bench, docker: OwnDocker) -> None:
    host = docker.engine.host
    mounting = Mounting(imgfs, "-H", host)
    mounting.ends(0)
    docker.kill()
    Mounting(imgfs, "-H", host).ends(3, f"cannot reach an engine at {host}: Connection refused; .*")
    mounting.shows()


@pytest.mark.parametrize("moment", [ASKED, MIDDLE])
def test_a_tag_that_is_moved(imgfs: Bench, docker: OwnDocker, between: Relay, moment: int) -> None:
    between.hold(moment)
    mounting = Mounting(imgfs)
    between.until_held()
    docker.engine.docker("tag", OTHER, IMAGE)
    between.let_go()
    mounting.is_right(ARCHIVE)
    Mounting(imgfs).is_right(OTHER_ARCHIVE)


def test_an_image_that_is_removed_before_it_is_saved(imgfs: Bench, docker: OwnDocker, between: Relay) -> None:
    between.hold(ASKED)
    mounting = Mounting(imgfs)
    between.until_held()
    docker.engine.docker("rmi", "-f", IMAGE)
    between.let_go()
    identity = sha256(ARCHIVE.config_data)
    mounting.fails(3, f"the engine at {between.host} refuses {IMAGE}: [^\n]*{identity}[^\n]*")
    Mounting(imgfs).fails(4, f"no image {IMAGE} in the engine at {between.host}; .*")


def test_an_image_that_is_replaced_before_it_is_saved(imgfs: Bench, docker: OwnDocker, between: Relay) -> None:
    between.hold(ASKED)
    mounting = Mounting(imgfs)
    between.until_held()
    identity = sha256(ARCHIVE.config_data)
    docker.engine.docker("tag", OTHER, IMAGE)
    docker.engine.docker("rmi", identity)
    between.let_go()
    mounting.fails(3, f"the engine at {between.host} refuses {IMAGE}: [^\n]*{identity}[^\n]*")
    Mounting(imgfs).is_right(OTHER_ARCHIVE)


def test_an_image_that_is_removed_while_it_is_sent(imgfs: Bench, docker: OwnDocker, between: Relay) -> None:
    """The engine sends a copy that it has made before."""
    between.hold(MIDDLE)
    mounting = Mounting(imgfs)
    between.until_held()
    docker.engine.docker("rmi", "-f", IMAGE)
    between.let_go()
    mounting.is_right()
    Mounting(imgfs).ends(4, f"no image {IMAGE} in the engine at {between.host}; .*")


def test_an_engine_that_is_stopped(imgfs: Bench, docker: OwnDocker, between: Relay) -> None:
    between.hold(MIDDLE)
    mounting = Mounting(imgfs, "--timeout", "2")
    between.until_held()
    docker.stop()
    between.let_go()
    the_engine = f"the engine at {between.host}"
    mounting.fails(3, rf"{the_engine} sent nothing of {IMAGE} for 2 s after {NEAR_MIDDLE}; --timeout waits longer")
    unanswered = f"{the_engine} did not answer within 0.5 s; --timeout waits longer"
    Mounting(imgfs, "--timeout", "0.5").fails(3, unanswered)
    docker.start()
    Mounting(imgfs).is_right()
