"""Trees that are known from the start, and directories whose tree is made at the first look."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fusefs.content.protocol import Literal
from fusefs.errors import InvalidImage, NoSpace
from fusefs.tree.node import Attributes, Directory, KnownTree, LazyDirectory, RegularFile, Tree

ATTRIBUTES = Attributes(0o555, 0, 0, 0)
FILE = RegularFile(ATTRIBUTES, Literal(b"x"))
TREE = KnownTree(Directory(ATTRIBUTES, {b"tar": FILE}))
_TIMEOUT = 20


class Making:
    """Makes a tree, or raises one error after the other; remembers how often it was asked."""

    def __init__(self, *errors: Exception) -> None:
        self.times = 0
        self._errors = list(errors)

    def __call__(self) -> Tree:
        self.times += 1
        if self._errors:
            raise self._errors.pop(0)
        return TREE


def test_nothing_is_made_before_the_first_look_and_once_for_all() -> None:
    making = Making()
    directory = LazyDirectory(ATTRIBUTES, making)
    assert making.times == 0
    assert [directory.fill() for _ in range(3)] == [TREE] * 3
    assert making.times == 1


def test_many_threads_wait_for_one_that_works() -> None:
    begun, go_on, waiting = threading.Event(), threading.Event(), threading.Barrier(20)
    making = Making()

    def make() -> Tree:
        begun.set()
        assert go_on.wait(_TIMEOUT)
        return making()

    directory = LazyDirectory(ATTRIBUTES, make)

    def look() -> Tree:
        waiting.wait(_TIMEOUT)
        return directory.fill()

    with ThreadPoolExecutor(20) as pool:
        looks = [pool.submit(look) for _ in range(20)]
        assert begun.wait(_TIMEOUT)
        assert not any(one.done() for one in looks)
        go_on.set()
        assert [one.result(_TIMEOUT) for one in looks] == [TREE] * 20
    assert making.times == 1


def test_what_is_wrong_with_the_image_stays_wrong() -> None:
    error = InvalidImage("damaged")
    making = Making(error)
    directory = LazyDirectory(ATTRIBUTES, making)
    for _ in range(3):
        with pytest.raises(InvalidImage) as caught:
            directory.fill()
        assert caught.value is error
    assert making.times == 1


def test_a_failure_that_is_raised_again_does_not_grow() -> None:
    # Each raise of one exception object adds to its traceback: thousands of looks must not fill the memory.
    directory = LazyDirectory(ATTRIBUTES, Making(InvalidImage("damaged")))
    lengths = []
    for _ in range(50):
        with pytest.raises(InvalidImage) as caught:
            directory.fill()
        length, traceback = 0, caught.value.__traceback__
        while traceback is not None:
            length, traceback = length + 1, traceback.tb_next
        lengths.append(length)
    assert max(lengths[1:]) == lengths[1]


@pytest.mark.parametrize("error", [NoSpace("full"), OSError("cable"), ZeroDivisionError()])
def test_after_want_of_space_or_an_error_of_the_system_the_next_look_tries_anew(error: Exception) -> None:
    making = Making(error)
    directory = LazyDirectory(ATTRIBUTES, making)
    with pytest.raises(type(error)) as caught:
        directory.fill()
    assert caught.value is error
    assert directory.fill() is TREE
    assert making.times == 2


def test_a_directory_has_the_attributes_that_it_was_given_and_says_whether_they_stay() -> None:
    directory = LazyDirectory(ATTRIBUTES, lambda: TREE)
    assert (directory.attributes, directory.settled) == (ATTRIBUTES, True)
    assert not LazyDirectory(ATTRIBUTES, lambda: TREE, settled=False).settled


def test_the_numbers_of_a_known_tree_go_breadth_first() -> None:
    inner, empty = Directory(ATTRIBUTES, {b"x": FILE}), Directory(ATTRIBUTES)
    root = Directory(ATTRIBUTES, {b"b": inner, b"a": FILE, b"c": empty})
    tree = KnownTree(root)
    assert [tree.node(number) for number in range(len(tree))] == [root, inner, FILE, empty, FILE]
    assert [tree.parent(number) for number in range(len(tree))] == [0, 0, 0, 0, 1]
    assert [tree.listing(number) for number in range(len(tree))] == [
        [(b"b", 1), (b"a", 2), (b"c", 3)],
        [(b"x", 4)],
        [],
        [],
        [],
    ]
    assert [tree.find(*asked) for asked in [(0, b"a"), (1, b"x"), (1, b"a"), (2, b"a")]] == [2, 4, None, None]
    assert [list(tree.xattrs(number)) for number in range(len(tree))] == [[]] * 5


def test_a_very_deep_tree_is_no_trouble() -> None:
    nested = Directory(ATTRIBUTES, {b"file": FILE})
    for _ in range(5000):
        nested = Directory(ATTRIBUTES, {b"down": nested})
    tree = KnownTree(nested)
    assert len(tree) == 5002
    assert [tree.parent(number) for number in range(1, 5002)] == list(range(5001))


def test_what_is_not_listed_can_be_found() -> None:
    tree = KnownTree(Directory(ATTRIBUTES, {b"a": FILE}, {b"z": FILE}))
    assert tree.listing(0) == [(b"a", 1)]
    assert tree.find(0, b"z") == 2
