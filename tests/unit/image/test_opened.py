"""An opened image as the Python API uses it."""

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from fusefs.api import OpenedImage
from fusefs.content.protocol import Bytes
from fusefs.errors import Unavailable
from fusefs.image import lazy_layers
from fusefs.image.model import SourcedImage
from fusefs.image.opened import Opened
from fusefs.progress import Silent
from tests.support.remote_content import BASE, DATA, TOP, RemoteContent, remote_image

_TIMEOUT = 30.0
"""Seconds until a read that waits for the other layer fails the test."""


class MeetingContent(RemoteContent):
    """Bytes whose first read waits until the first reads of all layers wait."""

    def __init__(self, data: bytes, meeting: threading.Barrier) -> None:
        super().__init__(data)
        self._meeting: threading.Barrier | None = meeting

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes; BrokenBarrierError if the other layers are not read at the same time."""
        if self._meeting is not None:
            self._meeting.wait(_TIMEOUT)
            self._meeting = None
        return super().read_at(offset, size)


def test_the_python_api_indexes_layers_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_layers, "_WORKERS", 2)  # also on a machine with one processor
    tars = (BASE, TOP)
    meeting = threading.Barrier(len(tars))
    image = remote_image(tars)
    contents = [MeetingContent(tar, meeting) for tar in tars]
    layers = tuple(layer._replace(content=content) for layer, content in zip(image.layers, contents, strict=True))
    opened = Opened(SourcedImage(image._replace(layers=layers)), str(tmp_path), Silent())
    closing = ExitStack()
    closing.callback(opened.close)
    with OpenedImage(opened, closing) as python_image:
        root = python_image.rootfs
        assert (root / "d" / "data").read_bytes() == DATA
        assert (root / "top").read_bytes() == b"2"
        assert not (root / "d" / "gone").exists()


@pytest.mark.parametrize("number", [-7, -1, 2])
def test_a_layer_that_is_not_there_is_an_error(number: int, tmp_path: Path) -> None:
    opened = Opened(SourcedImage(remote_image()), str(tmp_path), Silent())
    with ExitStack() as closing:
        closing.callback(opened.close)
        image = OpenedImage(opened, closing)
        asked = (
            lambda: opened.layer(number),
            lambda: opened.tar(number),
            lambda: opened.rootfs_up_to(number),
            lambda: [*image.find(layer=number)],
            lambda: image.copy("/top", tmp_path / "copy", layer=number),
        )
        for ask in asked:
            with pytest.raises(Unavailable, match=f"^x has 2 layers, .*; there is no layer {number}$"):
                ask()
