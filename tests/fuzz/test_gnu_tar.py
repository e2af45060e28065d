"""Random archives are read as GNU tar reads them: members, places and bytes are the same, but for what is known."""

import random
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.tar.attributes import file_attributes, sparse_runs
from fusefs.tar.header import BLOCK, Kind, parse_header
from fusefs.tar.members import Member, scan
from tests.fuzz.random_archives import HONEST, archive
from tests.support.builders import Memory
from tests.support.requirements import need

_LINE = re.compile(rb"block (\d+): (.)\S* (\d+)/(\d+) +(\d+|\d+,\d+) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? +(.*)")
_LETTERS = {
    Kind.REGULAR: b"-",
    Kind.DIRECTORY: b"d",
    Kind.SYMLINK: b"l",
    Kind.HARD_LINK: b"h",
    Kind.FIFO: b"p",
    Kind.CHARACTER_DEVICE: b"c",
    Kind.BLOCK_DEVICE: b"b",
}


class Listed(NamedTuple):
    """What ``tar -tvR`` says of a member, as far as it is compared."""

    block: int
    letter: bytes
    uid: int
    gid: int
    size: bytes
    name: bytes
    """With the target of a link."""


def tar(path: Path, *options: str) -> bytes:
    """Return what GNU tar writes, which may not complain of damage."""
    command = ["tar", *options, "--numeric-owner", "--quoting-style=escape", "--full-time", "-f", str(path)]
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


def theirs(path: Path) -> list[Listed]:
    """Return what GNU tar lists."""
    found = []
    for line in tar(path, "-tvR").splitlines():
        if line.endswith((b"** Block of NULs **", b"** End of File **")):
            continue
        match = _LINE.fullmatch(line)
        assert match, line
        block, letter, uid, gid, size, name = match.groups()
        found.append(Listed(int(block), letter, int(uid), int(gid), size, name))
    return found


def ours(data: bytes) -> list[Listed]:
    """Return what the scan finds, in GNU tar's words.

    The differences that are known, each undone here: GNU tar

    - does not list global headers (nor does imgfs show them),
    - counts a member from its first GNU long name, or from its header: a PAX header is none of it,
    - refuses a sparse file whose map has no entry (imgfs takes it for a hole): none is among the parts,
    - writes some holes to a pipe and leaves others out (1.34): such archives are compared without that.
    """
    found = []
    for member in scan(Memory(data)):
        if member.kind is Kind.PAX_GLOBAL:
            continue
        about = file_attributes(member)
        name = _quoted(member.name)
        if member.kind is Kind.HARD_LINK:
            name += b" link to " + _quoted(member.link)
        if member.kind is Kind.SYMLINK:
            name += b" -> " + _quoted(member.link)
        size = b"%d" % size_of(data, member) if member.kind is Kind.REGULAR else b"0"
        if member.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
            size = b"%d,%d" % (about.major, about.minor)
        found.append(Listed(_first_block(data, member), _LETTERS[member.kind], about.uid, about.gid, size, name))
    return found


def _first_block(data: bytes, member: Member) -> int:
    at = member.header
    while (header := parse_header(data[at : at + BLOCK])).kind is Kind.PAX:
        at += BLOCK + -(-header.size // BLOCK) * BLOCK
    return at // BLOCK


def _quoted(name: bytes) -> bytes:
    return b"".join(b"\\%03o" % byte if byte > 0x7E else bytes([byte]) for byte in name.replace(b"\\", b"\\\\"))


def content(data: bytes, member: Member) -> bytes:
    """Return the bytes of a file."""
    return data[member.offset : member.offset + member.size]


def size_of(data: bytes, member: Member) -> int:
    """Return the size of a file, holes too."""
    if not member.sparse:
        return member.size
    size, runs = sparse_runs(member, lambda offset, count: data[offset : offset + count])
    assert all(member.offset <= at <= at + length <= member.offset + member.size for _, at, length in runs)
    return size


def check(data: bytes, path: Path) -> None:
    """Compare members, places and bytes of an honest archive."""
    path.write_bytes(data)
    assert ours(data) == theirs(path)
    files = [member for member in scan(Memory(data)) if member.kind is Kind.REGULAR]
    if not any(member.sparse for member in files):
        assert tar(path, "-xO") == b"".join(content(data, member) for member in files)


@pytest.fixture(name="path", scope="module")
def archive_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where an archive may be written."""
    need("tar")
    if b"GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True, check=True).stdout:
        pytest.skip("tar is not GNU tar")
    return tmp_path_factory.mktemp("fuzz") / "x.tar"


@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=150, derandomize=True, suppress_health_check=[*HealthCheck], deadline=None)
def test_honest_archives_are_read_as_gnu_tar_reads_them(path: Path, rng: random.Random) -> None:
    check(archive(rng, HONEST), path)


def test_the_corpus_is_read_as_gnu_tar_reads_it(path: Path) -> None:
    for seed in range(250):
        check(archive(random.Random(seed), HONEST), path)
