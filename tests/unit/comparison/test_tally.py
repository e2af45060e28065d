"""How many files differ, and where."""

from fusefs.comparison.tally import Counts, Tally
from fusefs.layers.diff import compare
from tests.support.changesets import all_indexed, changeset, file, folder, hard_link, symlink
from tests.support.trees import side

OLD = [changeset(file("a/b/c/d", b"12345"), file("a/x", b"1"), file("gone", b"123"), symlink("a/link", "1"))]
NEW = [
    changeset(
        file("a/b/c/d", b"123"), file("a/x", b"2"), symlink("a/link", "12345"), folder("new"), file("new/f", b"1" * 50),
        hard_link("new/again", "new/f"),
    )
]  # fmt: skip


def _tally(depth: int | None) -> Tally:
    with all_indexed(OLD) as olds, all_indexed(NEW) as news:
        tally = Tally(depth)
        for difference in compare(side(olds, OLD), side(news, NEW)):
            tally.add(difference)
        return tally


def test_a_file_with_two_names_counts_once_and_a_link_has_no_bytes() -> None:
    assert _tally(None).total == Counts(added=3, removed=1, changed=3, size=50 - 2 - 3)
    assert _tally(None).total.paths == 7
    assert _tally(None).directories == []


def test_deeper_directories_count_for_those_above() -> None:
    assert _tally(0).directories == [((), Counts(3, 1, 3, 45))]
    assert _tally(1).directories == [
        ((), Counts(1, 1, 0, -3)),
        ((b"a",), Counts(0, 0, 3, -2)),
        ((b"new",), Counts(2, 0, 0, 50)),
    ]
    assert [path for path, _ in _tally(9).directories] == [(), (b"a",), (b"a", b"b", b"c"), (b"new",)]
