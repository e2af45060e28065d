"""What imgfs shows of a stack of layers, and how it stands among what other programs unpack.

Peers disagree about many forms.  Where all of them agree, imgfs has to agree; elsewhere with one of them, path by
path.  A refusal is a vote: imgfs has it if it refuses the layer or warns that it left members out.
"""

import hashlib
import logging
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from fusefs.errors import ImgfsError
from fusefs.layers.rootfs import RootfsTree
from tests.peers.unpackers import Refused
from tests.peers.whole_trees import FileState, Tree
from tests.support.builders import CREATED_NS
from tests.support.changesets import Seen, everything, indexed, same_file

Outcome = Tree | Refused
Outcomes = Mapping[str, Outcome]
"""What each peer makes of a stack."""


class Ours(NamedTuple):
    """What imgfs makes of a stack."""

    outcome: Outcome
    warned: bool
    """Whether it said that it left something out."""


class _Heard(logging.Handler):
    """Remembers whether something was logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.any = False

    def emit(self, record: logging.LogRecord) -> None:
        del record
        self.any = True


@contextmanager
def _listening() -> Iterator[_Heard]:
    heard, log = _Heard(), logging.getLogger("fusefs")
    before, log.propagate = log.propagate, False
    log.addHandler(heard)
    try:
        yield heard
    finally:
        log.removeHandler(heard)
        log.propagate = before


def shown(layers: Sequence[bytes]) -> Ours:
    """Return what imgfs shows of *layers* as ``rootfs``, without a mount."""
    with ExitStack() as stack, _listening() as heard:
        try:
            every = [stack.enter_context(indexed(data)) for data in layers]
        except ImgfsError as error:
            return Ours(Refused(str(error)), warned=True)
        tree = RootfsTree([layer.files for layer in every], transform_symlinks=False)
        entries = {path or b".": _entry(seen) for path, seen in everything(tree).items()}
        warned = heard.any or any(layer.warning for layer in every)
        return Ours(Tree(entries, same_file(tree)), warned)


def _entry(seen: Seen) -> FileState:
    regular = seen.type == stat.S_IFREG
    xattrs = tuple((name.decode(), value) for name, value in seen.xattrs)
    sha256 = hashlib.sha256(seen.content).hexdigest() if regular else ""
    return FileState(
        seen.type, seen.mode, seen.uid, seen.gid, seen.size, seen.mtime_ns, seen.target, seen.rdev, xattrs, sha256
    )


class Compared(NamedTuple):
    """What is compared of a file."""

    file: str
    """Type, target, digest."""
    names: tuple[bytes, ...]
    """All its names, if it has several."""
    attributes: str
    """Mode, owner and extended attributes."""
    mtime_ns: int | None
    """None for a directory that no member lists: peers take the time of unpacking, imgfs the image's."""

    @property
    def is_link(self) -> bool:
        """Whether this is a symbolic link."""
        return self.file.startswith(_TYPES[stat.S_IFLNK])


Files = Mapping[bytes, Compared]
"""Files by path."""

_TYPES = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link to", stat.S_IFIFO: "fifo"}


def compared(tree: Tree) -> Files:
    """Return what is compared of a tree: all but its root, of which engines know nothing."""
    names = {path: tuple(sorted(group)) for group in tree.same for path in group}
    found: dict[bytes, Compared] = {}
    for path, entry in tree.entries.items():
        unknown = entry.type == stat.S_IFDIR and entry.mtime_ns >= CREATED_NS
        file = " ".join(filter(None, (_TYPES[entry.type], str(entry.target or ""), entry.sha256[:8])))
        attributes = f"{entry.mode:o} {entry.uid}:{entry.gid} {dict(entry.xattrs)}"
        found[path] = Compared(file, names.get(path, ()), attributes, None if unknown else entry.mtime_ns)
    del found[b"."]
    return found


class Verdict(NamedTuple):
    """How imgfs stands among the peers."""

    kind: str
    """``all agree``, ``as PEER``, ``mixed`` (as one peer here, another there), ``refused``; the rest are faults."""
    strange: Mapping[bytes, str] = {}
    """What imgfs shows and no peer does, by path."""

    @property
    def is_fault(self) -> bool:
        """Whether imgfs shows what no peer has, or shows without a warning what all peers refuse."""
        return self.kind in ("unexplained", "silent")


def judge(theirs: Outcomes, ours: Ours) -> Verdict:
    """Compare what imgfs shows with what the peers make of the same stack."""
    trees = {name: compared(outcome) for name, outcome in theirs.items() if isinstance(outcome, Tree)}
    strange: dict[bytes, str] = {}
    if isinstance(ours.outcome, Tree) and trees:
        mine = compared(ours.outcome)
        same = [name for name, tree in trees.items() if tree == mine]
        if same:
            return Verdict("all agree" if len(same) == len(theirs) else f"as {same[0]}")
        strange = dict(_strange(mine, trees, all_take=len(trees) == len(theirs)))
        if not strange:
            return Verdict("mixed")
    if len(trees) < len(theirs) and ours.warned:
        return Verdict("refused")
    return Verdict("unexplained" if trees else "silent", strange)


def _strange(mine: Files, trees: Mapping[str, Files], *, all_take: bool) -> Iterator[tuple[bytes, str]]:
    """Yield what imgfs shows and no peer does; attributes count only where a peer has the same file.

    Peers have rules of their own for the attributes of implicit directories and of names of one file.  These count only
    if all peers take the stack: one that refuses it for something else may be the one that imgfs follows.
    """
    for path in sorted(mine.keys() | {path for tree in trees.values() for path in tree}):
        own, theirs = mine.get(path), {name: tree.get(path) for name, tree in trees.items()}
        same = [other for other in theirs.values() if other and own and other[:2] == own[:2]]
        if own is None and None in theirs.values():
            continue
        if own is None or not same:
            files = {name: other and _named(other) for name, other in theirs.items()}
            yield path, f"{_named(own) if own else 'absent'}; peers: {_grouped(files)}"
        elif not all_take and (own.names or own.is_link or None in (own.mtime_ns, *(other.mtime_ns for other in same))):
            continue
        elif all(other.attributes != own.attributes for other in same):
            attributes = {name: other and other.attributes for name, other in theirs.items()}
            yield path, f"attributes {own.attributes}; peers: {_grouped(attributes)}"
        elif all(other.mtime_ns not in (None, own.mtime_ns) for other in same):
            times = {name: other and other.mtime_ns for name, other in theirs.items()}
            yield path, f"mtime {own.mtime_ns}; peers: {_grouped(times)}"


def _named(file: Compared) -> str:
    return f"{file.file}, named {', '.join(map(str, file.names))}" if file.names else file.file


def _grouped(values: Mapping[str, object]) -> str:
    """Return the values, each with who has it."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(str(value or "absent"), []).append(name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in groups.items())
