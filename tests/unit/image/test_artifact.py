"""The files of an artifact, by their titles."""

import pytest

from fusefs.image.artifact import TitledFile, TitledFiles, titled_files
from fusefs.image.model import Layer
from tests.support.conformance import literal_layer


def titled(data: bytes, title: str | None) -> Layer:
    """Return a layer of an artifact."""
    layer = literal_layer(data)
    annotations = {} if title is None else {"org.opencontainers.image.title": title}
    return layer._replace(diff_id=None, descriptor=layer.descriptor._replace(annotations=annotations))


def paths(files: TitledFiles, above: bytes = b"") -> dict[bytes, bytes]:
    """Return the data of each file by its path."""
    found: dict[bytes, bytes] = {}
    for name, below in files.items():
        if isinstance(below, TitledFile):
            found[above + name] = bytes(below.content.read_at(0, 100))
        else:
            found |= paths(below, above + name + b"/")
    return found


@pytest.mark.parametrize(
    ("title", "path"),
    [
        ("a", b"a"),
        ("a b/\u00e9", "a b/\u00e9".encode()),
        ("./a//b/.", b"a/b"),
        ("/etc/passwd", b"etc/passwd"),
        ("../../etc/passwd", b"etc/passwd"),
        ("a/../../b", b"b"),
        ("x" * 255, b"x" * 255),
    ],
)
def test_a_title_is_a_path_below_the_top(title: str, path: bytes) -> None:
    assert paths(titled_files([titled(b"data", title)])) == {path: b"data"}


@pytest.mark.parametrize("title", [None, "", ".", "..", "/", "a/..", "x" * 256, "a\0b"])
def test_a_title_that_names_no_file_is_left_out(title: str | None) -> None:
    assert titled_files([titled(b"data", title)]) == {}


def test_the_second_of_one_name_has_a_number() -> None:
    titles = ["a", "a", "a.1", "a", "a/b", "d/x", "d", "x" * 255, "x" * 255]
    files = paths(titled_files(titled(b"%d" % number, title) for number, title in enumerate(titles)))
    assert files == {
        b"a": b"0",
        b"a.1": b"1",
        b"a.1.1": b"2",
        b"a.2": b"3",
        b"a.3/b": b"4",
        b"d/x": b"5",
        b"d.1": b"6",
        b"x" * 255: b"7",
        b"x" * 253 + b".1": b"8",
    }


def test_layers_of_a_file_system_and_those_that_are_not_stored_are_left_out() -> None:
    layer = titled(b"data", "a")
    readable = literal_layer(b"data")._replace(descriptor=layer.descriptor)
    assert titled_files([layer._replace(content=None), readable]) == {}
    assert paths(titled_files([readable._replace(is_tar=False)])) == {b"a": b"data"}
