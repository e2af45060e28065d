"""First looks into trees: who looks in waits, everyone else does not, and it is made once."""

import os
import random
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.builders import CREATED_NS, LAYERS, Archive, compressed, image_config, layer, sha256
from tests.support.file_systems import tmpfs
from tests.support.layouts import Layout
from tests.support.mounts import Bench, Finished, mounted_below
from tests.support.processes import until
from tests.support.slow_archive import ABORTED, SlowFile

PLANTED = (sys.executable, str(Path(__file__).parents[2] / "programs" / "planted.py"))
NOISE = random.Random(5).randbytes(3 << 20)
BIG = layer({"noise": NOISE, "after": b"found\n", "more": NOISE})
"""Its second header lies so far from both ends that no reading of others has brought it into the page cache."""
ALL_LAYERS = (*LAYERS, BIG)
CONFIG = image_config(ALL_LAYERS)
PLACES = {
    "layers": ("gzip", "layers/4/after", b"found\n", ["decompress", "index"]),
    "plain layers": (None, "layers/4/after", b"found\n", ["index"]),
    "rootfs": ("gzip", "rootfs/after", b"found\n", [*["decompress"] * 3, *["index"] * 3]),
    "plain rootfs": (None, "rootfs/after", b"found\n", ["index"] * 3),
    ".uncompressed": ("gzip", ".uncompressed/4/tar", BIG, ["decompress"]),
    "diffID": ("gzip", f"blobs/sha256/{sha256(BIG)[7:]}", BIG, ["decompress"]),
}
"""How the layers are stored, the file that is looked at, its bytes, and what has to be done for it.

The root file system needs three layers more than the first: the second and the fourth are one.
"""
MANY = 200
EIO = "Input/output error"


def _archive(compression: str | None) -> bytes:
    """Return an image layout: of a Docker archive, compressed layers would be read and hashed at the mount."""
    layout = Layout()
    return layout.list(layout.image(ALL_LAYERS, compression, config=layout.blob("config", CONFIG)), "1").tar()


@pytest.fixture(name="slow")
def slow_file(imgfs: Bench, request: pytest.FixtureRequest) -> Iterator[SlowFile]:
    """Give the archive, its layers compressed as the test's first parameter says."""
    slow = SlowFile(imgfs, request.param)
    imgfs.command = (*PLANTED, f"note={imgfs.folder / 'notes'}")
    try:
        yield slow
    finally:
        slow.end()


class Clients:
    """Many processes that read one file: those who wait cannot even be forked from."""

    def __init__(self, path: Path) -> None:
        command = ["cat", str(path)]
        self.processes = [
            subprocess.Popen(command, env={"LC_ALL": "C"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(MANY)
        ]

    def all_wait(self) -> None:
        """Return once all of them wait in the kernel for this file system; none may have ended."""
        assert {process.poll() for process in self.processes} == {None}
        until(lambda: all(map(_waits, self.processes)), "all clients wait")

    def results(self) -> set[tuple[bytes, str]]:
        """Return what they have read, and the texts of their errors."""
        found = set()
        for process in self.processes:
            out, err = process.communicate(timeout=30)
            found.add((out, err.decode().rpartition(": ")[2].strip()))
        return found


def _waits(process: subprocess.Popen[bytes]) -> bool:
    """Return whether *process* is ``cat`` and sleeps, which it does in the kernel only for its file."""
    fields = Path(f"/proc/{process.pid}/stat").read_text()
    return fields.partition("(")[2].startswith("cat)") and fields.rpartition(") ")[2][0] in "SD"


def _look_at_everything_else(mountpoint: Path, place: str) -> None:
    """Read, list and stat all that can be without the archive, in a process that must end soon."""
    script = f"""
set -e
cd {mountpoint}
cat config manifest.json index.json oci-layout blobs/sha256/{sha256(CONFIG)[7:]} > /dev/null
cat layers/0/etc/os-release
ls layers/0 layers/0/etc
ls -la . blobs blobs/sha256 layers
stat * blobs/sha256/* layers/* {place.split("/", maxsplit=1)[0]}
! stat absent blobs/absent blobs/sha256/absent layers/99 layers/0/absent
df .
"""
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout.partition("\n")[0]) == (0, "ID=test"), done.stderr


def _with_archive(places: dict[str, tuple[str | None, str, bytes, list[str]]]) -> list[object]:
    return [pytest.param(_archive(place[0]), *place[1:], id=name) for name, place in places.items()]


each_place = pytest.mark.parametrize(("slow", "path", "data", "work"), _with_archive(PLACES), indirect=["slow"])


@each_place
def test_two_hundred_wait_for_one_first_look_and_nobody_else_does(
    imgfs: Bench, slow: SlowFile, path: str, data: bytes, work: list[str]
) -> None:
    mountpoint = imgfs.mount(slow.path)
    # What is known already stays usable, its bytes in the page cache too.
    assert (mountpoint / "layers" / "0" / "etc" / "os-release").read_bytes() == b"ID=test\n"
    notes = imgfs.folder / "notes"
    before = len(notes.read_text().splitlines())
    slow.hold()
    clients = Clients(mountpoint / path)
    slow.hear("waiting")
    clients.all_wait()
    for _ in range(3):
        _look_at_everything_else(mountpoint, path)
    clients.all_wait()
    slow.go()
    assert clients.results() == {(data, "")}
    assert (mountpoint / path).read_bytes() == data
    assert sorted(notes.read_text().splitlines()[before:]) == work


@each_place
def test_a_signal_unmounts_at_once_while_two_hundred_wait(
    imgfs: Bench, slow: SlowFile, path: str, data: bytes, work: list[str]
) -> None:
    assert work
    process = imgfs.foreground(slow.path)
    slow.hold()
    clients = Clients(imgfs.folder / "mnt" / path)
    slow.hear("waiting")
    clients.all_wait()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert mounted_below(imgfs.folder / "mnt") == []
    found = clients.results()
    assert {out for out, _ in found} == {b""} != {data}
    # Whom the kernel had not let in yet finds the empty mountpoint.
    assert {error for _, error in found} <= {*ABORTED, "No such file or directory"}


HUGE = layer({"noise": NOISE * 3, "after": b"found\n", "more": NOISE * 3})
"""So large that a child indexes it."""


@pytest.mark.parametrize("slow", [Archive(layers=[HUGE]).data()], indirect=True, ids=["a layer for a child"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_child_that_indexes_ends_with_its_mount(imgfs: Bench, slow: SlowFile, number: int) -> None:
    mountpoint = imgfs.mount(slow.path)
    serving = imgfs.serving(mountpoint)
    slow.hold()
    clients = Clients(mountpoint / "rootfs" / "after")
    slow.hear("waiting")
    clients.all_wait()
    assert len(imgfs.processes()) == 2
    os.kill(serving, number)
    until(lambda: not imgfs.processes(), "both processes end")
    if number == signal.SIGKILL:
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    assert mounted_below(mountpoint) == []
    assert {out for out, _ in clients.results()} == {b""}


def _broken_archive(compression: str | None) -> bytes:
    """Return the archive with damage in its biggest layer, which nobody sees without reading that."""
    data = _archive(compression)
    # Most of it are the big layer's bytes; of a plain one only headers are ever looked at.
    at = len(data) // 2 if compression else data.index(BIG) + 512 + len(NOISE)
    return data[:at] + b"\x07" * 2000 + data[at + 2000 :]


@pytest.mark.parametrize(
    ("slow", "path"),
    [
        pytest.param(_broken_archive("gzip"), ".uncompressed/4/tar", id="uncompressed"),
        pytest.param(_broken_archive("gzip"), "layers/4/after", id="layers"),
        pytest.param(_broken_archive(None), "layers/4/after", id="plain layers"),
        pytest.param(_broken_archive("gzip"), "rootfs/after", id="rootfs"),
        pytest.param(_broken_archive(None), "rootfs/after", id="plain rootfs"),
    ],
    indirect=["slow"],
)
def test_a_first_look_that_fails_is_an_io_error_for_all_and_one_line_in_the_log(
    imgfs: Bench, slow: SlowFile, path: str
) -> None:
    mountpoint = imgfs.mount(slow.path)
    imgfs.log_is_quiet = False
    slow.hold()
    clients = Clients(mountpoint / path)
    slow.hear("waiting")
    clients.all_wait()
    slow.go()
    assert clients.results() == {(b"", EIO)}
    # All else goes on.
    assert (mountpoint / "layers" / "0" / "etc" / "os-release").read_bytes() == b"ID=test\n"
    assert (mountpoint / "config").read_bytes() == CONFIG
    lines = imgfs.log.read_text().splitlines()
    assert len(lines) == 1, lines[:3]
    wrong = r"(corrupt gzip data before offset \d+|damaged: no tar header at offset \d+): "
    assert re.search(rf"\]: ERROR: .*/file: layer 4 \(sha256:[0-9a-f]{{64}}\): {wrong}", lines[0])


def test_where_there_is_no_space_a_look_fails_and_works_once_there_is(imgfs: Bench) -> None:
    plain = layer({"noise": NOISE[:600_000]})
    archive = Archive(layers=[compressed(plain, "gzip")], config=image_config([plain]))
    path = archive.write(imgfs.folder / "image.tar")
    with tmpfs(imgfs.mountpoint("small"), "1m") as small:
        (small / "filler").write_bytes(bytes(700_000))
        mountpoint = imgfs.mount(path, "--no-cache", "--tmpdir", small)
        imgfs.log_is_quiet = False
        for place in (".uncompressed/0/tar", "layers/0/noise", "rootfs/noise", ".uncompressed/0/tar"):
            with pytest.raises(OSError, match="No space left on device"):
                (mountpoint / place).read_bytes()
        until(lambda: imgfs.made_files(mountpoint) == [], "nothing half-made is kept")
        assert (mountpoint / "config").read_bytes() == archive.config_data
        lines = [line.partition("]: ")[2] for line in imgfs.log.read_text().splitlines()]
        assert 1 <= len(lines) < 4  # the same is said once in ten seconds
        assert all(line.startswith("ERROR: ") and str(small) in line and "--tmpdir" in line for line in lines)
        (small / "filler").unlink()
        assert (mountpoint / ".uncompressed" / "0" / "tar").read_bytes() == plain
        assert (mountpoint / "layers" / "0" / "noise").read_bytes() == NOISE[:600_000]
        assert (mountpoint / "rootfs" / "noise").read_bytes() == NOISE[:600_000]
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")


@pytest.mark.parametrize("size", [0, 17 << 20], ids=["in a thread", "in a child"])
def test_an_index_that_does_not_fit_is_no_space_either(imgfs: Bench, size: int) -> None:
    plain = layer({"big": bytes(size)} | {f"{number:04}": b"" for number in range(4000)})
    path = Archive(layers=[plain]).write(imgfs.folder / "image.tar")
    with tmpfs(imgfs.mountpoint("small"), "1m") as small:
        (small / "filler").write_bytes(bytes(900_000))
        mountpoint = imgfs.mount(path, "--no-cache", "--tmpdir", small)
        imgfs.log_is_quiet = False
        for place in ("layers/0", "rootfs"):
            with pytest.raises(OSError, match="No space left on device"):
                os.listdir(mountpoint / place)
        assert imgfs.made_files(mountpoint) == []
        lines = [line.partition("]: ")[2] for line in imgfs.log.read_text().splitlines()]
        name = f"{path}: layer 0 ({sha256(plain)[7:]}.tar)"
        hint = "choose another directory with --tmpdir"
        assert lines[0] == f"ERROR: cannot index {name} in {small}: No space left on device; {hint}"
        assert lines[1:] in ([], lines[:1])  # on a slow machine; the same is said once in ten seconds
        (small / "filler").unlink()
        assert len(os.listdir(mountpoint / "rootfs")) == len(os.listdir(mountpoint / "layers" / "0")) == 4001
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")


def test_a_look_that_had_no_space_leaves_the_attributes_as_they_were(imgfs: Bench) -> None:
    plain = layer({"noise": NOISE[:600_000]})
    archive = Archive(layers=[compressed(plain, "gzip")], config=image_config([plain]))
    path = archive.write(imgfs.folder / "image.tar")
    with tmpfs(imgfs.mountpoint("small"), "400k") as small:
        mountpoint = imgfs.mount(path, "--no-cache", "--tmpdir", small)
        imgfs.log_is_quiet = False
        with pytest.raises(OSError, match="No space left on device"):
            os.listdir(mountpoint / "rootfs")
        found = (mountpoint / "rootfs").stat()
        assert (stat.filemode(found.st_mode), found.st_mtime_ns) == ("drwxr-xr-x", CREATED_NS)
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")


def test_a_large_directory_is_listed_once_for_all_who_read_it(imgfs: Bench) -> None:
    notes = imgfs.folder / "notes"
    imgfs.command = (*PLANTED, f"note={notes}")
    names = [f"f{number:05}" for number in range(5000)]
    upper = layer({f"d/{name}": b"" for name in names[::2]})
    lower = layer({f"d/{name}": b"" for name in names})
    mountpoint = imgfs.mount(Archive(layers=(lower, upper)).write(imgfs.folder / "image.tar"))
    os.listdir(mountpoint / "rootfs")
    opened = [os.open(mountpoint / "rootfs" / "d", os.O_RDONLY) for _ in range(20)]
    notes.write_text("")
    with ThreadPoolExecutor(len(opened)) as pool:
        assert list(pool.map(lambda file: sorted(os.listdir(file)), opened)) == [names] * len(opened)
    assert notes.read_text() == "list\n"
    for file in opened:
        os.close(file)
    assert sorted(os.listdir(mountpoint / "rootfs" / "d")) == names  # nobody read it any more: it is made again
    assert notes.read_text() == "list\n" * 2
