"""What a member says of its file."""

import stat

import pytest

from fusefs.tar.attributes import FileAttributes, file_attributes, listable_xattrs, sparse_runs
from fusefs.tar.header import BrokenHeader
from fusefs.tar.members import Member, scan
from tests.support.builders import END, Memory, resealed
from tests.support.changesets import (
    About,
    Runs,
    device,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    member,
    pax_sparse,
    symlink,
)

RUNS: Runs = [(0, b"start"), (1000, b"middle"), (4096, b"e" * 600)]
NOBODY = 65534
VERSIONS = ["0.0", "0.1", "1.0"]


def the_member(data: bytes) -> Member:
    """Return the only member of an archive."""
    (found,) = scan(Memory(data + END))
    return found


def attributes(data: bytes) -> FileAttributes:
    """Return the attributes of the only member."""
    return file_attributes(the_member(data))


def runs_of(data: bytes) -> tuple[int, list[tuple[int, bytes]]]:
    """Return a sparse file's size and what is stored of it: offset and bytes."""
    memory = Memory(data + END)
    (found,) = scan(memory)
    assert found.sparse
    size, runs = sparse_runs(found, memory.read_at)
    return size, [(offset, memory.read_at(at, length)) for offset, at, length in runs]


def test_every_field_of_a_header_is_there() -> None:
    about = About(0o4755, 1000, 100, 1700000000_000000000)
    assert attributes(file("x", b"data", about)) == FileAttributes(
        mode=stat.S_IFREG | 0o4755, uid=1000, gid=100, mtime=1700000000, mtime_ns=0, major=0, minor=0, xattrs=()
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (file("x"), stat.S_IFREG),
        (folder("x"), stat.S_IFDIR),
        (symlink("x", "y"), stat.S_IFLNK),
        (fifo("x"), stat.S_IFIFO),
        (device("x", "c", 1, 3), stat.S_IFCHR),
        (device("x", "b", 8, 1), stat.S_IFBLK),
        (member("x", b"7"), stat.S_IFREG),
    ],
)
def test_every_kind_has_its_type(data: bytes, kind: int) -> None:
    assert stat.S_IFMT(attributes(data).mode) == kind


@pytest.mark.parametrize("mode", [0, 0o7777, 0o1777, 0o2755, 0o4711])
def test_permission_bits_are_kept_with_setuid_setgid_and_sticky(mode: int) -> None:
    assert attributes(folder("x", About(mode))).mode == stat.S_IFDIR | mode


def test_type_bits_in_the_mode_field_do_not_count() -> None:
    assert attributes(file("x", b"", About(0o120644))).mode == stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        (0, 0),
        ((1 << 21) - 1, (1 << 21) - 1),
        (1 << 21, 1 << 21),
        ((1 << 31) + 5, (1 << 31) + 5),
        ((1 << 32) - 2, (1 << 32) - 2),
        ((1 << 32) - 1, NOBODY),
        (1 << 32, NOBODY),
        (1 << 60, NOBODY),
        (-1, NOBODY),
    ],
)
def test_an_owner_that_the_kernel_does_not_take_is_nobody(stated: int, shown: int) -> None:
    record = b"%d" % stated
    in_records = attributes(file("x", b"", About(records={b"uid": record, b"gid": record})))
    in_fields = attributes(file("x", b"", About(uid=stated, gid=stated)))
    assert [(found.uid, found.gid) for found in (in_records, in_fields)] == [(shown, shown)] * 2


def test_a_record_goes_before_the_field() -> None:
    found = attributes(file("x", b"", About(uid=1, gid=2, mtime_ns=3, records={b"uid": b"4", b"gid": b"5"})))
    assert (found.uid, found.gid, found.mtime, found.mtime_ns) == (4, 5, 0, 3)


@pytest.mark.parametrize(
    ("record", "mtime", "nanoseconds"),
    [
        (b"0", 0, 0),
        (b"1", 1, 0),
        (b"1.", 1, 0),
        (b"1.5", 1, 500000000),
        (b"1.000000001", 1, 1),
        (b"1.9999999999999", 1, 999999999),
        (b"-1", -1, 0),
        (b"-0.5", -1, 500000000),
        (b"-1.25", -2, 750000000),
        (b"-1.000000001", -2, 999999999),
        (b"9223372036854775807", (1 << 62) - 1, 0),
        (b"-9223372036854775807", 1 - (1 << 62), 0),
        (b"99999999999999999999", (1 << 62) - 1, 0),
    ],
)
def test_a_time_has_nanoseconds_and_may_be_negative_or_huge(record: bytes, mtime: int, nanoseconds: int) -> None:
    found = attributes(file("x", b"", About(records={b"mtime": record})))
    assert (found.mtime, found.mtime_ns) == (mtime, nanoseconds)


@pytest.mark.parametrize("seconds", [0, 1, 8**11 - 1, 8**11, 1 << 40, -1, -(1 << 40)])
def test_a_time_in_the_header_may_be_negative_or_beyond_octal(seconds: int) -> None:
    found = attributes(file("x", b"", About(mtime_ns=seconds * 10**9)))
    assert (found.mtime, found.mtime_ns) == (seconds, 0)


@pytest.mark.parametrize("record", [b"x", b"1.x", b"--1", b"1e3", b"0x1", b"1 ", b"9" * 21, b"1.-5", b"\xb2"])
def test_a_record_that_is_no_time_is_refused(record: bytes) -> None:
    with pytest.raises(BrokenHeader, match=r"^the PAX record mtime is no time: b"):
        attributes(file("x", b"", About(records={b"mtime": record})))


@pytest.mark.parametrize("kind", ["c", "b"])
@pytest.mark.parametrize(("major", "minor"), [(0, 0), (1, 3), (4095, 1048575)])
def test_a_device_number_has_12_and_20_bits(kind: str, major: int, minor: int) -> None:
    found = attributes(device("x", kind, major, minor))
    assert (found.major, found.minor) == (major, minor)


@pytest.mark.parametrize(("major", "minor"), [(4096, 0), (0, 1048576), (1 << 40, 0), (0, 1 << 40), (-1, 0), (0, -1)])
def test_a_device_number_of_more_bits_is_refused(major: int, minor: int) -> None:
    with pytest.raises(BrokenHeader, match=rf"^device number {major}:{minor} has more than 12 and 20 bits$"):
        attributes(device("x", "c", major, minor))


def test_a_file_that_is_no_device_has_no_device_number_whatever_the_fields_say() -> None:
    for data in (file("x"), fifo("x"), folder("x"), symlink("x", "y"), hard_link("x", "y")):
        found = attributes(resealed(data, 329, b"9999999\0garbage\0"))
        assert (found.major, found.minor) == (0, 0)


def test_a_mode_that_is_no_number_is_refused() -> None:
    with pytest.raises(BrokenHeader, match=r"^the mode field is no octal number"):
        attributes(resealed(file("x"), 100, b"rwxr-xr\0"))


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
XATTRS = {b"user.name": b"value", b"security.capability": CAPABILITY, b"user.a=b?": b"\xff\n=", b"user.%41": b"x"}


def test_extended_attributes_of_star_are_bytes() -> None:
    xattrs = {key: value for key, value in XATTRS.items() if b"=" not in key}
    assert dict(attributes(file("x", b"", About(xattrs=xattrs))).xattrs) == xattrs


def test_extended_attributes_of_libarchive_alone_are_none_as_for_all_engines() -> None:
    assert attributes(file("x", b"", About(libarchive={b"user.x": b"1"}))).xattrs == ()
    both = About(xattrs={b"user.x": b"star"}, libarchive={b"user.x": b"libarchive", b"user.y": b"1"})
    assert attributes(file("x", b"", both)).xattrs == ((b"user.x", b"star"),)


def test_an_extended_attribute_that_is_none_is_left_out() -> None:
    records = {
        b"SCHILY.xattr.": b"nameless",
        b"SCHILY.acl.access": b"user::rwx",
        b"SCHILY.xattr.user.good": b"1",
    }
    assert attributes(file("x", b"", About(records=records))).xattrs == ((b"user.good", b"1"),)


def test_an_empty_value_takes_an_extended_attribute_back_as_in_archive_tar() -> None:
    assert attributes(file("x", b"", About(xattrs={b"user.x": b""}))).xattrs == ()


@pytest.mark.parametrize(
    ("xattrs", "too_much"),
    [
        ({b"user.x": bytes(65536)}, False),
        ({b"user.x": bytes(65537)}, True),
        ({b"user." + b"x" * 250: b"1"}, False),
        ({b"user." + b"x" * 251: b"1"}, True),
        ({b"user.%0249d" % number: b"1" for number in range(257)}, False),  # 257 x 255 = 65535
        ({b"user.%0249d" % number: b"1" for number in range(257)} | {b"y": b"1"}, True),
    ],
    ids=["a value of 64 KiB", "one more", "a name of 255", "one more", "a list of 64 KiB", "more"],
)
def test_extended_attributes_beyond_64_kib_are_not_listable(xattrs: dict[bytes, bytes], too_much: bool) -> None:  # noqa: FBT001
    kept = listable_xattrs(xattrs.items())
    assert kept == tuple(xattrs.items())[: len(xattrs) - too_much]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sparse_file_of_pax_has_its_name_size_and_runs(version: str) -> None:
    data = pax_sparse(version, "dir/name", 10000, RUNS)
    assert the_member(data).name == b"dir/name"
    assert runs_of(data) == (10000, RUNS)


def test_a_sparse_file_of_gnu_has_its_name_size_and_runs() -> None:
    data = gnu_sparse("dir/name", 10000, RUNS)
    assert the_member(data).name == b"dir/name"
    assert runs_of(data) == (10000, RUNS)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 25, 26, 46, 47, 1000])
def test_a_sparse_map_may_be_of_any_length(count: int) -> None:
    runs = [(10 * number, b"%5d" % number) for number in range(count)]
    found = [runs_of(gnu_sparse("x", 20000, runs))]
    found += [runs_of(pax_sparse(version, "x", 20000, runs)) for version in VERSIONS if count or version == "1.0"]
    assert found == [(20000, runs)] * len(found)


def test_an_empty_run_that_marks_the_end_is_no_run() -> None:
    runs = [(0, b"data"), (10000, b"")]
    found = [runs_of(gnu_sparse("x", 10000, runs)), *(runs_of(pax_sparse(v, "x", 10000, runs)) for v in VERSIONS)]
    assert found == [(10000, [(0, b"data")])] * 4


LIES = {
    "runs that overlap": [(0, 5), (4, 6)],
    "runs that go backwards": [(100, 5), (0, 6)],
    "a run beyond the end": [(0, 5), (9998, 6)],
    "a run that begins beyond the end": [(20000, 1)],
    "more bytes than are stored": [(0, 1 << 20)],
    "a run beyond all offsets": [((1 << 63) - 1, 1 << 62)],
}


@pytest.mark.parametrize("pairs", LIES.values(), ids=LIES.keys())
@pytest.mark.parametrize("version", ["gnu", *VERSIONS])
def test_a_sparse_map_that_lies_is_refused(version: str, pairs: list[tuple[int, int]]) -> None:
    runs = [(0, b"start"), (1000, b"middle")]
    if version == "gnu":
        data = gnu_sparse("x", 10000, runs, pairs=pairs)
    else:
        data = pax_sparse(version, "x", 10000, runs, pairs=pairs)
    with pytest.raises(BrokenHeader, match=r"^the sparse map is wrong: \d+ bytes at \d+ of 10000$"):
        runs_of(data)


@pytest.mark.parametrize("pairs", [[(-5, 5)], [(0, -5)]])
def test_a_gnu_sparse_map_with_negative_numbers_is_refused(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(BrokenHeader, match=r"^the sparse map is wrong: -?5 bytes at -?\d+ of 10$"):
        runs_of(gnu_sparse("x", 10, [(0, b"start")], pairs=pairs))


@pytest.mark.parametrize("size", [-1, 1 << 63, 1 << 64, 1 << 70])
def test_a_gnu_sparse_file_of_a_size_that_no_file_has_is_refused(size: int) -> None:
    with pytest.raises(BrokenHeader):
        runs_of(gnu_sparse("x", size, []))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sparse_file_of_pax_larger_than_any_file_is_refused(version: str) -> None:
    with pytest.raises(BrokenHeader):
        runs_of(pax_sparse(version, "x", 1 << 63, [(0, b"x")]))


@pytest.mark.parametrize(
    "text", [b"", b"1", b"1\n0\n", b"x\n", b"-1\n", b"1\n0\n5 \n", b"9999999999\n" + b"0\n1\n" * 20, b"1\n" + b"1" * 30]
)
def test_a_sparse_map_in_the_data_that_is_cut_off_or_no_numbers_is_refused(text: bytes) -> None:
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"100"}
    with pytest.raises(BrokenHeader, match=r"^(the sparse map is cut off|map is no number)"):
        runs_of(file("x", text, About(records=records)))


@pytest.mark.parametrize("text", [b"0", b"0,1,2", b"0,x", b"0,-1", b"0;1"])
def test_a_sparse_map_in_a_record_that_is_no_pairs_of_numbers_is_refused(text: bytes) -> None:
    records = {b"GNU.sparse.size": b"100", b"GNU.sparse.map": text}
    with pytest.raises(BrokenHeader, match=r"^(the sparse map has an odd number of entries|map is no number)"):
        runs_of(file("x", b"12345", About(records=records)))


def test_a_sparse_map_of_more_than_a_mebibyte_is_refused_in_every_format() -> None:
    """As archive/tar does (CVE-2025-58183): a map costs far more memory than bytes."""
    runs = [(2 * number, b"x") for number in range(150_000)]
    for data in (gnu_sparse("x", 1 << 20, runs), pax_sparse("1.0", "x", 1 << 20, runs)):
        with pytest.raises(BrokenHeader):
            runs_of(data)


@pytest.mark.parametrize(
    "records",
    [
        {b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0"},
        {b"GNU.sparse.realsize": b"100"},
        {b"GNU.sparse.size": b"100"},
    ],
)
def test_sparse_records_of_no_known_version_mean_nothing_as_in_archive_tar(records: dict[bytes, bytes]) -> None:
    memory = Memory(file("x", b"12345", About(records=records)) + END)
    (found,) = scan(memory)
    assert not found.sparse or sparse_runs(found, memory.read_at) == (5, [(0, found.offset, 5)])
