"""What the command says when an archive or the command line is wrong: one line, a status, and nothing left."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from fusefs import __version__
from tests.support.builders import BLOCK, LAYERS, Archive, archive_of, fifo, member, sha256, symlink, two_images
from tests.support.mounts import Bench, Finished, mounted_below, tree, without_figures

GZIP = b"\x1f\x8b\x08\x00" + bytes(600)


def _fails(imgfs: Bench, status: int, message: str, *arguments: str | Path) -> None:
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--log-file", imgfs.log, *arguments, mountpoint)
    assert done == Finished(status, "", f"imgfs: {message}\n")
    assert not imgfs.log.exists() or imgfs.log.read_bytes() == b""
    imgfs.nothing_left()


def _item(layers: int) -> bytes:
    item = Archive().item()
    return json.dumps([item | {"Layers": item["Layers"][:layers]}]).encode()


NAME = f"{sha256(LAYERS[0])[7:]}.tar"
CONFIG = f"{sha256(Archive().config_data)[7:]}.json"
MANIFEST = member("manifest.json", Archive().manifest_data())
WHOLE = Archive().data()
CUT = WHOLE.index(LAYERS[0]) + 1000
TRUNCATED = f"truncated in {NAME} at offset {CUT}: 1000 of {len(LAYERS[0])} bytes are there"
STORED = gzip.compress(WHOLE, 0)
"""WHOLE as it is after 15 bytes of headers, so that one can say what a cut leaves."""
CUT_GZIP = STORED[: 15 + CUT]
BROKEN_GZIP = STORED[:10] + b"\x07" + STORED[11:]

# The archive's bytes, the exit status, and the message after the archive's name.
ARCHIVES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 5, ": not a tar archive: the file is empty"),
    "zeros": (bytes(10240), 5, ": not an image archive: it has no members, only zero bytes"),
    "garbage": (b"\x07garbage" * 1000, 5, ": not a tar archive: the checksum does not match at offset 0"),
    "truncated": (
        WHOLE[:CUT],
        5,
        f": {TRUNCATED}",
    ),
    "broken header": (
        member("good", b"x") + b"\x07" * BLOCK * 4,
        5,
        f": damaged: no tar header at offset {2 * BLOCK}: the checksum does not match",
    ),
    "no manifest.json": (archive_of(member("a", b"x")), 5, ": not an image archive: manifest.json is missing"),
    "before 1.10": (
        archive_of(member("repositories", b"{}"), member("abc/layer.tar", b"")),
        7,
        ": saved by a Docker older than 1.10 (no manifest.json); docker load and docker save it with a newer one",
    ),
    "manifest null": (
        archive_of(member("manifest.json", b"null")),
        5,
        ": manifest.json is null or missing, not a list of images",
    ),
    "two images": (
        two_images(),
        4,
        " holds 2 images; choose with docker-archive:{0}:REF or :@INDEX from @0 (a:1); @1 (b:1, b:2)",
    ),
    "fewer layers": (
        Archive(manifest=_item(3)).data(),
        5,
        ": manifest.json lists 3 layers, the config 4",
    ),
    "layer missing": (archive_of(member(CONFIG, Archive().config_data), MANIFEST), 5, f": {NAME} is missing"),
    "layer a fifo": (
        archive_of(fifo(NAME), member(CONFIG, Archive().config_data), MANIFEST),
        5,
        f": {NAME} is a fifo, not a regular file",
    ),
    "layer a dangling link": (
        archive_of(symlink(NAME, "nowhere"), member(CONFIG, Archive().config_data), MANIFEST),
        5,
        f": {NAME} is a dangling link: nowhere is missing",
    ),
    "a name that leads out": (
        archive_of(member("../etc/passwd", b"x"), MANIFEST),
        5,
        f": {CONFIG} is missing",  # nothing refers to the other member
    ),
    "compressed whole, and broken": (
        BROKEN_GZIP,
        5,
        f": corrupt gzip data before offset {len(BROKEN_GZIP)}: invalid deflate data",
    ),
    "compressed whole, and cut": (
        CUT_GZIP,
        5,
        f": truncated: the gzip stream ends at offset {len(CUT_GZIP)}; {TRUNCATED}",
    ),
    "escape sequences": (
        archive_of(symlink(CONFIG, "\x1b[31mred"), MANIFEST),
        5,
        f": {CONFIG} is a dangling link: \\x1b[31mred is missing",
    ),
}


@pytest.mark.parametrize(("data", "status", "message"), ARCHIVES.values(), ids=ARCHIVES.keys())
def test_a_bad_archive_is_refused(imgfs: Bench, data: bytes, status: int, message: str) -> None:
    path = imgfs.folder / "bad.tar"
    path.write_bytes(data)
    _fails(imgfs, status, str(path) + message.replace("{0}", str(path)), path)


def test_a_compressed_layer_is_never_served_under_a_digest_that_is_not_its_own(imgfs: Bench) -> None:
    path = imgfs.folder / "bad.tar"
    stored = GZIP + bytes(len(LAYERS[0]) - len(GZIP))
    path.write_bytes(WHOLE.replace(LAYERS[0], stored))
    blobs = imgfs.mount(path) / "blobs" / "sha256"
    assert sha256(LAYERS[0])[7:] not in os.listdir(blobs)
    assert (blobs / sha256(stored)[7:]).read_bytes() == stored
    with pytest.raises(OSError, match="Input/output error"):
        (blobs / sha256(LAYERS[0])[7:]).read_bytes()
    imgfs.log_is_quiet = False
    (line,) = imgfs.log.read_text().splitlines()
    assert re.search(rf"ERROR: {path}: layer 0 \({NAME}\): (corrupt gzip data|truncated)", line), line


def test_content_that_is_not_its_diff_id_is_found_with_verify(imgfs: Bench) -> None:
    bad = LAYERS[2].replace(b"hello", b"hullo")
    path = imgfs.folder / "bad.tar"
    path.write_bytes(WHOLE.replace(LAYERS[2], bad))
    name = f"{sha256(LAYERS[2])[7:]}.tar"
    said = f"{path}: layer 2 ({name}) has the digest {sha256(bad)}, the image says {sha256(LAYERS[2])}"
    _fails(imgfs, 6, said, "--verify", path)


def test_without_verify_a_file_is_taken_at_its_word(imgfs: Bench) -> None:
    bad = LAYERS[2].replace(b"hello", b"hullo")
    path = imgfs.folder / "bad.tar"
    path.write_bytes(WHOLE.replace(LAYERS[2], bad))
    mountpoint = imgfs.mount(path)
    assert (mountpoint / "blobs" / "sha256" / sha256(LAYERS[2])[7:]).read_bytes() == bad


@pytest.mark.parametrize(
    ("end", "warning"),
    [
        (b"", "the end of the archive is not marked; all its members are complete"),
        (bytes(2 * BLOCK) + b"garbage", f"ignored data after the end of the archive at offset {len(WHOLE)}"),
    ],
)
def test_a_strange_end_is_a_warning(imgfs: Bench, end: bytes, warning: str) -> None:
    archive = Archive(end=end)
    path = archive.write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--log-file", imgfs.log, path, mountpoint)
    mounted = f"imgfs: mounted {path} on {mountpoint}; log: {imgfs.log}\n"
    assert (done.status, without_figures(done.err)) == (0, f"imgfs: warning: {path}: {warning}\n{mounted}")
    assert tree(mountpoint)["config"] == archive.config_data


@pytest.mark.parametrize(
    ("choice", "status", "message"),
    [
        (":c:1", 4, " has no image c:1; there are @0 (a:1); @1 (b:1, b:2)"),
        (":@2", 4, " has no image @2; there are @0 (a:1); @1 (b:1, b:2)"),
    ],
)
def test_a_choice_that_is_not_there_lists_what_is(imgfs: Bench, choice: str, status: int, message: str) -> None:
    path = imgfs.folder / "two.tar"
    path.write_bytes(two_images())
    _fails(imgfs, status, f"{path}{message}", f"docker-archive:{path}{choice}")


def test_a_missing_file(imgfs: Bench) -> None:
    path = imgfs.folder / "missing.tar"
    _fails(imgfs, 4, f"cannot open {path}: No such file or directory", path)


def test_a_directory(imgfs: Bench) -> None:
    _fails(imgfs, 5, f"{imgfs.spool}: not an OCI image layout: index.json is missing", imgfs.spool)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev/zero", "not an image archive: it has no members, only zero bytes"),
        ("/dev/null", "not a tar archive: the file is empty"),
    ],
)
def test_a_device(imgfs: Bench, path: str, message: str) -> None:
    _fails(imgfs, 5, f"{path}: {message}", path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("Nginx", "bad reference 'Nginx': repository names are lower case"),
        ("a b", "bad reference 'a b': a name has no ' '"),
        ("", "bad reference '': it is empty"),
        ("docker-archive:", "bad reference 'docker-archive:': expected docker-archive:PATH[:REF|:@INDEX]"),
        ("docker://Nginx", "bad reference 'Nginx': repository names are lower case"),
        ("docker://" + 64 * "a", f"bad reference '{64 * 'a'}': it is an image ID, which only engines know"),
    ],
)
def test_a_bad_reference_is_a_usage_error(imgfs: Bench, image: str, message: str) -> None:
    _fails(imgfs, 2, message, image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mount"], "the following arguments are required: IMAGE; see imgfs mount --help"),
        (["umount"], "the following arguments are required: MOUNTPOINT; see imgfs umount --help"),
        (["mount", "--nonsense", "x", "y"], "no option --nonsense; imgfs mount --help lists all"),
        (["mount", "--fore", "x", "y"], "no option --fore; did you mean --foreground? imgfs mount --help lists all"),
        (["mount", "x", "y", "-o", "host"], "option host takes a value"),
        (["mount", "x", "y", "-o", "quiet=1"], "option quiet takes no value"),
        (["mount", "x", "y", "-o", "no_trees=1"], "option no-trees takes no value"),
        (["mount", "x", "y", "-o", "uid=root"], "option uid takes a number, not 'root'"),
        (["mount", "x", "y", "-o", "umask=9"], "option umask takes a number, not '9'"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(imgfs: Bench, arguments: list[str], message: str) -> None:
    assert imgfs.run(*arguments) == Finished(2, "", f"imgfs: {message}\n")


def test_an_unknown_command_is_a_usage_error(imgfs: Bench) -> None:
    done = imgfs.run("eject")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("imgfs: ")
    assert "eject" in done.err


@pytest.mark.parametrize("arguments", [["--help"], ["mount", "--help"], ["umount", "--help"]])
def test_help_goes_to_stdout(imgfs: Bench, arguments: list[str]) -> None:
    done = imgfs.run(*arguments)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("usage: imgfs")


def test_the_version_is_the_packages(imgfs: Bench) -> None:
    assert imgfs.run("--version") == Finished(0, f"imgfs {__version__}\n", "")


def test_a_log_that_cannot_be_written_is_said_before_anything_else(imgfs: Bench) -> None:
    path = imgfs.folder / "missing" / "log"
    done = imgfs.run("mount", "--log-file", path, Archive().write(imgfs.folder / "image.tar"), imgfs.mountpoint())
    said = f"cannot write the log {path}: No such file or directory; choose another file with --log-file"
    assert done == Finished(8, "", f"imgfs: {said}\n")
    assert mounted_below(imgfs.folder) == []


def test_a_file_that_shrinks_while_it_is_mounted_gives_io_errors_and_no_short_reads(imgfs: Bench) -> None:
    path = Archive().write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mount(path)
    imgfs.log_is_quiet = False
    os.truncate(path, 0)
    with pytest.raises(OSError, match="Input/output error"):
        (mountpoint / "blobs" / "sha256" / sha256(LAYERS[0])[7:]).read_bytes()
    assert f"{path} was changed while it is in use" in imgfs.log.read_text()
    assert (mountpoint / "config").read_bytes() == Archive().config_data
