"""What is cached of a layer: its index and its plain tar, and the names under which they are."""

import hashlib
import os
import threading

from fusefs.content.protocol import Content
from fusefs.image.model import Layer, LayerCache
from fusefs.layers.index import BrokenIndex, LayerIndex

_comparing = threading.Lock()
"""Only one thread compares headers: two threads contend for the interpreter and take twice as long."""


def add_index(cache: LayerCache, name: str, descriptor: int) -> None:
    """Cache the file *descriptor* as *name*, and close it."""
    try:
        cache.add(name, descriptor)
    finally:
        os.close(descriptor)


def cached_name(layer: Layer, *more: object) -> str:
    """Return the first part of the name of a cached file: a hash of what identifies the bytes of *layer*, and *more*.

    *more* is the format of layer indexes, so that versions of imgfs with different ones do not drop each other's.
    """
    assert layer.content is not None
    identity = layer.content.identity
    parts = (layer.descriptor.digest, layer.diff_id, identity, layer.descriptor.size, layer.compression, *more)
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()


def cached_index(cache: LayerCache, name: str) -> LayerIndex | None:
    """Return the layer index cached as *name*, None if there is no valid one."""
    descriptor = cache.open_cached(name)
    if descriptor is None:
        return None
    try:
        return LayerIndex(descriptor)
    except BrokenIndex as error:
        cache.drop(name, str(error))
    except OSError as error:
        cache.drop(name, f"cannot read it: {error.strerror}")
    finally:
        os.close(descriptor)
    return None


def headers_match(cache: LayerCache, name: str, index: LayerIndex, tar: Content) -> bool:
    """Return whether *index*, cached as *name*, has the headers in *tar*; otherwise it is dropped."""
    with _comparing:
        matches = index.headers_match(tar)
    if not matches:
        cache.drop(name, "the headers of the layer differ")
    return matches
