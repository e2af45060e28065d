"""Layers that hypothesis draws, and a model that unpacks one into a dictionary."""

from collections.abc import Sequence
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
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return self.lower is None and self.seen.type == A_FOLDER.type


Things = dict[Path, Thing]


def removed(things: Things, path: Path) -> None:
    """Remove *path* and all below it."""
    for there in [there for there in things if there[: len(path)] == path]:
        del things[there]


def unpacked(members: Sequence[Drawn]) -> Things:
    """Return what one layer has, whiteouts as files."""
    things: Things = {(): Thing(IMPLICIT, implicit=True)}
    for member in members:
        path = member.path
        thing = made(things, member)
        if thing is None:
            continue
        for depth in range(1, len(path)):
            if path[:depth] not in things or not things[path[:depth]].is_folder:
                things[path[:depth]] = Thing(IMPLICIT, implicit=True)
        if not (thing.is_folder and path in things and things[path].is_folder):
            removed(things, path)
        things[path] = thing
    for thing in things.values():
        if not thing.is_folder:
            thing.seen = thing.seen._replace(nlink=sum(one is thing for one in things.values()))
    return things


def made(things: Things, member: Drawn) -> Thing | None:
    """Return what a *member* is after those that made *things*, None if it is skipped."""
    match member.kind:
        case "folder":
            return Thing(A_FOLDER._replace(uid=len(member.other)))
        case "file":
            return Thing(a_file(member.other.encode()))
        case "symlink":
            return Thing(a_symlink(member.other.encode()))
    path = tuple(member.other.split("/"))
    target = things.get(path, Thing(a_file(), lower=path))
    return None if target.is_folder else target


def shown_ones(members: Sequence[Drawn]) -> list[Drawn]:
    """Return *members* without those that are skipped with a warning: hard links to directories of their own layer."""
    kept: list[Drawn] = []
    for member in members:
        if made(unpacked(kept), member) is not None:
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
