"""The scan of a whole archive, and its index."""

from pathlib import Path

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.protocol import Bytes
from fusefs.errors import InvalidImage
from fusefs.tar.header import Kind
from fusefs.tar.members import ByteSource, Member, MemberTable, member_at, scan
from tests.conftest import TakeWarnings
from tests.support.builders import (
    BLOCK,
    END,
    Memory,
    archive_of,
    directory,
    extended,
    fifo,
    hard_link,
    header,
    member,
    padded,
    pax,
    resealed,
    symlink,
    write_sparse,
)
from tests.support.conformance import open_file

GIB = 1 << 30
UNMARKED = "x.tar: the end of the archive is not marked; all its members are complete"
ONE_BLOCK = "x.tar: the end of the archive is marked with one zero block only"


def members(data: bytes) -> list[Member]:
    """Return the members of an archive in memory."""
    return list(map(bare, scan(Memory(data))))


def bare(found: Member) -> Member:
    """Return a member without the header that it came from."""
    return found._replace(block=b"", block_offset=0, pax={})


def index(data: bytes) -> MemberTable:
    """Return the index of an archive in memory."""
    return MemberTable.of("x.tar", scan(Memory(data)))


def refusal(data: bytes) -> str:
    """Return the message with which an archive is refused."""
    with pytest.raises(InvalidImage) as caught:
        index(data)
    return str(caught.value)


def regular(name: bytes, offset: int, size: int, start: int | None = None, *, sparse: bool = False) -> Member:
    """Return a regular file's member, whose header is the block before its data if not said otherwise."""
    return Member(name, Kind.REGULAR, b"", offset - BLOCK if start is None else start, offset, size, sparse)


class Counted:
    """A file that counts how much of it is read."""

    def __init__(self, file: OpenFile) -> None:
        self.name = file.name
        self.bytes_read = 0
        self._file = file

    def read_at(self, offset: int, size: int) -> Bytes:
        data = self._file.read_at(offset, size)
        self.bytes_read += len(data)
        return data

    def length(self) -> int:
        return self._file.length()


def test_members_come_in_order_with_their_places() -> None:
    data = archive_of(directory("a/"), member("a/b", b"hello"), member("empty"), symlink("l", "a/b"), fifo("p"))
    assert members(data) == [
        Member(b"a/", Kind.DIRECTORY, b"", 0, 512, 0, sparse=False),
        regular(b"a/b", 1024, 5),
        regular(b"empty", 2048, 0),
        Member(b"l", Kind.SYMLINK, b"a/b", 2048, 2560, 0, sparse=False),
        Member(b"p", Kind.FIFO, b"", 2560, 3072, 0, sparse=False),
    ]


def test_only_headers_are_read() -> None:
    source = Memory(archive_of(member("a", bytes(10 << 20)), member("b", bytes(10 << 20))))
    assert len(list(scan(source))) == 2
    assert source.bytes_read == 4 * BLOCK


def test_padding_belongs_to_no_member() -> None:
    sizes = (0, 1, 511, 512, 513, 1024)
    found = members(archive_of(*(member(f"{size}", b"x" * size) for size in sizes)))
    assert [(found.name, found.size) for found in found] == [(b"%d" % size, size) for size in sizes]


@pytest.mark.parametrize("typeflag", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_no_data_follows_these_kinds_whatever_their_size_says(typeflag: bytes) -> None:
    found = members(archive_of(header("odd", 5000, typeflag, "x"), member("next", b"hello")))
    assert [(found.name, found.size) for found in found] == [(b"odd", 0), (b"next", 5)]


def test_data_follows_an_unknown_kind() -> None:
    found = members(archive_of(member("odd", b"data", b"V"), member("next", b"hello")))
    assert [(found.name, found.kind) for found in found] == [(b"odd", Kind.OTHER), (b"next", Kind.REGULAR)]


def test_a_legacy_name_with_a_slash_at_its_end_is_a_directory() -> None:
    found = members(archive_of(header("d/", 700, b"\0"), member("next")))
    assert [(found.name, found.kind, found.size) for found in found] == [
        (b"d/", Kind.DIRECTORY, 0),
        (b"next", Kind.REGULAR, 0),
    ]


def test_gnu_long_names_and_links_replace_the_short_ones() -> None:
    name, link = b"n" * 3000, b"l" * 2000
    assert members(archive_of(member(name, b"", b"2", link), member("next"))) == [
        Member(name, Kind.SYMLINK, link, 0, 512 * 13, 0, sparse=False),
        regular(b"next", 512 * 14, 0),
    ]


def test_pax_records_replace_name_link_and_size() -> None:
    long = pax({"path": "p" * 300, "linkpath": "l" * 300, "size": "600"})
    data = archive_of(long, header("short", 0), padded(bytes(600)), member("next"))
    assert members(data) == [
        Member(b"p" * 300, Kind.REGULAR, b"l" * 300, 0, len(long) + 512, 600, sparse=False),
        regular(b"next", len(long) + 512 * 4, 0),
    ]


def test_a_gnu_long_name_wins_over_a_pax_path_in_either_order() -> None:
    # As in Go's archive/tar, which applies it last.
    parts = (pax({"path": "pax"}), extended(b"L", b"gnu\0"))
    assert [members(archive_of(*order, header("short")))[0].name for order in (parts, parts[::-1])] == [b"gnu", b"gnu"]


def test_the_second_of_two_pax_headers_replaces_the_first() -> None:
    data = archive_of(pax({"path": "one", "size": "9"}), pax({"linkpath": "two"}), header("short"))
    assert [(found.name, found.link, found.size) for found in members(data)] == [(b"short", b"two", 0)]


def test_a_pax_header_says_nothing_of_the_member_after_the_next() -> None:
    found = members(archive_of(pax({"path": "long"}), header("a"), header("b")))
    assert [member.name for member in found] == [b"long", b"b"]


def test_a_global_pax_header_is_a_member_that_changes_none() -> None:
    data = archive_of(pax({"path": "all", "size": "5"}, b"g"), member("a", b"x"))
    assert [(found.kind, found.name) for found in members(data)] == [
        (Kind.PAX_GLOBAL, b"././@LongLink"),
        (Kind.REGULAR, b"a"),
    ]
    assert list(index(data).members) == [b"a"]


def test_records_before_a_global_pax_header_do_not_change_where_it_ends() -> None:
    # archive/tar returns a global header as it is: records meant for a member do not move its end.
    data = archive_of(pax({"size": "0"}), pax({"comment": "x"}, b"g"), member("a", b"x"))
    assert [found.name for found in members(data)] == [b"././@LongLink", b"a"]


def test_the_map_of_a_gnu_sparse_file_is_no_data() -> None:
    block = resealed(header("sparse", 1000, b"S", magic=b"ustar  \0"), 482, b"\1")
    goes_on, ends = bytes(504) + b"\1" + bytes(7), bytes(BLOCK)
    data = archive_of(block, goes_on, ends, padded(b"x" * 1000), member("next"))
    assert members(data) == [regular(b"sparse", 3 * BLOCK, 1000, 0, sparse=True), regular(b"next", 6 * BLOCK, 0)]


def test_a_pax_sparse_file_has_its_own_name_and_is_marked() -> None:
    data = archive_of(pax({"GNU.sparse.major": "1", "GNU.sparse.name": "real"}), member("GNUSparseFile.0/real", b"x"))
    assert [(found.name, found.sparse) for found in members(data)] == [(b"real", True)]


@pytest.mark.parametrize("say_size", [header("big", 9 * GIB), pax({"size": str(9 * GIB)}) + header("big", 0)])
def test_a_size_over_8_gib_is_read_without_reading_the_data(tmp_path: Path, say_size: bytes) -> None:
    path = write_sparse(tmp_path / "x.tar", say_size, 9 * GIB, member("after", b"hello"), END)
    with open_file(path) as file:
        source: ByteSource = Counted(file)
        found = list(map(bare, scan(source)))
        assert source.bytes_read < 10 * BLOCK  # type: ignore[attr-defined]
    big = len(say_size)
    assert found == [regular(b"big", big, 9 * GIB, 0), regular(b"after", big + 9 * GIB + BLOCK, 5)]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("a/b", b"a/b"), ("./a/b", b"a/b"), ("/a/b", b"a/b"), ("a//b/", b"a/b"), ("././a/./b/.", b"a/b"), ("./", b"")],
)
def test_names_are_normalised(spelling: str, name: bytes) -> None:
    assert list(index(archive_of(member(spelling))).members) == [name]


def test_the_last_of_several_members_with_one_name_wins() -> None:
    found = index(archive_of(member("a", b"first"), member("b"), member("./a", b"last!!")))
    assert {name: member.size for name, member in found.members.items()} == {b"a": 6, b"b": 0}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("..", b""),
        ("/..", b""),
        ("a/..", b""),
        ("../x", b"x"),
        ("/../../x", b"x"),
        ("a/../b", b"b"),
        ("a/b/../../../c", b"c"),
        ("a/./..//b/", b"b"),
        ("a/..b", b"a/..b"),
    ],
)
def test_two_dots_in_a_name_are_resolved_inside_the_archive(name: str, path: bytes) -> None:
    found = index(archive_of(member("other", b"1"), member(name, b"22")))
    assert {name: member.size for name, member in found.members.items()} == {b"other": 1, path: 2}
    assert found.find(name.encode()) == found.follow(path) == found.members[path]


def test_a_member_is_read_again_from_the_offset_of_its_first_header() -> None:
    source = Memory(archive_of(member("a", b"1"), pax({"path": "long", "comment": "x"}), member("b", b"22")))
    (_, second) = scan(source)
    assert member_at(source, second.header) == second
    with pytest.raises(InvalidImage, match=r"^x\.tar: damaged: no tar header at offset 1: "):
        member_at(source, 1)
    with pytest.raises(InvalidImage, match=r"^x\.tar: damaged: no tar header at offset 3584$"):
        member_at(source, 3584)


def test_dots_within_a_component_are_a_name() -> None:
    assert list(index(archive_of(member("a..b/...", b""))).members) == [b"a..b/..."]


def test_names_are_found_in_any_spelling() -> None:
    found = index(archive_of(member("a/b", b"x")))
    assert found.find(b"/a//./b") is found.members[b"a/b"]
    assert found.find(b"a") is None


LINKS = archive_of(
    member("store/file", b"x"),
    symlink("a/relative", "../store/file"),
    symlink("a/b/from-root", "/store/file"),
    hard_link("a/b/hard", "store/file"),
    symlink("to-hard", "a/b/hard"),
    symlink("a/out", "../../x"),
    symlink("dangling", "nowhere"),
    symlink("itself", "itself"),
    symlink("one", "two"),
    hard_link("two", "one"),
)


@pytest.mark.parametrize(
    "name", [b"store/file", b"a/relative", b"a/b/from-root", b"a/b/hard", b"to-hard", b"./to-hard"]
)
def test_links_are_followed(name: bytes) -> None:
    assert index(LINKS).follow(name).name == b"store/file"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"nothing", "x.tar: nothing is missing"),
        (b"dangling", "x.tar: dangling is a dangling link: nowhere is missing"),
        (b"a/out", "x.tar: the link a/out leads out of the archive: ../../x"),
        (b"itself", "x.tar: itself is a link cycle, or more than 40 links"),
        (b"one", "x.tar: one is a link cycle, or more than 40 links"),
    ],
)
def test_a_link_that_leads_nowhere_is_refused(name: bytes, message: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        index(LINKS).follow(name)
    assert str(caught.value) == message


def test_40_links_are_followed_and_41_are_not() -> None:
    chain = index(archive_of(member("0", b"x"), *(symlink(f"{n}", f"{n - 1}") for n in range(1, 42))))
    assert chain.follow(b"40").name == b"0"
    with pytest.raises(InvalidImage, match=r"^x\.tar: 41 is a link cycle, or more than 40 links$"):
        chain.follow(b"41")


ONE = member("a", b"hello")


def test_anything_after_two_zero_blocks_is_no_part_of_the_archive(take_warnings: TakeWarnings) -> None:
    assert members(ONE + END + bytes(8192)) == members(ONE + END)
    assert take_warnings() == []
    assert members(ONE + END + member("b")) == members(ONE + END)
    assert take_warnings() == ["x.tar: ignored data after the end of the archive at offset 2048"]


@pytest.mark.parametrize("end", [b"", bytes(100)], ids=["nothing", "part of a zero block"])
def test_an_end_that_is_not_marked_is_a_warning(take_warnings: TakeWarnings, end: bytes) -> None:
    assert members(ONE + end) == [regular(b"a", 512, 5)]
    assert take_warnings() == [UNMARKED]


def test_the_last_member_may_lack_its_padding(take_warnings: TakeWarnings) -> None:
    assert members(ONE[: 512 + 5]) == [regular(b"a", 512, 5)]
    assert take_warnings() == [UNMARKED]


@pytest.mark.parametrize("end", [bytes(512), bytes(1000)])
def test_an_end_that_is_marked_with_one_zero_block_is_a_warning(take_warnings: TakeWarnings, end: bytes) -> None:
    assert members(ONE + end) == [regular(b"a", 512, 5)]
    assert take_warnings() == [ONE_BLOCK]


def test_a_lone_zero_block_before_a_header_is_a_warning(take_warnings: TakeWarnings) -> None:
    assert members(ONE + bytes(512) + member("b") + END) == [regular(b"a", 512, 5), regular(b"b", 2048, 0)]
    assert take_warnings() == ["x.tar: ignored a lone zero block at offset 1024"]


def test_a_lone_zero_block_before_garbage_is_an_error(take_warnings: TakeWarnings) -> None:
    garbage = ONE + bytes(512) + b"x" * 512
    assert refusal(garbage) == "x.tar: damaged: no tar header at offset 1536: the checksum does not match"
    assert take_warnings() == ["x.tar: ignored a lone zero block at offset 1024"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.tar: not a tar archive: the file is empty"),
        (b"x" * 5000, "x.tar: not a tar archive: the checksum does not match at offset 0"),
        (ONE + b"x" * 512, "x.tar: damaged: no tar header at offset 1024: the checksum does not match"),
        (ONE + b"x" * 100, "x.tar: damaged: no tar header at offset 1024: the file ends 100 bytes after it"),
        (ONE[:512], "x.tar: truncated in a at offset 512: 0 of 5 bytes are there"),
        (ONE[:515], "x.tar: truncated in a at offset 515: 3 of 5 bytes are there"),
        (
            ONE + header("b", 9 * GIB) + bytes(1000),
            f"x.tar: truncated in b at offset 2536: 1000 of {9 * GIB} bytes are there",
        ),
        (header("b", 1 << 90), f"x.tar: truncated in b at offset 512: 0 of {1 << 90} bytes are there"),
        (
            pax({"size": "9" * 19}) + header("b"),
            f"x.tar: truncated in b at offset 1536: 0 of {'9' * 19} bytes are there",
        ),
        (ONE + header("b", -1), "x.tar: damaged: no tar header at offset 1024: negative size -1"),
        (
            ONE + header("b", size_field=b"0000000000x\0"),
            "x.tar: damaged: no tar header at offset 1024: the size field is no octal number: b'0000000000x\\x00'",
        ),
        (
            ONE + pax({"size": "x"}) + header("b"),
            "x.tar: damaged: no tar header at offset 2048: the PAX record size is no number: b'x'",
        ),
        (
            ONE + extended(b"x", b"garbage"),
            "x.tar: damaged: no tar header at offset 1024: PAX record 1 has no length",
        ),
        (
            ONE + header("x", (1 << 20) + 1, b"L") + bytes(2 << 20),
            "x.tar: damaged: no tar header at offset 1024: the GNU long name has 1048577 bytes, more than 1048576",
        ),
        (
            ONE + header("x", 1000, b"K") + bytes(10),
            "x.tar: truncated in the GNU long link name at offset 1024: 10 of 1000 bytes are there",
        ),
        (
            ONE + extended(b"L", b"name\0") + END,
            "x.tar: damaged: the GNU long name at offset 1024 belongs to no member",
        ),
        (
            ONE + pax({"path": "a"}),
            "x.tar: damaged: the PAX extended header at offset 1024 belongs to no member",
        ),
    ],
)
def test_everything_else_is_an_error(data: bytes, message: str) -> None:
    assert refusal(data) == message


def test_a_sparse_map_that_is_cut_is_an_error() -> None:
    block = resealed(header("sparse", 0, b"S", magic=b"ustar  \0"), 482, b"\1")
    assert refusal(block + bytes(504) + b"\1" + bytes(7)) == "x.tar: truncated in the sparse map at offset 1024"


def test_names_that_hurt_a_terminal_are_shown_as_escapes() -> None:
    missing = b"\x1b[2J\xff\n"
    with pytest.raises(InvalidImage) as refused:
        index(END).follow(missing)
    assert str(refused.value) == "x.tar: \\x1b[2J\\xff\\n is missing"


def test_ten_thousand_extended_headers_in_a_row_end() -> None:
    source = Memory(extended(b"L", b"x\0") * 10000)
    with pytest.raises(InvalidImage, match=r"^x\.tar: damaged: the GNU long name at offset 0 belongs to no member$"):
        list(scan(source))
    assert source.reads == 2 * 10000 + 1


@pytest.mark.parametrize(("count", "length", "refused"), [(3, 1, False), (4, 1, True), (3, 8, False), (3, 9, True)])
def test_a_table_of_members_is_bounded(
    monkeypatch: pytest.MonkeyPatch, count: int, length: int, *, refused: bool
) -> None:
    monkeypatch.setattr("fusefs.tar.members.MAX_MEMBERS", 3)
    monkeypatch.setattr("fusefs.tar.members.MAX_NAMES", 24)
    archive = archive_of(*(member(f"{number}".rjust(length, "x"), b"") for number in range(count)))
    if refused:
        with pytest.raises(InvalidImage, match=r"^x\.tar: refused: more than 3 members or 24 bytes of names$"):
            index(archive)
    else:
        assert len(index(archive).members) == count
