"""Fetches the layers of an image in the background: at half the speed at most, and not while readers wait."""

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fusefs.content.pieces import FetchFailed
from fusefs.content.remote import RemoteBlob
from fusefs.errors import ImgfsError, RegistryError
from fusefs.image.model import Layer
from fusefs.log import logger

if TYPE_CHECKING:
    from fusefs.image.opened import Opened

log = logger(__name__)

_STEP = 4 << 20
"""Bytes of one request."""
_POLL = 0.05
"""Seconds between two looks whether readers still wait."""
_FIRST, _LONGEST = 2.0, 300.0
"""Seconds before the next attempt when a registry fails, which double up to the longest."""


def begin_prefetch(opened: "Opened") -> None:
    """Start the thread that fetches the layers of an image, the top one first."""
    layers = [layer for layer in reversed(opened.image.layers) if isinstance(layer.content, RemoteBlob)]
    if layers:
        with suppress(RuntimeError):  # as many threads as this process may have
            threading.Thread(target=_fetch_all, args=(opened, layers), daemon=True).start()


def _fetch_all(opened: "Opened", layers: list[Layer]) -> None:
    for layer in layers:
        blob, where, pause = layer.content, layer.where, _FIRST
        assert isinstance(blob, RemoteBlob)
        while (error := _fetched(blob)) is not None:
            if not (error.shared or isinstance(error.error, RegistryError)):
                log.warning("cannot prefetch %s: %s", where, error.error)
                break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        else:
            with suppress(ImgfsError, FetchFailed, OSError):  # readers get it, too
                opened.layers.compare(layer)


def _fetched(blob: RemoteBlob) -> FetchFailed | None:
    """Fetch and verify *blob*; return the error if that fails."""
    try:
        for offset in range(0, blob.size, _STEP):
            while blob.is_busy():
                time.sleep(_POLL)
            if blob.is_here:
                break
            began = time.monotonic()
            blob.unverified_range(offset, _STEP)
            time.sleep(time.monotonic() - began)
        blob.fetch()
    except FetchFailed as error:
        return error
    return None
