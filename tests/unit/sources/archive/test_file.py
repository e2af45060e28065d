"""Archives that are compressed as a whole, pipes, and transports that do not fit."""

import bz2
import gzip
import lzma
import os
import random
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from fusefs.errors import DigestMismatch, ImgfsError, InvalidImage, NoSpace, Unavailable, Unsupported
from fusefs.sources import open_image
from tests.conftest import TakeWarnings
from tests.support.builders import COMPRESSIONS, END, LAYERS, Archive, image_config, layer, member, sha256
from tests.support.conformance import (
    SETTINGS,
    SPOOLING,
    Noted,
    check_image,
    closing_what_is_opened,
    opened,
    refusal,
    stored,
)
from tests.support.layouts import COMPRESSED_LAYOUTS, IMAGE_LAYOUTS, LAYOUTS

_TIMEOUT = 20
_BLOCKS = 300 << 10
"""As many bytes as have the header of a block among them, in any format."""
NOISE = (random.Random(1).randbytes(3 << 20),)
"""A layer that does not shrink and is larger than every buffer."""
LIE = Archive(layers=[b"a lie"], config=image_config(LAYERS[:1]), layer_names=["a"]).data()
LIED = f"layer 0 (a) has the digest {sha256(b'a lie')}, the image says {sha256(LAYERS[0])}"
SOURCES: dict[str, Callable[[], bytes]] = {**LAYOUTS, **COMPRESSED_LAYOUTS} | {
    f"layout, {name}": lambda build=build: build().tar() for name, build in IMAGE_LAYOUTS.items()
}

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def layers_in(argument: str) -> list[bytes]:
    """Return the stored layers of an image that has to be spooled, all else that holds for it checked."""
    with opened(argument, SPOOLING) as image:
        check_image(image)
        return [stored(one) for one in image.layers]


@contextmanager
def feeding(open_writer: Callable[[], int], pieces: list[bytes]) -> Iterator[None]:
    """Write *pieces* from another thread for as long as someone reads."""

    def write() -> None:
        descriptor = open_writer()
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]
        except BrokenPipeError:  # who reads has seen enough
            pass
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        thread.join(_TIMEOUT)
        assert not thread.is_alive()


@contextmanager
def piped(data: bytes, size: int = 1 << 16) -> Iterator[None]:
    """Make *data*, in pieces of *size* bytes, the standard input."""
    kept = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    with feeding(lambda: writing, pieces):
        try:
            yield
        finally:
            os.dup2(kept, 0)  # the pipe's last reader is gone
            os.close(kept)


def refused(argument: str) -> tuple[type[ImgfsError], str]:
    """Return the class and message of the error for an image that has to be spooled."""
    return refusal(argument, SPOOLING)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("build", SOURCES.values(), ids=SOURCES.keys())
def test_every_source_may_be_compressed_as_a_whole(compression: str, build: Callable[[], bytes]) -> None:
    Path("plain").write_bytes(build())
    Path("compressed").write_bytes(COMPRESSIONS[compression](build()))
    with opened("./plain") as plain, opened("./compressed", SPOOLING) as found:
        check_image(found)
        assert [stored(one) for one in found.layers] == [stored(one) for one in plain.layers]
        assert found.manifest.content.data == plain.manifest.content.data


@pytest.mark.parametrize("compression", [*COMPRESSIONS, None])
@pytest.mark.parametrize("size", [1, 511, 1 << 16])
def test_a_pipe_may_bring_it_in_pieces(compression: str | None, size: int) -> None:
    data = Archive(layers=[b"plain"]).data()
    with piped(data if compression is None else COMPRESSIONS[compression](data), size):
        assert layers_in("-") == [b"plain"]


@pytest.mark.parametrize("argument", ["-", "docker-archive:-", "docker-archive:-:test/image:1", "docker-archive:-:@0"])
def test_standard_input_is_read_as_any_transport(argument: str) -> None:
    with piped(Archive().data()):
        assert layers_in(argument) == list(LAYERS)


@pytest.mark.parametrize("argument", ["-", "oci-archive:-", "oci-archive:-:1"])
def test_an_image_layout_may_come_through_a_pipe(argument: str) -> None:
    with piped(IMAGE_LAYOUTS["plain"]().tar()):
        assert layers_in(argument) == list(LAYERS)


@pytest.mark.parametrize("compression", ["gzip", None])
def test_a_fifo_is_read_until_its_writer_is_done(compression: str | None) -> None:
    os.mkfifo("fifo")
    data = Archive(layers=NOISE).data()
    pieces = [data if compression is None else COMPRESSIONS[compression](data)]
    with feeding(lambda: os.open("fifo", os.O_WRONLY), pieces):
        assert layers_in("./fifo") == list(NOISE)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_bytes_say_what_it_is_and_not_the_name(compression: str) -> None:
    name = "x.tar.gz" if compression != "gzip" else "x.tar"
    Path(name).write_bytes(COMPRESSIONS[compression](Archive().data()))
    assert layers_in(name) == list(LAYERS)


def test_a_plain_archive_may_be_called_compressed_and_is_read_in_place() -> None:
    Archive().write(Path("x.tar.gz"))
    with opened("x.tar.gz", SETTINGS) as image:
        assert [stored(one) for one in image.layers] == list(LAYERS)


def test_a_plain_archive_whose_first_member_is_called_like_a_compression_is_plain() -> None:
    Path("x.tar").write_bytes(member("BZh91AY&SY", b"x") + Archive().data())
    with opened("./x.tar", SETTINGS) as image:
        assert [stored(one) for one in image.layers] == list(LAYERS)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_several_members_or_frames_are_one_archive(compression: str) -> None:
    data = Archive(layers=NOISE).data()
    cuts = [0, 1, 700, 1 << 20, len(data)]
    parts = [COMPRESSIONS[compression](data[start:end]) for start, end in pairwise(cuts)]
    Path("x").write_bytes(b"".join(parts))
    assert layers_in("./x") == list(NOISE)


def test_a_skippable_zstd_frame_may_come_first_and_between() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    data = Archive().data()
    parts = (COMPRESSIONS["zstd"](part) for part in (data[:1000], data[1000:]))
    Path("x").write_bytes(skippable + skippable.join(parts))
    assert layers_in("./x") == list(LAYERS)


@pytest.mark.parametrize("compression", ["gzip", "xz"])
def test_zeros_after_the_compressed_data_are_padding(compression: str) -> None:
    Path("x").write_bytes(COMPRESSIONS[compression](Archive().data()) + bytes(1024))
    assert layers_in("./x") == list(LAYERS)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_truncated_stream_names_the_member_and_the_offsets(compression: str) -> None:
    data = COMPRESSIONS[compression](Archive(layers=NOISE, layer_names=["big"]).data())
    Path("x").write_bytes(data[: len(data) // 2])
    error, message = refused("./x")
    assert error is InvalidImage
    pattern = (
        rf"\./x: truncated: the {compression} stream ends at offset {len(data) // 2}; "
        rf"truncated in big at offset \d+: \d+ of {len(NOISE[0])} bytes are there"
    )
    assert re.fullmatch(pattern, message), message


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_corrupt_stream_names_the_member_and_the_offsets(compression: str) -> None:
    data = bytearray(COMPRESSIONS[compression](Archive(layers=NOISE, layer_names=["big"]).data()))
    middle = len(data) // 2
    data[middle : middle + _BLOCKS] = b"\xff" * _BLOCKS  # a block's header too: noise alone is stored as it is
    Path("x").write_bytes(data)
    error, message = refused("./x")
    assert error is InvalidImage
    pattern = (
        rf"\./x: corrupt {compression} data before offset \d+: [^;]+; "
        rf"truncated in big at offset \d+: \d+ of {len(NOISE[0])} bytes are there"
    )
    assert re.fullmatch(pattern, message), message


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("keep", [12, 20])
def test_a_stream_that_ends_in_its_header_is_truncated(compression: str, keep: int) -> None:
    Path("x").write_bytes(COMPRESSIONS[compression](Archive().data())[:keep])
    message = f"./x: truncated: the {compression} stream ends at offset {keep}"
    assert refused("./x") == (InvalidImage, message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a tar archive: the file is empty"),
        (b"hello\n", "not a tar archive: it has 6 bytes, less than a header"),
        (b"garbage" * 1000, "not a tar archive: the checksum does not match at offset 0"),
        (bytes(10240), "not an image archive: it has no members, only zero bytes"),
        (member("a", b"x" * 2000)[:1000], "truncated in a at offset 1000: 488 of 2000 bytes are there"),
        (member("a") + END, "not an image archive: manifest.json is missing"),
    ],
    ids=range(6),
)
def test_what_is_in_a_stream_is_refused_as_in_a_file(data: bytes, message: str) -> None:
    Path("plain").write_bytes(data)
    assert refusal("./plain") == (InvalidImage, f"./plain: {message}")
    for compression, compress in COMPRESSIONS.items():
        Path(compression).write_bytes(compress(data))
        assert refused(f"./{compression}") == (InvalidImage, f"./{compression}: {message}")
    with piped(data):
        in_pipe = f": {message}" if data else " is empty; did the command before the pipe fail?"
        assert refused("-") == (InvalidImage, f"standard input{in_pipe}")


def unpacked(data: bytes, path: str) -> None:
    """Unpack an archive into the directory *path*."""
    Path(path).mkdir()
    subprocess.run(["tar", "-x", "--no-same-owner", "-C", path], input=data, check=True, capture_output=True)


@pytest.mark.parametrize("argument", ["./dir", "docker-archive:dir", "docker-archive:dir:test/image:1"])
@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "links"])  # of which one is absolute
def test_an_unpacked_docker_archive_is_read_as_the_archive_is(name: str, argument: str) -> None:
    data = LAYOUTS[name]()
    unpacked(data, "dir")
    Path("x.tar").write_bytes(data)
    with opened("./x.tar") as packed, opened(argument) as image:
        check_image(image)
        assert image.manifest.content.data == packed.manifest.content.data
        assert [stored(layer) for layer in image.layers] == list(LAYERS)


def test_the_archive_in_a_directory_may_link_its_members_but_not_out_of_it() -> None:
    unpacked(Archive(layer_names=["a/0", "1", "2", "3"][: len(LAYERS)]).data(), "dir")
    Path("dir/1").unlink()
    Path("dir/1").symlink_to("../x")
    kind, message = refusal("./dir")
    assert (kind, "leads out of the layout" in message) == (InvalidImage, True)


def test_a_directory_of_skopeos_own_transport_is_named() -> None:
    Path("dir").mkdir()
    Path("dir/manifest.json").write_text("{}")
    Path("dir/version").write_text("Directory Transport Version: 1.1\n")
    message = "dir is a directory of skopeo's transport dir:; skopeo copy dir:./dir oci:DIR, then give oci:DIR"
    assert refusal("./dir") == (Unsupported, f"./{message}")


def test_a_stream_is_always_verified_and_a_plain_file_on_request() -> None:
    Path("plain").write_bytes(LIE)
    Path("x.gz").write_bytes(gzip.compress(LIE))
    with opened("./plain") as image:
        assert [stored(one) for one in image.layers] == [b"a lie"]
    assert refused("./x.gz") == (DigestMismatch, f"./x.gz: {LIED}")
    with piped(LIE):
        assert refused("-") == (DigestMismatch, f"standard input: {LIED}")
    with pytest.raises(DigestMismatch) as caught, closing_what_is_opened():
        open_image("./plain", SETTINGS._replace(verify=True))
    assert str(caught.value) == f"./plain: {LIED}"


def test_a_stream_is_not_read_again_to_be_verified() -> None:
    noted = Noted()
    data = gzip.compress(COMPRESSED_LAYOUTS["kaniko, gzip"]())
    Path("x.gz").write_bytes(data)
    with opened("./x.gz", SPOOLING._replace(verify=True, progress=noted)):
        assert noted.transfers == [("reading ./x.gz", len(data))]
        assert noted.done == len(data)


def test_nobody_knows_how_long_a_pipe_is() -> None:
    noted = Noted()
    data = Archive().data()
    with piped(data), opened("-", SPOOLING._replace(progress=noted)):
        assert (noted.transfers, noted.done) == ([("reading standard input", None)], len(data))


def test_a_stream_needs_a_place_and_a_plain_file_none() -> None:
    Path("x.gz").write_bytes(gzip.compress(Archive().data()))
    reason = "No such file or directory; choose another directory with --tmpdir"
    assert refusal("./x.gz", SETTINGS._replace(tmpdir="gone")) == (NoSpace, f"cannot write in gone: {reason}")


def test_garbage_behind_a_compressed_archive_is_a_warning(take_warnings: TakeWarnings) -> None:
    data = Archive().data()
    Path("x").write_bytes(gzip.compress(data + b"garbage"))
    assert layers_in("./x") == list(LAYERS)
    assert take_warnings() == [f"./x: ignored data after the end of the archive at offset {len(data)}"]


def test_what_follows_the_end_of_an_archive_does_not_keep_a_pipe_waiting() -> None:
    # An endless writer: it is told by SIGPIPE once enough has been seen.
    with piped(Archive().data() + bytes(16 << 20)):
        assert layers_in("-") == list(LAYERS)


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("oci:x.tar", Unavailable, "x.tar is no directory; oci-archive:x.tar reads a tar"),
        ("oci:gone", Unavailable, "cannot open gone: No such file or directory"),
        ("oci-archive:dir", Unavailable, "dir is a directory, not an archive; oci:dir reads an OCI image layout"),
        ("docker-archive:dir", Unavailable, "dir is a directory, not an archive; oci:dir reads an OCI image layout"),
        ("oci-archive:x.tar", InvalidImage, "x.tar: not an OCI image layout: index.json is missing"),
        ("docker-archive:layout.tar", InvalidImage, "layout.tar: not an image archive: manifest.json is missing"),
    ],
)
def test_a_transport_that_does_not_fit_is_named(argument: str, error: type[ImgfsError], message: str) -> None:
    Archive().write(Path("x.tar"))
    layout = IMAGE_LAYOUTS["plain"]()
    layout.write("dir")
    Path("layout.tar").write_bytes(layout.tar())
    assert refusal(argument) == (error, message)


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_each_archive_transport_reads_compressed_ones(transport: str, compression: str) -> None:
    data = IMAGE_LAYOUTS["plain"]().tar() if transport == "oci-archive" else Archive().data()
    Path("x").write_bytes(COMPRESSIONS[compression](data))
    assert layers_in(f"{transport}:x") == list(LAYERS)


def test_an_archive_that_is_both_is_a_docker_archive_unless_the_other_is_asked_for() -> None:
    layout = IMAGE_LAYOUTS["plain"]()
    other = [layer({"other": b""})]
    archive = Archive(layers=other)
    Path("x.tar").write_bytes(layout.tar(*archive.blobs(), member("manifest.json", archive.manifest_data())))
    for argument, layers in [("./x.tar", other), ("docker-archive:x.tar", other), ("oci-archive:x.tar", LAYERS)]:
        with opened(argument) as image:
            check_image(image)
            assert [stored(one) for one in image.layers] == list(layers)


@pytest.mark.parametrize("open_compressed", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_archive_that_is_a_link_is_read(open_compressed: Callable[[bytes], bytes]) -> None:
    Path("real").write_bytes(open_compressed(Archive().data()))
    os.symlink("real", "x.tar")
    assert layers_in("x.tar") == list(LAYERS)
