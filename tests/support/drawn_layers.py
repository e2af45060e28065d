"""Layers that hypothesis draws, and a model that unpacks one into a dictionary."""

import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import strategies as st

from tests.support.changesets import (
    A_FOLDER,
    FOLDER,
    IMPLICIT,
    Seen,
    a_file,
    a_symlink,
    changeset,
    file,
    folder,
    hard_link,
    symlink,
)

Path = tuple[str, ...]
OPAQUE = ".wh..wh..opq"


class Drawn(NamedTuple):
    """A member: kind, path, and the path or text that goes with it."""

    kind: str
    path: Path
    other: str

    def data(self) -> bytes:
        """Return it as it is in a tar."""
        name = "/".join(self.path)
        match self.kind:
            case "file":
                return file(name, self.other.encode())
            case "folder":
                return folder(name, FOLDER._replace(uid=len(self.other)))
            case "symlink":
                return symlink(name, self.other)
        return hard_link(name, self.other)


@dataclass(eq=False)
class Thing:
    """What is at a path; names of one file share it."""

    seen: Seen
    implicit: bool = False
    lower: Path | None = None
    """A hard link to this path of the layers below."""

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return self.lower is None and stat.S_ISLNK(self.seen.type)

    @property
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return self.lower is None and self.seen.type == A_FOLDER.type


Things = dict[Path, Thing]


def removed(things: Things, path: Path) -> None:
    """Remove *path* and all below it."""
    for there in [there for there in things if there[: len(path)] == path]:
        del things[there]


class RefusedError(Exception):
    """Engines refuse the layer: imgfs skips the member, and warns of it."""


def walked(things: Things, path: Path, missing: Callable[[Path], bool]) -> tuple[Path, Path]:
    """Return where the directory *path* leads through the links in *things*, and the rest of the path.

    Where it leads to no directory, *missing* may make one; if that says no, there is a rest.  Raises RefusedError.
    """
    here: Path = ()
    rest = list(path)
    links = 0
    while rest:
        part = rest.pop(0)
        if part == "..":
            here = here[:-1]
            continue
        there = things.get((*here, part))
        if there is not None and there.is_link:
            links += 1
            if links > 40:
                raise RefusedError
            target = there.seen.target.decode()
            here = () if target.startswith("/") else here
            rest[:0] = [name for name in target.split("/") if name not in ("", ".")]
            continue
        if (there is None or not there.is_folder) and not missing((*here, part)):
            return here, (part, *rest)
        here = (*here, part)
    return here, ()


def placed(things: Things, path: Path) -> Path | None:
    """Return where a member called *path* goes, its directories made; None for an ineffective whiteout."""

    def make(missing: Path) -> bool:
        if is_whiteout(path) and (missing in things or (*missing[:-1], f".wh.{missing[-1]}") in things):
            return False
        if missing in things:
            raise RefusedError
        things[missing] = Thing(IMPLICIT, implicit=True)
        return True

    directory, rest = walked(things, path[:-1], make)
    return None if rest else (*directory, path[-1])


def is_whiteout(path: Path) -> bool:
    """Return whether *path* is that of a whiteout or an opaque marker."""
    return path[-1].startswith(".wh.")


def in_progress(members: Sequence[Drawn]) -> Things:
    """Return what one layer has, whiteouts as files, before further members.  Raises RefusedError."""
    things: Things = {(): Thing(IMPLICIT, implicit=True)}
    for member in members:
        path, thing = made(things, member)
        place = placed(things, path) if path else path
        if place is None:
            continue
        if not (thing.is_folder and place in things and things[place].is_folder):
            removed(things, place)
        things[place] = thing
    return things


def unpacked(members: Sequence[Drawn]) -> Things:
    """Return what one layer has in the end, whiteouts as files.  Raises RefusedError."""
    things = in_progress(members)
    for path in sorted(things, key=len, reverse=True):
        if path not in things or not things[path].implicit or not is_hidden(things, path):
            continue
        if all(map(is_whiteout, children(things, path))):
            removed(things, path)
    for thing in things.values():
        if not thing.is_folder:
            thing.seen = thing.seen._replace(nlink=sum(one is thing for one in things.values()))
    return things


def children(things: Things, path: Path) -> list[Path]:
    """Return the paths in a directory."""
    return [there for there in things if there and there[:-1] == path]


def is_hidden(things: Things, path: Path) -> bool:
    """Return whether a whiteout hides what lower layers have at *path*."""
    return any((*path[:depth], f".wh.{path[depth]}") in things for depth in range(len(path)))


def made(things: Things, member: Drawn) -> tuple[Path, Thing]:
    """Return path and file of a *member* after those that made *things*.  Raises RefusedError."""
    match member.kind:
        case "folder":
            return member.path, Thing(A_FOLDER._replace(uid=len(member.other)))
        case "file":
            return member.path, Thing(a_file(member.other.encode()))
        case "symlink":
            return member.path, Thing(a_symlink(member.other.encode()))
    return linked(things, member)


def linked(things: Things, member: Drawn) -> tuple[Path, Thing]:
    """Return path and file of a hard link.  Raises RefusedError."""
    if is_whiteout(member.path):
        return member.path, Thing(a_file())

    def missing(path: Path) -> bool:
        if path in things:
            raise RefusedError
        return False

    *directories, name = member.other.split("/")
    directory, rest = walked(things, tuple(directories), missing)
    target, mark = (*directory, *rest, name), (*directory, f".wh.{name}")
    directory, rest = walked(things, member.path[:-1], missing)
    own = (*directory, *rest, member.path[-1])
    found = things.get(target)
    if target[: len(own)] == own or own[: len(target)] == target or (found is not None and found.is_folder):
        raise RefusedError
    if found is None and len(mark) == len(target) and mark in things:
        return (*member.path[:-1], f".wh.{member.path[-1]}"), Thing(a_file())
    if found is None and (
        is_hidden(things, target) or any((*target[:at], OPAQUE) in things for at in range(len(target)))
    ):
        raise RefusedError
    return member.path, found or Thing(a_file(), lower=target)


def shown_ones(members: Sequence[Drawn]) -> list[Drawn]:
    """Return *members* without those that are skipped with a warning."""
    kept: list[Drawn] = []
    for member in members:
        with suppress(RefusedError):
            in_progress([*kept, member])
            kept.append(member)
    return kept


NAMES = st.sampled_from("abc")
FOLDERS = st.lists(NAMES, max_size=3).map(tuple)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
MARKS = st.tuples(FOLDERS, st.sampled_from([OPAQUE, ".wh.a", ".wh.b", ".wh.c", ".wh..wh.plnk"])).map(
    lambda mark: (*mark[0], mark[1])
)
TEXTS = st.sampled_from(["", "1", "22", "333"])
MEMBERS = st.one_of(
    st.builds(Drawn, st.just("file"), PATHS, TEXTS),
    st.builds(Drawn, st.just("file"), MARKS, st.just("")),
    st.builds(Drawn, st.just("folder"), PATHS, TEXTS),
    st.builds(Drawn, st.just("folder"), st.just(()), TEXTS),
    st.builds(Drawn, st.just("symlink"), PATHS, st.sampled_from(["a", "/b", "../c", "b/c"])),
    st.builds(Drawn, st.just("link"), PATHS | MARKS, PATHS.map("/".join)),
)
LAYERS = st.lists(st.lists(MEMBERS, max_size=8), min_size=1, max_size=5)


def tar(members: Sequence[Drawn]) -> bytes:
    """Return the tar of a layer."""
    return changeset(*(member.data() for member in members))
