"""The child process that indexes a large layer: the same index in any environment, however the child ends."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.errors import InvalidImage, NoSpace
from fusefs.image import indexing
from fusefs.image.indexing import Indexing, NewIndex
from fusefs.layers.index import LayerIndex
from tests.conftest import TakeWarnings
from tests.support.builders import CREATED_NS
from tests.support.changesets import changeset, file
from tests.support.images import image_of

LARGE = changeset(file("large", bytes(16 << 20)), file("é/.wh."))
SKIPPED = "layer 0: skipped 1 members that cannot be shown; the first: é/.wh.: a whiteout without a name"


def indexed(data: bytes = LARGE) -> bytes:
    """Return the index of a layer."""
    descriptor = os.memfd_create("index")
    try:
        with image_of(data) as image:
            (layer,) = image.layers
            assert layer.content is not None
            Indexing(NewIndex(descriptor, "/nowhere"), layer, CREATED_NS).finish(layer.content)
        assert LayerIndex(descriptor).count > 1
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONVERBOSE": "2"},
        {"PYTHONINSPECT": "1"},
        {"PYTHONHOME": "/nowhere"},
        {"PYTHONPATH": "PLANTED"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", "PYTHONMALLOCSTATS": "1"},
        {"PYTHONPLATLIBDIR": "nowhere", "PYTHONSAFEPATH": "", "PYTHONOPTIMIZE": "2"},
    ],
    ids=",".join,
)
def test_no_variable_of_the_environment_changes_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take_warnings: TakeWarnings, variables: dict[str, str]
) -> None:
    (tmp_path / "fusefs").mkdir()
    for name in ("fusefs/__init__.py", "struct.py", "zlib.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')")
    expected = indexed()
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("PLANTED", str(tmp_path)))
    assert indexed() == expected
    assert take_warnings() == [SKIPPED, SKIPPED]


@contextmanager
def ignored_sigchld() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_program_that_ignores_sigchld_gets_the_status_too(take_warnings: TakeWarnings) -> None:
    with ignored_sigchld():
        indexed()
        with pytest.raises(InvalidImage, match=r"^layer 0: damaged"):
            indexed(LARGE[: 16 << 20] + b"garbage".ljust(1024, b"!"))
    assert take_warnings() == [SKIPPED]


def test_without_a_child_the_layer_is_indexed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, take_warnings: TakeWarnings
) -> None:
    expected = indexed()
    monkeypatch.setattr(indexing, "INDEXER", ("/nowhere/python",))
    assert indexed() == expected
    assert take_warnings() == [SKIPPED, SKIPPED]


_FLOOD = "import os, sys; [os.write(sys.stdout.fileno() + n % 2, b'x' * 65536) for n in range(64)]; "


@pytest.mark.parametrize(
    ("end", "error", "message"),
    [
        ("print('\\nwhy\\n5')", InvalidImage, "^why$"),
        ("print('\\nwhy\\n8')", NoSpace, "^cannot index layer 0 in /nowhere: why; choose another directory"),
        ("print('\\nwhy\\n10')", MemoryError, "^the indexer of layer 0: why$"),
        ("print('\\nwhy\\n1')", OSError, "the indexer of layer 0 failed with status 1: why$"),
        ("print('\\nwhy', flush=True); os.kill(os.getpid(), 9)", OSError, "failed with status -9: why$"),
        ("print('\\nwhy', flush=True); os.kill(os.getpid(), 15)", OSError, "failed with status -15: why$"),
    ],
)
def test_a_child_that_writes_megabytes_to_both_outputs_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, end: str, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(indexing, "INDEXER", (sys.executable, "-c", _FLOOD + end))
    with pytest.raises(error, match=message):
        indexed()
