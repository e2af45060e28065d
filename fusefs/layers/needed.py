"""The layers that can matter for a few paths, from the top down, so that others need not be decompressed.

The rules are those of `rootfs`, for the uppermost layers of a stack whose other layers are unknown.
"""

import stat
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from fusefs.layers.index import LayerIndex
from fusefs.layers.record import IMPLICIT, LOWER_LINK, OPAQUE, ROOT, WHITEOUT
from fusefs.tree.walk import MAX_LINKS

_MAX_SEARCHES = 1 << 16
"""Searches of a name in a layer, after which all layers count as needed."""


class Need(Enum):
    """The layers, below those that are known, that can change the answer."""

    NONE = "none"
    NEXT = "the next one, perhaps more"
    ALL = "all"


class Question(NamedTuple):
    """A path that is looked up, alone or, if it is a directory, with all names in it."""

    path: bytes
    follow: bool = True
    """Whether a symbolic link in the last part is followed."""
    names: bool = True
    """Whether a directory is asked for the names in it, too, and not for its attributes alone."""


class _Directory(NamedTuple):
    """A directory of the known layers."""

    places: tuple[tuple[LayerIndex, int], ...]
    """The layers that have it, with its record; the uppermost first."""
    is_open: bool
    """Whether unknown layers can have it, too."""


_File = tuple[LayerIndex, int]


class NeededLayers:
    """Layers are added from the top down, until no other one is needed for the questions."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        self._layers: list[LayerIndex] = []
        self._searches = 0

    def add(self, layer: LayerIndex) -> Need:
        """Add the next lower *layer* and return what is needed then."""
        self._layers.append(layer)
        if layer.lower_links():  # names, and numbers of links, that depend on files of any lower layer
            return Need.ALL
        needs = {self._need(question) for question in self._questions}
        if self._searches > _MAX_SEARCHES or Need.ALL in needs:
            return Need.ALL
        return Need.NEXT if Need.NEXT in needs else Need.NONE

    def _need(self, question: Question) -> Need:
        """Walk the path as `tree.walk.resolve` does."""
        way = [_Directory(tuple((layer, ROOT) for layer in self._layers), is_open=True)]
        parts = deque(question.path.split(b"/"))
        must_follow = question.follow or question.path.endswith(b"/")
        links = 0
        while parts:
            part = parts.popleft()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del way[max(1, len(way) - 1) :]
                continue
            found = self._find(way[-1], part)
            if isinstance(found, Need):
                return found
            if isinstance(found, _Directory):
                way.append(found)
                continue
            layer, number = found
            record = layer.record(number)
            if record.flags & LOWER_LINK:
                return Need.ALL
            if not stat.S_ISLNK(record.mode) or not (parts or must_follow):
                return Need.NONE  # the file, or an error: it is no directory
            links += 1
            if links > MAX_LINKS:
                return Need.NONE
            target = layer.text(record)
            if target.startswith(b"/"):
                del way[1:]
            parts.extendleft(reversed(target.split(b"/")))
        return _of_directory(way[-1]) if question.names else _of_attributes(way[-1])

    def _find(self, directory: _Directory, name: bytes) -> "_Directory | _File | Need":
        """Return the directory or file called *name*; a need if it is missing, or only missing in known layers."""
        found: list[tuple[LayerIndex, int]] = []
        is_open = directory.is_open
        for layer, at in directory.places:
            self._searches += 1
            number = layer.find(at, name)
            if number is not None and layer.is_shown(number, name):
                if not layer.is_directory(number):
                    if not found:
                        return layer, number
                    is_open = False
                    break
                found.append((layer, number))
            if layer.has_marker(at, WHITEOUT + name) or layer.has_marker(at, OPAQUE):
                is_open = False
                break
        if found:
            return _Directory(tuple(found), is_open)
        return Need.NEXT if is_open else Need.NONE


def _of_attributes(directory: _Directory) -> Need:
    """Return what the attributes of *directory* need: the uppermost layer that lists it."""
    is_listed = any(not layer.record(at).flags & IMPLICIT for layer, at in directory.places)
    return Need.NEXT if directory.is_open and not is_listed else Need.NONE


def _of_directory(directory: _Directory) -> Need:
    """Return what the names in *directory* and its attributes need: nothing, or any layer may have some."""
    is_opaque = any(layer.has_marker(at, OPAQUE) for layer, at in directory.places)
    is_listed = any(not layer.record(at).flags & IMPLICIT for layer, at in directory.places)
    return Need.NONE if not directory.is_open or (is_opaque and is_listed) else Need.ALL
