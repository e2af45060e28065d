"""One header block, and PAX records."""

import pytest

from fusefs.tar.header import (
    BLOCK,
    BrokenHeader,
    Header,
    Kind,
    is_header,
    is_zero,
    number,
    parse_header,
    pax_records,
    pax_size,
    stored_name,
)
from tests.support.builders import header, pax_record, resealed

PLAIN = Header(
    kind=Kind.REGULAR,
    name=b"etc/motd",
    link=b"",
    size=6,
    legacy_type=False,
    gnu_sparse=False,
    extended_sparse=False,
)


def test_a_ustar_header_is_read() -> None:
    assert parse_header(header("etc/motd", 6)) == PLAIN


@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", bytes(8)], ids=["ustar", "gnu", "v7"])
def test_each_format_says_name_and_size_in_the_same_place(magic: bytes) -> None:
    assert parse_header(header("etc/motd", 6, magic=magic)) == PLAIN


def test_a_name_that_fills_its_field_has_no_nul_at_its_end() -> None:
    assert parse_header(header("n" * 100)).name == b"n" * 100


def test_a_link_that_fills_its_field_has_no_nul_at_its_end() -> None:
    assert parse_header(header("a", 0, b"2", "t" * 100)).link == b"t" * 100


def test_a_ustar_prefix_comes_before_the_name() -> None:
    assert parse_header(header("motd", prefix=b"p" * 155)).name == b"p" * 155 + b"/motd"


def test_a_gnu_header_has_no_prefix_but_times_in_its_place() -> None:
    assert parse_header(header("motd", magic=b"ustar  \0", prefix=b"14000000000")).name == b"motd"


@pytest.mark.parametrize(
    ("field", "name"),
    {
        "a path": (b"usr/lib", b"usr/lib/motd"),
        "155 bytes": (b"p" * 155, b"p" * 155 + b"/motd"),
        "an octal atime": (b"14000000000", b"motd"),
        "an atime in spaces": (b" 1400 \0", b"motd"),
        "an atime in base 256": (b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7, b"motd"),
        "a negative atime in base 256": (b"\xff" * 12, b"motd"),
        "an octal directory with ctime after it": (b"1400".ljust(12, b"\0") + b"14000000000\0", b"motd"),
        "an octal directory of 12 digits": (b"777777777777", b"motd"),
        "digits and then a path": (b"14000000000/8", b"14000000000/8/motd"),
        "an atime and a ctime that is no number": (b"1400".ljust(12, b"\0") + b"x", b"1400/motd"),
        "no atime and a ctime that is no number": (bytes(12) + b"x", b"motd"),
        "an atime, and a ctime of 64 bits": (
            b"1400".ljust(12, b"\0") + b"\x80" + b"\0" * 3 + b"\xff" * 8,
            b"1400/motd",
        ),
        "a negative ctime of more than 63 bits": (b"1400".ljust(12, b"\0") + b"\xff" * 4 + b"\x7f" * 8, b"1400/motd"),
        "the digit 8": (b"8", b"8/motd"),
        "a sign": (b"-1", b"-1/motd"),
        "a path that is no ASCII": ("usr/lib/é".encode(), b"motd"),
        "a path, NUL, bytes that are no ASCII": (b"usr\0\xff", b"usr/motd"),
        "a space": (b" ", b"motd"),
    }.values(),
)
def test_a_gnu_header_has_a_prefix_only_where_go_finds_one(field: bytes, name: bytes) -> None:
    block = header("motd", magic=b"ustar  \0", prefix=field)
    assert stored_name(block) == name
    assert parse_header(block).name == name


def test_a_gnu_magic_with_another_version_is_v7_and_has_no_prefix() -> None:
    assert parse_header(header("motd", magic=b"ustar 00", prefix=b"usr/lib")).name == b"motd"


def test_a_v7_header_has_no_prefix() -> None:
    assert parse_header(header("motd", magic=bytes(8), prefix=b"rubbish")).name == b"motd"


def test_a_star_header_has_a_prefix_of_131_bytes_with_times_behind_it() -> None:
    block = resealed(header("motd", prefix=b"etc".ljust(131, b"\0") + b"14000000000\0"), 508, b"tar\0")
    assert parse_header(block).name == b"etc/motd"


@pytest.mark.parametrize(
    ("typeflag", "kind"),
    [
        (b"\0", Kind.REGULAR),
        (b"0", Kind.REGULAR),
        (b"1", Kind.HARD_LINK),
        (b"2", Kind.SYMLINK),
        (b"3", Kind.CHARACTER_DEVICE),
        (b"4", Kind.BLOCK_DEVICE),
        (b"5", Kind.DIRECTORY),
        (b"6", Kind.FIFO),
        (b"7", Kind.REGULAR),
        (b"S", Kind.REGULAR),
        (b"x", Kind.PAX),
        (b"g", Kind.PAX_GLOBAL),
        (b"L", Kind.GNU_LONG_NAME),
        (b"K", Kind.GNU_LONG_LINK),
        (b"V", Kind.OTHER),
        (b"\xff", Kind.OTHER),
    ],
)
def test_the_typeflag_says_the_kind(typeflag: bytes, kind: Kind) -> None:
    assert parse_header(header("a", 0, typeflag)).kind is kind


def test_only_typeflag_nul_is_the_legacy_type() -> None:
    assert [parse_header(header("a/", 0, typeflag)).legacy_type for typeflag in (b"\0", b"0")] == [True, False]


def test_a_gnu_sparse_header_says_whether_its_map_goes_on() -> None:
    ends = header("a", 0, b"S", magic=b"ustar  \0")
    goes_on = resealed(ends, 482, b"\1")
    found = [(parsed.gnu_sparse, parsed.extended_sparse) for parsed in map(parse_header, (ends, goes_on))]
    assert found == [(True, False), (True, True)]


def test_a_byte_at_the_place_of_the_sparse_map_means_nothing_in_other_headers() -> None:
    parsed = parse_header(resealed(header("a"), 482, b"\1"))
    assert (parsed.gnu_sparse, parsed.extended_sparse) == (False, False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"00000000644\0", 0o644),
        (b"        644\0", 0o644),
        (b"644        \0", 0o644),
        (b"644\0garbage\0", 0o644),
        (b"777777777777", 8**12 - 1),
        (bytes(12), 0),
        (b" " * 12, 0),
        (b"\x80" + bytes(10) + b"\x07", 7),
        (b"\x80" + bytes(6) + b"\x02" + bytes(4), 8 << 30),
        (b"\xff" * 12, -1),
        (b"\xff" * 11 + b"\x00", -256),
        (b"\xbf" + b"\xff" * 11, (1 << 94) - 1),
    ],
)
def test_a_number_is_octal_or_base_256(field: bytes, value: int) -> None:
    # In base-256 the first bit is a marker that does not count, the next one is the sign.
    assert number(field, "size") == value


@pytest.mark.parametrize(
    "field", [b"00000000648\0", b"-0000000644\0", b"0x000000644\0", b"64 4       \0", b"6_4        \0"]
)
def test_what_is_no_octal_number_is_refused(field: bytes) -> None:
    with pytest.raises(BrokenHeader) as caught:
        number(field, "size")
    assert str(caught.value) == f"the size field is no octal number: {field!r}"


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(BrokenHeader, match=r"^negative size -5$"):
        parse_header(header("a", -5))


def test_a_wrong_checksum_is_refused() -> None:
    with pytest.raises(BrokenHeader, match=r"^the checksum does not match$"):
        parse_header(header("a", checksum=b"000000\0 "))


@pytest.mark.parametrize("position", [0, 99, 124, 156, 257, 345, 511])
def test_the_checksum_covers_every_field(position: int) -> None:
    block = bytearray(header("a", 5))
    block[position] ^= 1
    assert not is_header(bytes(block))


def test_a_checksum_over_signed_characters_is_right_too() -> None:
    block = header("é".encode() * 20)
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 8 * 32
    assert signed != sum(block[:148] + block[156:]) + 8 * 32
    assert parse_header(header("é".encode() * 20, checksum=b"%06o\0 " % signed)).name == b"\xc3\xa9" * 20


@pytest.mark.parametrize("checksum", [b"%6o\0 ", b"%06o \0", b"%07o\0", b"%08o"])
def test_a_checksum_may_be_written_in_many_ways(checksum: bytes) -> None:
    block = header("a")
    assert is_header(header("a", checksum=checksum % (sum(block[:148] + block[156:]) + 8 * 32)))


def test_zeros_and_less_than_a_block_are_no_header() -> None:
    assert [is_header(block) for block in (b"", bytes(BLOCK), header("a")[:-1], header("a"))] == [
        False,
        False,
        False,
        True,
    ]


def test_only_zero_bytes_are_zero() -> None:
    assert [is_zero(block) for block in (b"", bytes(7), bytes(BLOCK), bytes(BLOCK - 1) + b"\1", b"\1")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_pax_records_may_hold_newlines_and_equals_signs() -> None:
    values = {b"path": b"a=b\nc", b"mtime": b"1.5", b"SCHILY.xattr.user.x": b"\0\xff"}
    assert pax_records(b"".join(pax_record(key.decode(), value) for key, value in values.items())) == values


def test_the_length_of_a_pax_record_counts_itself_where_a_digit_is_added() -> None:
    # 99 bytes would be 100 with the third digit that 100 needs, and the other way round.
    for length in range(85, 100):
        assert pax_records(pax_record("comment", b"x" * length)) == {b"comment": b"x" * length}


def test_the_last_of_two_records_counts_and_an_empty_one_takes_back() -> None:
    records = [("path", "a"), ("path", "b"), ("size", "5"), ("size", "")]
    assert pax_records(b"".join(pax_record(*record) for record in records)) == {b"path": b"b"}


def test_no_records_are_no_error() -> None:
    assert pax_records(b"") == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"path=a\n", "PAX record 1 has no length"),
        (b" 9 path=a\n", "PAX record 1 has no length"),
        (b"-9 path=a\n", "PAX record 1 has no length"),
        (b"+9 path=a\n", "PAX record 1 has no length"),
        (b"99999999999 path=a\n", "PAX record 1 has no length"),
        (b"11 path=a\n", "PAX record 1 has a wrong length 11"),
        (b"8 path=a\n", "PAX record 1 has a wrong length 8"),
        (b"0 path=a\n", "PAX record 1 has a wrong length 0"),
        (b"2 path=a\n", "PAX record 1 has a wrong length 2"),
        (b"9999999999 path=a\n", "PAX record 1 has a wrong length 9999999999"),
        (b"3 \n", "PAX record 1 has no keyword"),
        (b"8 patha\n", "PAX record 1 has no keyword"),
        (b"5 =a\n", "PAX record 1 has no keyword"),
        (pax_record("mtime", "1") + bytes(20), "PAX record 2 has no length"),
    ],
)
def test_broken_pax_records_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(BrokenHeader) as caught:
        pax_records(data)
    assert str(caught.value) == message


def test_a_pax_size_is_decimal() -> None:
    assert pax_size(b"0010737418240") == 10 << 30


@pytest.mark.parametrize("value", [b"-1", b"+1", b"1.5", b" 1", b"0x1", b"1_0", b"\xd9\xa1", b"9" * 20])
def test_another_pax_size_is_refused(value: bytes) -> None:
    with pytest.raises(BrokenHeader) as caught:
        pax_size(value)
    assert str(caught.value) == f"the PAX record size is no number: {value!r}"
