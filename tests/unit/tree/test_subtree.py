"""One directory of a tree as a tree of its own."""

from fusefs.content.protocol import Literal
from fusefs.tree.node import Attributes, Directory, KnownTree, RegularFile
from fusefs.tree.subtree import Subtree
from fusefs.tree.walk import ROOT, walk

ATTRIBUTES = Attributes(0o755, 0, 0, 0)
OWN = Attributes(0o700, 1, 2, 3)
FILE = RegularFile(ATTRIBUTES, Literal(b"x"), ((b"user.a", b"file"),))


def test_it_shows_what_is_below_the_directory_and_no_more() -> None:
    top = Directory(OWN, {b"deep": Directory(ATTRIBUTES, {b"f": FILE}), b"f": FILE}, xattrs=((b"user.a", b"old"),))
    whole = KnownTree(Directory(ATTRIBUTES, {b"other": FILE, b"top": top}))
    number = whole.find(0, b"top")
    assert number is not None
    tree = Subtree(whole, number, ((b"user.a", b"new"), (b"user.b", b"more")))
    paths = {entry.path: tree.stat(entry.number) for _, entries in walk(tree, ROOT) for entry in entries}
    alone = KnownTree(top)
    assert paths == {entry.path: alone.stat(entry.number) for _, entries in walk(alone, ROOT) for entry in entries}
    assert tree.stat(0) == alone.stat(0)
    assert dict(tree.xattrs(0)) == {b"user.a": b"new", b"user.b": b"more"}
    assert tree.find(0, b"other") is None
    deep = tree.find(0, b"deep")
    assert deep is not None
    assert (tree.parent(deep), tree.parent(0)) == (0, 0)
    inner = tree.find(deep, b"f")
    assert inner is not None
    assert (tree.node(inner), dict(tree.xattrs(inner))) == (FILE, {b"user.a": b"file"})
    assert [name for name, _, _ in tree.entries(0)] == [b"deep", b"f"]
    assert tree.size(0) == 2
