"""Archives through pipes and compressed as a whole, by the real command."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import COMPRESSIONS, LAYERS, Archive, compressed, layer, sha256
from tests.support.engines import RealEngine
from tests.support.layouts import IMAGE_LAYOUTS
from tests.support.mounts import Bench, Finished, tree, without_figures
from tests.support.processes import until
from tests.support.real_image import NGINX

BIG = layer({"big": os.urandom(3 << 20)})
ARCHIVE = Archive(layers=(*LAYERS, BIG))
DATA = ARCHIVE.data()
BIG_NAME = f"{sha256(BIG)[7:]}.tar"
MOTD = sha256(LAYERS[2])
OTHER = LAYERS[2].replace(b"hello", b"hullo")
_CUT = DATA.index(BIG) + 100_000


def _mount_from(imgfs: Bench, data: bytes, *options: str | Path) -> tuple[Path, Finished]:
    """Mount what is on stdin."""
    (imgfs.folder / "stdin").write_bytes(data)
    mountpoint = imgfs.mountpoint()
    read, write = os.pipe()
    process = imgfs.start("mount", "--log-file", imgfs.log, *options, "-", mountpoint, stdin=read)
    os.close(read)
    with open(write, "wb") as pipe, contextlib.suppress(BrokenPipeError):
        pipe.write(data)
    out, err = process.communicate(timeout=30)
    return mountpoint, Finished(process.returncode, out, err)


@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
def test_an_archive_comes_through_a_pipe(imgfs: Bench, compression: str | None) -> None:
    mountpoint, done = _mount_from(imgfs, compressed(DATA, compression))
    assert (done.status, done.out) == (0, "")
    assert without_figures(done.err) == f"imgfs: mounted - on {mountpoint}; log: {imgfs.log}\n"
    assert (mountpoint / "config").read_bytes() == ARCHIVE.config_data
    assert (mountpoint / "blobs" / "sha256" / sha256(BIG)[7:]).read_bytes() == BIG
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"


def test_an_image_layout_comes_through_a_pipe(imgfs: Bench) -> None:
    mountpoint, done = _mount_from(imgfs, IMAGE_LAYOUTS["gzip"]().tar())
    assert done.status == 0
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", ["image.tar", "image"])
def test_a_compressed_archive_is_told_from_its_bytes(imgfs: Bench, compression: str, name: str) -> None:
    path = imgfs.folder / name
    path.write_bytes(compressed(DATA, compression))
    mountpoint = imgfs.mount(path)
    assert (mountpoint / "config").read_bytes() == ARCHIVE.config_data
    assert (mountpoint / "blobs" / "sha256" / sha256(BIG)[7:]).read_bytes() == BIG
    # It was written down: what becomes of the file is of no interest any more.
    path.unlink()
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    assert os.listdir(imgfs.spool) == []


@pytest.mark.parametrize("name", ["x.tgz", "x.tar.gz", "x.tar.zst", "x.tar.xz", "x.tar.bz2"])
def test_a_relative_name_that_ends_like_an_archive_is_one(imgfs: Bench, name: str) -> None:
    (imgfs.folder / name).write_bytes(DATA)  # whatever its name says
    mountpoint = imgfs.mount(name)
    assert (mountpoint / "config").read_bytes() == ARCHIVE.config_data


def test_a_fifo_is_a_pipe_with_a_name_that_is_waited_for(imgfs: Bench) -> None:
    fifo = imgfs.folder / "fifo"
    os.mkfifo(fifo)
    mountpoint = imgfs.mountpoint()
    process = imgfs.start("mount", "-q", "--log-file", imgfs.log, fifo, mountpoint)
    fifo.write_bytes(DATA)
    assert (*process.communicate(timeout=30), process.returncode) == ("", "", 0)
    assert (mountpoint / "config").read_bytes() == ARCHIVE.config_data


def test_ctrl_c_ends_the_wait_at_a_fifo(imgfs: Bench) -> None:
    fifo = imgfs.folder / "fifo"
    os.mkfifo(fifo)
    process = imgfs.start("mount", "--log-file", imgfs.log, fifo, imgfs.mountpoint())
    until(lambda: _waits_in_open(process.pid), "it waits for a writer")
    process.send_signal(signal.SIGINT)
    assert (*process.communicate(timeout=10), process.returncode) == ("", "imgfs: interrupted\n", 130)
    imgfs.nothing_left()


def _waits_in_open(pid: int) -> bool:
    return any((thread / "wchan").read_text() == "wait_for_partner" for thread in Path(f"/proc/{pid}/task").iterdir())


def test_ctrl_c_while_a_pipe_is_read_leaves_nothing(imgfs: Bench) -> None:
    read, write = os.pipe()
    process = imgfs.start("mount", "--log-file", imgfs.log, "-", imgfs.mountpoint(), stdin=read)
    os.close(read)
    with open(write, "wb") as pipe:
        pipe.write(DATA[:_CUT])  # more than a pipe holds: it has begun to read
        pipe.flush()
        process.send_signal(signal.SIGINT)
        assert (*process.communicate(timeout=10), process.returncode) == ("", "imgfs: interrupted\n", 130)
    imgfs.nothing_left()


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 5, "standard input is empty; did the command before the pipe fail?"),
        (b"\x07garbage" * 1000, 5, "standard input: not a tar archive: the checksum does not match at offset 0"),
        (
            DATA[:_CUT],
            5,
            f"standard input: truncated in {BIG_NAME} at offset {_CUT}: 100000 of {len(BIG)} bytes are there",
        ),
        (
            DATA.replace(LAYERS[2], OTHER),
            6,
            f"standard input: layer 2 ({MOTD[7:]}.tar) has the digest {sha256(OTHER)}, the image says {MOTD}",
        ),
    ],
    ids=["nothing", "garbage", "cut", "other bytes"],
)
def test_what_is_wrong_with_a_pipe_is_said_and_leaves_nothing(
    imgfs: Bench, data: bytes, status: int, message: str
) -> None:
    _, done = _mount_from(imgfs, data)
    assert done == Finished(status, "", f"imgfs: {message}\n")
    imgfs.nothing_left()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_compressed_pipe_that_is_cut_leaves_nothing(imgfs: Bench, compression: str) -> None:
    data = compressed(DATA, compression)
    _, done = _mount_from(imgfs, data[: len(data) // 2])
    assert (done.status, done.out) == (5, "")
    beginning = f"imgfs: standard input: truncated: the {compression} stream ends at offset {len(data) // 2}; "
    inside = re.escape(f"truncated in {sha256(BIG)[7:]}.tar at offset ") + r"\d+: \d+ of \d+ bytes are there\n"
    assert re.fullmatch(re.escape(beginning) + inside, done.err), done.err
    imgfs.nothing_left()


def test_a_terminal_is_no_archive(imgfs: Bench) -> None:
    command = shlex.join([*imgfs.command, "mount", "-", str(imgfs.mountpoint())])
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], env=imgfs.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ("imgfs: standard input is a terminal; docker save IMAGE | imgfs mount - MOUNTPOINT\n")
    imgfs.nothing_left()


def test_docker_save_is_mounted_as_it_comes(imgfs: Bench, docker_engine: RealEngine) -> None:
    mountpoint = imgfs.mountpoint()
    mount = shlex.join([*imgfs.command, "mount", "-q", "--log-file", str(imgfs.log), "-", str(mountpoint)])
    script = f"docker save {NGINX} | {mount}"
    environment = imgfs.environment | docker_engine.environment
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sha256((mountpoint / "config").read_bytes()) == docker_engine.inspect(NGINX)["Id"]
    by_engine = imgfs.mount(NGINX, "-H", docker_engine.host, "--no-trees", at=imgfs.mountpoint("engine"))
    ours, theirs = tree(by_engine / "blobs"), tree(mountpoint / "blobs")
    assert ours == theirs
    assert (mountpoint / "rootfs" / "etc" / "debian_version").read_bytes().startswith(b"12.")
