"""Tables of contents, read entry by entry, however they are divided into pieces, and whatever they hold."""

import gzip
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.chunked import toc
from fusefs.chunked.frames import from_gzip, from_zstd, gzip_stream, zstd_stream
from fusefs.chunked.toc import Entry, JsonStream, Toc, Unusable
from tests.support.builders import compressed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@given(values=st.lists(VALUES, max_size=5), size=st.integers(1, 50), escaped=st.booleans())
def test_values_are_read_as_json_reads_them(values: list[object], size: int, escaped: bool) -> None:  # noqa: FBT001
    text = "\n".join(json.dumps(value, ensure_ascii=escaped) for value in values)
    stream = JsonStream(_pieces(text.encode("utf-8", "replace"), size), "a document")
    found = []
    while stream.next():
        found.append(stream.value())
    assert found == [json.loads(json.dumps(value, ensure_ascii=escaped).encode("utf-8", "replace")) for value in values]


@given(values=st.lists(VALUES, min_size=1, max_size=9), size=st.integers(1, 50), ahead=st.integers(1, 100))
def test_values_that_follow_are_read_alike_wherever_the_pieces_end(values: list[object], size: int, ahead: int) -> None:
    text = ",".join(map(json.dumps, values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toc, "_AHEAD", ahead)
        stream = JsonStream(_pieces(text.encode(), size), "a document")
        found = [stream.value(), *stream.following()]
        while stream.next():
            stream.take(",")
            found += [stream.value(), *stream.following()]
    assert found == values


@pytest.mark.parametrize(
    "text", ["sha256:" + "a" * 63, "sha256:" + "a" * 62 + "  ", "a" * 64 + " " * 7, "sha512:" + "a" * 64, "", 7]
)
def test_what_is_no_digest_is_refused(text: str | int) -> None:
    assert Entry({"digest": "sha256:" + "ab" * 32}, "it").sha256() == b"\xab" * 32
    with pytest.raises(Unusable, match=r"^it has a "):
        Entry({"digest": text}, "it").sha256()


@pytest.mark.parametrize("entries", ["[]", "null", " null "])
def test_a_table_may_list_nothing(entries: str) -> None:
    toc = Toc([f'{{"version":1,"entries":{entries},"x":2}}'.encode()], "the table")
    assert (list(toc.entries()), toc.fields["version"]) == ([], 1)


@pytest.mark.parametrize(
    "text",
    [
        *(
            '{"entries":nul}',
            '{"entries":1}',
            "",
            "{",
            "[]",
            '{"entries":[}',
            '{"entries":[{}',
            '{"entries":[{},]}',
            '{"entries":[]}x',
            '{"version":1}',
        ),
        *('{"entries":[],"entries":[]}', '{"entries":[{"size":NaN}]}', '{"a":' + "9" * 5000 + "}", '{"a":1,"a":1}'),
    ],
)
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(Unusable, match="the table is not the JSON that is expected"):
        list(Toc([text.encode()], "the table").entries())


def test_a_table_of_deep_nesting_or_one_endless_entry_is_refused() -> None:
    with pytest.raises(Unusable, match="the table is nested too deeply"):
        list(Toc([b'{"entries":[' + b"[" * 100_000], "the table").entries())

    def endless() -> Iterator[bytes]:
        yield b'{"entries":[{"name":"'
        while True:
            yield b"x" * 65536

    with pytest.raises(Unusable, match="the table is not the JSON"):
        list(Toc(endless(), "the table").entries())


def test_a_stream_of_another_length_or_a_damaged_one_is_refused() -> None:
    data = memoryview(compressed(b"x" * 1_000_000, "zstd"))
    assert b"".join(zstd_stream(data, 1_000_000, "it")) == b"x" * 1_000_000
    for stream, limit in ((data, 999_999), (data, 1_000_001), (data[:-1], 1_000_000), (memoryview(b"nothing"), 7)):
        with pytest.raises(Unusable, match=r"^it "):
            list(zstd_stream(stream, limit, "it"))
    member = gzip.compress(b"x" * 1_000_000)
    assert b"".join(gzip_stream([member[:10], member[10:]], 1_000_000, "it")) == b"x" * 1_000_000
    for part, limit in ((member, 999_999), (member[:-9], 1_000_000), (b"nothing", 7)):
        with pytest.raises(Unusable, match=r"^it "):
            list(gzip_stream([part], limit, "it"))


def test_a_piece_that_decompresses_to_more_or_less_than_stated_is_damaged() -> None:
    bomb = compressed(bytes(1 << 26), "zstd")
    small = compressed(b"small", "zstd")
    assert from_zstd(small, 0, 5) == b"small"
    assert from_zstd(small + compressed(b"", "zstd"), 0, 5) == b"small"
    for data, size in ((bomb, 5), (small, 4), (small, 6), (small[:-1], 5), (small * 100, 500), (small + b"x", 5)):
        with pytest.raises(ValueError, match=r"^it |.+"):
            from_zstd(data, 0, size)
    member = gzip.compress(b"0123456789")
    assert from_gzip(member + b"anything", 2, 5) == b"23456"
    assert from_gzip(gzip.compress(bytes(1 << 26)), 0, 5) == bytes(5)
    for data, size in ((member, 11), (member[:12], 5), (b"x", 1)):
        with pytest.raises(ValueError, match=r".+"):
            from_gzip(data, 0, size)
