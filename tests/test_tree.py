"""Directories whose entries are made at the first look."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from fusefs.content import Literal
from fusefs.errors import InvalidImage, NoSpace
from fusefs.tree import Attributes, LazyDirectory, Node, RegularFile

ATTRIBUTES = Attributes(0o555, 0, 0, 0)
ENTRIES: dict[bytes, Node] = {b"tar": RegularFile(ATTRIBUTES, Literal(b"x"))}
_TIMEOUT = 20


class Making:
    """Makes entries, or raises one error after the other; remembers how often it was asked."""

    def __init__(self, *errors: Exception) -> None:
        self.times = 0
        self._errors = list(errors)

    def __call__(self) -> Mapping[bytes, Node]:
        self.times += 1
        if self._errors:
            raise self._errors.pop(0)
        return ENTRIES


def test_nothing_is_made_before_the_first_look_and_once_for_all() -> None:
    making = Making()
    directory = LazyDirectory(ATTRIBUTES, making)
    assert making.times == 0
    assert [directory.fill() for _ in range(3)] == [ENTRIES] * 3
    assert making.times == 1


def test_many_threads_wait_for_one_that_works() -> None:
    begun, go_on, waiting = threading.Event(), threading.Event(), threading.Barrier(20)
    making = Making()

    def make() -> Mapping[bytes, Node]:
        begun.set()
        assert go_on.wait(_TIMEOUT)
        return making()

    directory = LazyDirectory(ATTRIBUTES, make)

    def look() -> Mapping[bytes, Node]:
        waiting.wait(_TIMEOUT)
        return directory.fill()

    with ThreadPoolExecutor(20) as pool:
        looks = [pool.submit(look) for _ in range(20)]
        assert begun.wait(_TIMEOUT)
        assert not any(one.done() for one in looks)
        go_on.set()
        assert [one.result(_TIMEOUT) for one in looks] == [ENTRIES] * 20
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
    assert directory.fill() == ENTRIES
    assert making.times == 2


def test_a_directory_may_turn_out_to_be_empty() -> None:
    calls = []
    directory = LazyDirectory(ATTRIBUTES, lambda: calls.append(1) or {})  # type: ignore[func-returns-value]
    assert [directory.fill(), directory.fill()] == [{}, {}]
    assert calls == [1]
