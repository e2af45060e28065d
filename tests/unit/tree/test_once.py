"""A value that is made once, whoever asks."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fusefs.errors import InvalidImage, NoSpace
from fusefs.tree.once import Once
from tests.support.processes import until

READERS = 8


class Lock:
    """A lock that counts those who want it."""

    def __init__(self) -> None:
        self.wanted = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.wanted += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("error", [OSError(5, "silent"), NoSpace("full"), InvalidImage("damaged")])
def test_who_waits_shares_an_error_and_that_of_an_image_stays(error: Exception) -> None:
    made, go = list[int](), threading.Event()

    def make() -> str:
        made.append(1)
        go.wait()
        if len(made) == 1:
            raise error
        return "value"

    once: Once[str] = Once(make)
    once._lock = lock = Lock()  # type: ignore[assignment]
    with ThreadPoolExecutor(READERS) as threads:
        reads = [threads.submit(once.get) for _ in range(READERS)]
        until(lambda: lock.wanted == READERS, "all wait")
        go.set()
        for read in reads:
            with pytest.raises(type(error)):
                read.result(10)
    assert made == [1]
    if isinstance(error, InvalidImage):
        with pytest.raises(InvalidImage):
            once.get()
    else:
        assert once.get() == once.get() == "value"
        assert made == [1, 1]
        assert once._passing is None  # its traceback refers to much
