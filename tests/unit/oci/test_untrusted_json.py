"""Untrusted JSON."""

import pytest

from fusefs.errors import InvalidImage
from fusefs.oci.untrusted_json import (
    Json,
    as_list,
    as_object,
    as_string,
    as_strings,
    field_of,
    kind,
    parse_list,
    parse_object,
)

KINDS: list[tuple[Json, str]] = [
    (None, "null or missing"),
    (True, "a boolean"),
    (0, "a number"),
    (1.5, "a number"),
    ("", "a string"),
    ([], "a list"),
    ({}, "an object"),
]


@pytest.mark.parametrize(("value", "words"), KINDS)
def test_everything_is_called_what_it_is(value: Json, words: str) -> None:
    assert kind(value) == words


@pytest.mark.parametrize(("value", "words"), [(value, words) for value, words in KINDS if value != {}])
def test_what_is_no_object_is_an_error_with_its_place(value: Json, words: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        as_object(value, "x: config", "a descriptor")
    assert str(caught.value) == f"x: config is {words}, not a descriptor"


@pytest.mark.parametrize(("value", "words"), [(value, words) for value, words in KINDS if value not in (None, [])])
def test_what_is_no_list_is_an_error_with_its_place(value: Json, words: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        as_list(value, "x: layers")
    assert str(caught.value) == f"x: layers is {words}, not a list"


@pytest.mark.parametrize("value", [1, None, [], {}])
def test_a_list_of_strings_has_nothing_else_in_it(value: Json) -> None:
    with pytest.raises(InvalidImage) as caught:
        as_strings(["a", value], "x: tags")
    assert str(caught.value) == "x: tags has an item that is not a string"


def test_what_is_right_is_handed_back() -> None:
    assert as_object({"a": 1}, "x") == {"a": 1}
    assert as_list([1, "a"], "x") == [1, "a"]
    assert as_strings(["a", ""], "x") == ("a", "")
    assert as_string("a") == "a"


def test_a_list_that_is_null_is_empty_as_in_go() -> None:
    assert (as_list(None, "x"), as_strings(None, "x")) == ([], ())


@pytest.mark.parametrize("value", [None, 1, True, [], {}])
def test_a_string_that_nothing_depends_on_may_be_anything(value: Json) -> None:
    assert as_string(value) == ""


def test_a_document_is_what_was_expected_of_it() -> None:
    assert parse_object(b' {"a": [1, null]} ', "x", "an index") == {"a": [1, None]}
    assert parse_list(b"[{}]", "x", "a list of images") == [{}]
    with pytest.raises(InvalidImage, match=r"^x is a list, not an index$"):
        parse_object(b"[]", "x", "an index")
    with pytest.raises(InvalidImage, match=r"^x is an object, not a list of images$"):
        parse_list(b"{}", "x", "a list of images")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"{} {}", "Extra data: line 1 column 4 (char 3)"),
        (b"{NaN}", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b'{"a":NaN}', "NaN is not a JSON value"),
        (b'{"a":-Infinity}', "-Infinity is not a JSON value"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        ('{"a":1}'.encode("utf-16-le"), "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)"),
        (b"\xff", "Expecting value: line 1 column 1 (char 0)"),
    ],
    ids=range(10),
)
def test_what_is_no_json_is_named_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        parse_object(data, "x: index.json", "an image index")
    assert str(caught.value) == f"x: index.json is not JSON: {reason}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", None),
        ('{"diskSize":1}', 1),
        ('{"DISKSIZE":1}', 1),
        ('{"di\u017f\u212aSize":1}', 1),
        ('{"di\\u017fksize":1}', 1),
        # The last one counts, also behind an exact match, and also if it is null.
        ('{"diskSize":1,"disksize":2}', 2),
        ('{"disksize":2,"diskSize":1}', 1),
        ('{"diskSize":1,"disksize":2,"diskSize":3}', 3),
        ('{"diskSize":1,"DiskSize":null}', None),
        # None of these is another spelling of the same letters to Go.
        ('{"disk_size":1}', None),
        ('{"d\u0131skSize":1}', None),
        ('{"d\u0130skSize":1}', None),
        ('{"di\u00dfkSize":1}', None),
        ('{"diskSi\u007ae\u0301":1}', None),
    ],
)
def test_a_field_is_found_as_go_finds_it(text: str, value: Json) -> None:
    assert field_of(parse_object(text.encode(), "x", "an object"), "diskSize") == value


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (b"\xff", "\ufffd"),
        (b"a\xe2\x82b", "a\ufffd\ufffdb"),
        (b"\xed\xa0\x80", "\ufffd" * 3),
        (b"\xf4\x90\x80\x80", "\ufffd" * 4),
        (b"\xc0\xaf", "\ufffd\ufffd"),
        ("é\U0001f600".encode(), "é\U0001f600"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\ud83d", "\ufffd"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\\ud83d", r"\ud83d"),
    ],
)
def test_what_is_no_unicode_reads_as_in_go(inside: bytes, text: str) -> None:
    assert parse_list(b'["' + inside + b'"]', "x", "a list") == [text]
    assert parse_object(b'{"' + inside + b'":["' + inside + b'"]}', "x", "an object") == {text: [text]}


def test_keys_of_a_map_are_compared_exactly() -> None:
    assert parse_object(b'{"a":1,"A":2}', "x", "labels") == {"a": 1, "A": 2}
