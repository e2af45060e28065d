"""Files in an image as paths: what `pathlib` can do for reading, and `importlib.resources.abc.Traversable`."""

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
from fusefs.tree.node import RegularFile, Symlink, Tree
from fusefs.tree.walk import Found, children, is_directory, resolve, walk

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class ImagePath(Traversable):
    """A path in a tree of an image, which need not be there.

    Symbolic links lead to where they would in a container: the tree's root is the root.  Errors are those of
    `pathlib`: FileNotFoundError, NotADirectoryError, IsADirectoryError, OSError.  A name that is not UTF-8 has
    lone surrogates, as `os.fsdecode` makes them.
    """

    def __init__(self, tree: Tree, path: str = "/") -> None:
        """Be the absolute *path* in *tree*."""
        self._tree = tree
        self._path = PurePosixPath("/" + path.lstrip("/"))  # two slashes at the start would be kept

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
        """The last part's end from its last dot on."""
        return self._path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts, the first of which is ``/``."""
        return self._path.parts

    @property
    def parent(self) -> "ImagePath":
        """The path without its last part."""
        return ImagePath(self._tree, str(self._path.parent))

    def joinpath(self, *descendants: str | os.PathLike[str]) -> "ImagePath":
        """Return the path that *descendants* lead to from here; an absolute one begins at the image's root."""
        return ImagePath(self._tree, str(self._path.joinpath(*descendants)))

    def __truediv__(self, child: str | os.PathLike[str]) -> "ImagePath":
        return self.joinpath(child)

    def exists(self) -> bool:
        """Return whether something is there, the links followed."""
        return self._found() is not None

    def is_dir(self) -> bool:
        """Return whether a directory is there, the links followed."""
        found = self._found()
        return found is not None and is_directory(self._tree, found.number)

    def is_file(self) -> bool:
        """Return whether a regular file is there, the links followed."""
        found = self._found()
        return found is not None and stat.S_ISREG(self._tree.stat(found.number).mode)

    def is_symlink(self) -> bool:
        """Return whether a symbolic link is there."""
        found = self._found(follow=False)
        return found is not None and stat.S_ISLNK(self._tree.stat(found.number).mode)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what stat(2) says; device and inode are 0."""
        said = self._tree.stat(self._there(follow=follow_symlinks).number)
        seconds = said.mtime_ns // 10**9
        numbers = (said.mode, 0, 0, said.nlink, said.uid, said.gid, said.size, seconds, seconds, seconds)
        more = {f"st_{kind}time_ns": said.mtime_ns for kind in "amc"} | {"st_rdev": said.rdev, "st_blocks": said.blocks}
        return os.stat_result(numbers, more)

    def lstat(self) -> os.stat_result:
        """Return the same of a link itself."""
        return self.stat(follow_symlinks=False)

    def readlink(self) -> str:
        """Return where a symbolic link leads, as it is stored; OSError (EINVAL) if it is none."""
        node = self._tree.node(self._there(follow=False).number)
        if not isinstance(node, Symlink):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(self))
        return os.fsdecode(node.target)

    def resolve(self) -> "ImagePath":
        """Return the path of the same file without links and ``..``."""
        return ImagePath(self._tree, os.fsdecode(self._there().path))

    def xattrs(self) -> dict[str, bytes]:
        """Return the extended attributes, of what a link leads to."""
        return {os.fsdecode(name): value for name, value in self._tree.xattrs(self._there().number)}

    def iterdir(self) -> Iterator["ImagePath"]:
        """Yield what is in the directory, by name."""
        for entry in children(self._tree, self._directory()):
            yield self / os.fsdecode(entry.parts[-1])

    def walk(self) -> Iterator[tuple["ImagePath", list[str], list[str]]]:
        """Yield each directory from here on, the names of those in it, and of all else: as `pathlib.Path.walk`."""
        for directory, entries in walk(self._tree, self._directory()):
            names: tuple[list[str], list[str]] = ([], [])
            for entry in entries:
                names[not is_directory(self._tree, entry.number)].append(os.fsdecode(entry.parts[-1]))
            yield ImagePath(self._tree, os.fsdecode(directory.path)), *names

    @overload
    def open(self, mode: Literal["r"] = "r", *, encoding: str | None = None, errors: str | None = None) -> IO[str]: ...

    @overload
    def open(self, mode: Literal["rb"]) -> IO[bytes]: ...

    def open(self, mode: str = "r", *, encoding: str | None = None, errors: str | None = None) -> IO[Any]:
        """Open the file for reading: as text, which is UTF-8 by default, or with ``rb`` as bytes."""
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"mode {mode!r}: an image can only be read; r and rb are possible")
        file = open_content(self._content(), str(self))
        return file if mode == "rb" else io.TextIOWrapper(file, encoding or "utf-8", errors)

    def read_bytes(self) -> bytes:
        """Return all bytes of the file."""
        content = self._content()
        return bytes(content.read_at(0, content.size))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return all of the file as text, which is UTF-8 by default."""
        with self.open(encoding=encoding, errors=errors) as file:
            return file.read()

    def _there(self, *, follow: bool = True) -> Found:
        return resolve(self._tree, os.fsencode(str(self._path)), follow=follow)

    def _found(self, *, follow: bool = True) -> Found | None:
        try:
            return self._there(follow=follow)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return None

    def _directory(self) -> Found:
        found = self._there()
        if not is_directory(self._tree, found.number):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self))
        return found

    def _content(self) -> Content:
        node = self._tree.node(self._there().number)
        if isinstance(node, RegularFile):
            return node.content
        if is_directory(self._tree, self._there().number):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
        raise OSError(errno.ENXIO, "a device, a fifo or a socket has no bytes", str(self))
