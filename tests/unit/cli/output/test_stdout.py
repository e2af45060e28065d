"""Standard output: lists as JSON, and columns."""

import io
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from fusefs.cli.output.stdout import Output, terminal_columns

DOCUMENTS: list[list[Any]] = [
    [],
    [{}],
    [{"path": "/\n\x7f\udc80é", "target": ["a", {"b": None}]}, {"path": "/x"}],
    [1, "a", None, [], {}, [1, 2]],
]


@pytest.mark.parametrize("documents", DOCUMENTS, ids=repr)
def test_a_list_is_written_as_one_document_would_be(documents: list[Any]) -> None:
    whole, streamed = io.StringIO(), io.StringIO()
    Output({}, whole).json(documents)
    Output({}, streamed).json_list(iter(documents))
    assert streamed.getvalue() == whole.getvalue()
    assert json.loads(streamed.getvalue()) == documents


def test_each_is_written_before_the_next_is_asked_for() -> None:
    stream = io.StringIO()

    def documents() -> Iterator[str]:
        assert stream.getvalue() == ""
        yield "first"
        assert stream.getvalue() == '[\n  "first"'
        yield "second"
        assert stream.getvalue() == '[\n  "first",\n  "second"'

    Output({}, stream).json_list(documents())
    assert stream.getvalue() == '[\n  "first",\n  "second"\n]\n'


def test_a_list_that_fails_has_no_end() -> None:
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError):
        Output({}, stream).json_list(1 // (1 - number) for number in range(2))
    assert stream.getvalue() == "[\n  1"


@pytest.mark.parametrize(
    ("columns", "counted"), [("40", 40), ("0", 80), ("-1", 80), ("x", 80), ("9" * 5000, 80)], ids=range(5)
)
def test_the_variable_for_columns_counts_if_it_is_a_number_of_some(
    monkeypatch: pytest.MonkeyPatch, columns: str, counted: int
) -> None:
    def no_terminal(_: int) -> None:
        raise OSError

    monkeypatch.setattr(os, "get_terminal_size", no_terminal)
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_columns() == counted
