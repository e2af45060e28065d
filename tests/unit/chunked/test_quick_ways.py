"""What is read quickly, as builders write it, is read with the same result, or refused with the same words, slowly."""

import os
import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from fusefs.chunked import tarsplit, toc, zstd_chunked
from fusefs.chunked.headers import Headers
from fusefs.chunked.tarsplit import TarSplit
from fusefs.chunked.toc import MAX_TAR, Entry, JsonStream, Toc, Unusable
from fusefs.content.file import OpenFile
from fusefs.tar.header import Kind

PUT = ['"', "\\", "{", "}", "[", "]", ":", ",", "=", "A", "0", "7", " ", "\n", "\t", "-", "é", "\ufffd", "\0", "\x7f"]
PUT += ['"},{"', "},{", "{},", "\\u0041", "\\/", ',"size":5', ".0", "e3", ""]

NEXT_OBJECT = toc._NEXT_OBJECT


def damaged(text: str) -> Iterator[str]:
    """Yield *text*, and with each damage at each place: something put in, left out, or in place of a character."""
    yield text
    for at, put, out in product(range(len(text) + 1), PUT, (0, 1)):
        yield text[:at] + put + text[at + out :]


def outcome(read: Callable[[str], object], text: str) -> object:
    """Return what *read* returns, or its words."""
    try:
        return read(text)
    except Unusable as error:
        return str(error)


def compare(read: Callable[[str], object], text: str, slow: Callable[[pytest.MonkeyPatch], None]) -> None:
    texts = [*damaged(text)]
    quick = [outcome(read, each) for each in texts]
    with pytest.MonkeyPatch.context() as patch:
        slow(patch)
        for each, found in zip(texts, quick, strict=True):
            assert outcome(read, each) == found, each
    assert len({repr(found) for found in quick}) > 10


LINES = (
    '{"type":2,"payload":"","position":0}\n'
    '{"type":2,"payload":"QUJD","position":1}\n'
    '{"type":1,"name":"./a","size":10,"payload":"AAAA","position":2}\n'
    '{"type":2,"payload":"QQ==","position":3}\n'
    '{"type":1,"name":"b","payload":null,"position":4}\n'
    '{"type":2,"payload":"QUJDRA==","position":5}\n'
)


def split(text: str) -> object:
    file = OpenFile(os.memfd_create("tar", os.MFD_CLOEXEC), "the layer")
    headers = Headers(file)
    try:
        found = TarSplit([text.encode()], headers, "it")
        tar, held = headers.end(headers.size)
        assert held is not None
        runs = [bytes(held.read_at(offset, 9)) for offset in (0, *found.offsets)]  # holes may be large
        assert runs == [bytes(tar.read_at(offset, 9)) for offset in (0, *found.offsets)]
        return [*found.offsets], [*found.sizes], headers.size, runs
    finally:
        file.close()


def test_a_tar_split() -> None:
    compare(split, LINES, lambda patch: patch.setattr(tarsplit, "_LINES", re.compile(r"(?!)()()()")))


@pytest.mark.parametrize("size", [MAX_TAR, MAX_TAR + 1, 10**11, 10**12, 10**17, 10**18, 10**30])
def test_a_tar_split_of_a_large_file(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = LINES.replace('"size":10', f'"size":{size}')
    quick = outcome(split, text)
    monkeypatch.setattr(tarsplit, "_LINES", re.compile(r"(?!)()()()"))
    assert outcome(split, text) == quick


TABLE = '{"version":1,"entries":[{"a":1},{"b":"},{"},{"c":{"d":[]}},\n\t{"e":[{},{}]} , {},{}],"x":OTHERS}'


@pytest.mark.parametrize(("pieces", "others"), [(1, "[]"), (2, "[]"), (1, "[{},{}]")])
def test_a_table_of_contents(pieces: int, others: str) -> None:
    def read(text: str) -> object:
        half = len(text) // pieces
        return [*Toc((text[:half].encode(), text[half:].encode()), "it").entries()]

    compare(read, TABLE.replace("OTHERS", others), lambda patch: patch.setattr(JsonStream, "_objects", lambda _: []))


@pytest.mark.parametrize("entry", ['{"a":1} ', '{"a":"},{"}', '{"a":"},{"} '])
def test_a_table_that_defeats_the_quick_way_is_not_searched_again_and_again(
    entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []

    class Counted:
        @staticmethod
        def finditer(text: str, begin: int) -> Iterator[re.Match[str]]:
            searched.append(len(text) - begin)
            return NEXT_OBJECT.finditer(text, begin)

    monkeypatch.setattr(toc, "_NEXT_OBJECT", Counted)
    text = ('{"version":1,"entries":[' + ",".join([entry] * 50_000) + "]}").encode()
    pieces = [text[at : at + 65_536] for at in range(0, len(text), 65_536)]
    assert len([*Toc(pieces, "it").entries()]) == 50_000
    assert len(searched) <= 2 * len(pieces)


TEXTS = ["a", "", "é", "\0", "\ufffd", "\ud800"]
VALUES = [*TEXTS, None, 0, 1, True, 5, 5.0, [], ["a"]]
KINDS = [("reg", Kind.REGULAR), ("dir", Kind.REGULAR), ("reg", Kind.OTHER)]


def test_an_entry_and_a_member() -> None:
    agreed = 0
    for name, link, size, (kind, seen_kind) in product(VALUES, VALUES, [0, 1, True, 5, 5.0, None], KINDS):
        fields: Any = {"name": name, "linkName": link, "size": size, "type": kind}
        paths = [text.encode("utf-8", "surrogatepass") for text in (name, link) if isinstance(text, str)]
        for path, target, seen_size, more in product((*paths[:1], b"a"), (*paths[1:], b""), [0, 1, 5], [0, 1]):
            seen = path, seen_kind, target, 512, seen_size
            if zstd_chunked._agree(fields, kind, (seen, 512 + more, seen_size)):
                zstd_chunked._compare(Entry(fields, "it"), seen, 512 + more, seen_size)
                agreed += 1
    assert agreed >= 10
    assert not zstd_chunked._agree({"name": "a", "type": "reg"}, "reg", (None, None, None))
