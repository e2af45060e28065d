"""Parts of a draft tree: directories, files with several names, and the walk along a path."""

from typing import NamedTuple


class Folder:
    """A directory."""

    __slots__ = ("children", "packed")

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        """The second part of its record."""
        self.children: dict[bytes, bytes | Folder | Linked] = {}


class Linked:
    """A file with several names, or a hard link into a lower layer."""

    __slots__ = ("lower", "names", "number", "packed")

    def __init__(self, packed: bytes, *, lower: bool) -> None:
        self.packed = packed
        self.lower = lower
        self.names = 0
        """How many names there are; counted at the end."""
        self.number = 0
        """Record of the first name."""


DraftNode = bytes | Folder | Linked


class ResolvedPath(NamedTuple):
    """A directory, found by a path."""

    folder: Folder | None
    """None if the layer does not have it."""
    path: list[bytes]
    """Its path with links resolved, as far as it exists."""
    lower_hidden: bool
    """Whether a whiteout or an opaque marker of the layer hides it in the lower layers."""


class PathWalk:
    """A walk along a path: where it has come to, and the rest of the path."""

    __slots__ = ("_ups", "folders", "links", "names", "rest")

    def __init__(self, root: Folder, parts: list[bytes]) -> None:
        self.folders = [root]
        self.names: list[bytes] = []
        """Of all folders but the root."""
        self.rest = parts[::-1]
        """Components that are still to come, the next one last."""
        self.links = 0
        """Symbolic links followed so far."""
        self._ups = 0
        """How many of the components to come are ``..``."""

    def enter(self, name: bytes, folder: Folder) -> None:
        """Go into *folder*, a child of the last one."""
        self.names.append(name)
        self.folders.append(folder)

    def leave(self) -> None:
        """Take the next component, ``..``: go up, but not above the root."""
        self.rest.pop()
        self._ups -= 1
        if self.names:
            self.names.pop()
            self.folders.pop()

    def follow(self, target: list[bytes]) -> None:
        """Go on with the components of a link's *target*."""
        self.rest += reversed(target)
        self._ups += target.count(b"..")

    def take_back(self) -> bool:
        """Drop the next components, which do not exist, as far as ``..`` takes them back; return whether any was there.

        What does not exist is cleaned without a look at the file system, as by containerd and umoci.
        """
        if not self._ups:
            return False
        missing: list[bytes] = []
        while self.rest:
            part = self.rest.pop()
            if part != b"..":
                missing.append(part)
                continue
            self._ups -= 1
            missing.pop()
            if not missing:
                return True
        self.rest = missing[::-1]
        return True
