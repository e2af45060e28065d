"""Paths of files in an image, with the reading methods of `pathlib` and `importlib.resources.abc.Traversable`."""

import errno
import io
import os
import stat
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import IO, Any, Literal, overload

from fusefs.content.fileobject import open_content
from fusefs.content.protocol import Content
from fusefs.tree.node import RegularFile, Stat, Symlink, Tree
from fusefs.tree.walk import PathNode, children, is_directory, resolve, walk


def stat_result(status: Stat) -> os.stat_result:
    """Return *status* as stat(2) does; device and inode are 0."""
    seconds = status.mtime_ns // 10**9
    numbers = (status.mode, 0, 0, status.nlink, status.uid, status.gid, status.size, seconds, seconds, seconds)
    more = {f"st_{kind}time_ns": status.mtime_ns for kind in "amc"} | {
        "st_rdev": status.rdev,
        "st_blocks": status.blocks,
    }
    return os.stat_result(numbers, more)


_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class ImagePath(Traversable):
    """A path in a tree of an image; no file has to exist there.

    Symbolic links resolve as in a container: the tree's root is the root directory.  Methods raise the exceptions
    of `pathlib`: FileNotFoundError, NotADirectoryError, IsADirectoryError, OSError.  Bytes of a name that are not
    UTF-8 become lone surrogates, as with `os.fsdecode`.
    """

    def __init__(self, tree: Tree, path: str = "/") -> None:
        """Make the path for the absolute *path* in *tree*."""
        self._tree = tree
        self._path = PurePosixPath("/" + path.lstrip("/"))  # PurePosixPath preserves two leading slashes

    def __str__(self) -> str:
        return str(self._path)

    def __repr__(self) -> str:
        return f"ImagePath({str(self._path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImagePath) and self._tree is other._tree and self._path == other._path

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ImagePath) or self._tree is not other._tree:
            return NotImplemented
        return self._path < other._path

    def __hash__(self) -> int:
        return hash((id(self._tree), self._path))

    @property
    def name(self) -> str:
        """The last part, empty for the root."""
        return self._path.name

    @property
    def suffix(self) -> str:
        """The file extension: the end of the last part, from its last dot on."""
        return self._path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts; the first is ``/``."""
        return self._path.parts

    @property
    def parent(self) -> "ImagePath":
        """The path without its last part."""
        return ImagePath(self._tree, str(self._path.parent))

    def joinpath(self, *descendants: str | os.PathLike[str]) -> "ImagePath":
        """Return this path joined with *descendants*; an absolute one begins at the image's root."""
        return ImagePath(self._tree, str(self._path.joinpath(*descendants)))

    def __truediv__(self, child: str | os.PathLike[str]) -> "ImagePath":
        return self.joinpath(child)

    def exists(self) -> bool:
        """Return whether the path exists; follows symbolic links."""
        return self._existing() is not None

    def is_dir(self) -> bool:
        """Return whether the path is a directory; follows symbolic links."""
        node = self._existing()
        return node is not None and is_directory(self._tree, node.number)

    def is_file(self) -> bool:
        """Return whether the path is a regular file; follows symbolic links."""
        node = self._existing()
        return node is not None and stat.S_ISREG(self._tree.stat(node.number).mode)

    def is_symlink(self) -> bool:
        """Return whether the path is a symbolic link."""
        node = self._existing(follow=False)
        return node is not None and stat.S_ISLNK(self._tree.stat(node.number).mode)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the result of stat(2); device and inode are 0."""
        return stat_result(self._tree.stat(self._resolved(follow=follow_symlinks).number))

    def lstat(self) -> os.stat_result:
        """Return the result of lstat(2): the path is not followed if it is a symbolic link."""
        return self.stat(follow_symlinks=False)

    def readlink(self) -> str:
        """Return the stored target of a symbolic link; OSError (EINVAL) for other files."""
        node = self._tree.node(self._resolved(follow=False).number)
        if not isinstance(node, Symlink):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(self))
        return os.fsdecode(node.target)

    def resolve(self) -> "ImagePath":
        """Return the path of the same file without symbolic links and ``..``."""
        return ImagePath(self._tree, os.fsdecode(self._resolved().path))

    def xattrs(self) -> dict[str, bytes]:
        """Return the extended attributes; follows symbolic links."""
        return {os.fsdecode(name): value for name, value in self._tree.xattrs(self._resolved().number)}

    def iterdir(self) -> Iterator["ImagePath"]:
        """Yield the paths in the directory, sorted by name."""
        for entry in children(self._tree, self._directory()):
            yield self / os.fsdecode(entry.name)

    def walk(self) -> Iterator[tuple["ImagePath", list[str], list[str]]]:
        """Yield this directory and each one below it, with the names of its subdirectories and of its other files.

        The same as `pathlib.Path.walk`.
        """
        for directory, entries in walk(self._tree, self._directory()):
            names: tuple[list[str], list[str]] = ([], [])
            for entry in entries:
                names[not is_directory(self._tree, entry.number)].append(os.fsdecode(entry.name))
            yield ImagePath(self._tree, os.fsdecode(directory.path)), *names

    @overload
    def open(self, mode: Literal["r"] = "r", *, encoding: str | None = None, errors: str | None = None) -> IO[str]: ...

    @overload
    def open(self, mode: Literal["rb"]) -> IO[bytes]: ...

    def open(self, mode: str = "r", *, encoding: str | None = None, errors: str | None = None) -> IO[Any]:
        """Open the file for reading: as text (default encoding: UTF-8), or as bytes with the mode ``rb``."""
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"mode {mode!r}: images are read-only; use r or rb")
        file = open_content(self._content(), str(self))
        return file if mode == "rb" else io.TextIOWrapper(file, encoding or "utf-8", errors)

    def read_bytes(self) -> bytes:
        """Return the bytes of the file."""
        content = self._content()
        return bytes(content.read_at(0, content.size))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return the file as text (default encoding: UTF-8)."""
        with self.open(encoding=encoding, errors=errors) as file:
            return file.read()

    def _resolved(self, *, follow: bool = True) -> PathNode:
        return resolve(self._tree, os.fsencode(str(self._path)), follow=follow)

    def _existing(self, *, follow: bool = True) -> PathNode | None:
        try:
            return self._resolved(follow=follow)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            return None

    def _directory(self) -> PathNode:
        node = self._resolved()
        if not is_directory(self._tree, node.number):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self))
        return node

    def _content(self) -> Content:
        node = self._tree.node(self._resolved().number)
        if isinstance(node, RegularFile):
            return node.content
        if is_directory(self._tree, self._resolved().number):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
        raise OSError(errno.ENXIO, "a device, a fifo or a socket has no bytes", str(self))
