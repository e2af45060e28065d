"""Sizes by directory: the sums are right, and the number of entries has a limit."""

from fusefs.report.sizes import Entry, SizeTree


def filled(most: int, files: dict[bytes, int]) -> list[Entry]:
    """Return the entries of *files*, by path; of directory after directory."""
    tree = SizeTree(most)
    for path, size in files.items():
        *above, name = path.split(b"/")
        tree.add(tree.folder(above), name, size, len(above))
    return tree.entries()


def test_directories_have_the_sums_of_what_is_in_them() -> None:
    assert filled(10, {b"a": 1, b"d/x": 5, b"d/e/y": 7, b"d/z": 6}) == [
        Entry(-1, b"", 19, 4, 1, is_directory=True, rest=(0, 0)),
        Entry(0, b"a", 1, 1, 0, is_directory=False, rest=(0, 0)),
        Entry(0, b"d", 18, 3, 1, is_directory=True, rest=(0, 0)),
        Entry(2, b"z", 6, 1, 1, is_directory=False, rest=(0, 0)),
        Entry(2, b"x", 5, 1, 1, is_directory=False, rest=(0, 0)),
        Entry(2, b"e", 7, 1, 2, is_directory=True, rest=(0, 0)),
        Entry(5, b"y", 7, 1, 2, is_directory=False, rest=(0, 0)),
    ]


def test_small_files_are_summed_up() -> None:
    found = filled(2, {b"a": 1, b"d/x": 5, b"d/e/y": 2, b"d/z": 6, b"f/g": 1})
    assert found == [
        Entry(-1, b"", 15, 5, 1, is_directory=True, rest=(2, 2)),
        Entry(0, b"d", 13, 3, 1, is_directory=True, rest=(2, 1)),
        Entry(1, b"z", 6, 1, 1, is_directory=False, rest=(0, 0)),
        Entry(1, b"x", 5, 1, 1, is_directory=False, rest=(0, 0)),
    ]


def test_many_files_and_directories_have_few_entries() -> None:
    many = {b"%d/%d" % (number % 997, number): number % 1000 for number in range(8000)}
    found = filled(500, many)
    assert len(found) <= 1500
    assert (found[0].size, found[0].files) == (sum(many.values()), len(many))
    same = filled(500, dict.fromkeys(many, 7))  # none is larger than the others
    assert (len(same) <= 1500, same[0].size, same[0].files) == (True, 56_000, 8000)
    deep = filled(500, {b"/".join([b"%d" % number] * 30): number for number in range(1200)})
    assert (len(deep) <= 1000, deep[0].size) == (True, sum(range(1200)))


def test_a_directory_of_many_files_of_one_size_has_all_of_them() -> None:
    tree = SizeTree(80)
    folder = tree.folder([b"d", b"e"])
    for number in range(400):
        tree.add(folder, b"%d" % number, 4096, 0)
    root, above, many, *files = tree.entries()
    assert [(one.size, one.files) for one in (root, above, many)] == [(400 * 4096, 400)] * 3
    assert (len(files), many.rest) == (80, (320 * 4096, 320))


def test_files_in_a_directory_without_a_large_one_are_counted() -> None:
    tree = SizeTree(80)
    for number in range(80):
        tree.add(tree.folder([b"large"]), b"%d" % number, 1000, 0)
    folder = tree.folder([b"small"])
    for number in range(1000):
        tree.add(folder, b"%d" % number, 1, 1)
    root, large, *files = tree.entries()
    assert (root.size, root.files, root.rest) == (81_000, 1080, (1000, 1000))
    assert (large.size, large.files, len(files)) == (80_000, 80, 80)


def test_a_deep_path_counts_for_a_directory_above() -> None:
    found = filled(500, {b"d/" * 5000 + b"x": 3, b"d/" * 4000 + b"y": 4})
    assert (len(found), found[0].size, found[0].files) == (43, 7, 2)
    assert {entry.parent for entry in found[-2:]} == {40}
