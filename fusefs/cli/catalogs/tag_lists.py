"""The lists of tags that one listing of a directory needs, asked for several at a time."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from fusefs.sources.registry.known import Key, KnownRegistry

_AT_ONCE = 4
"""Lists that are asked for at the same time."""
_FAILURES = 3
"""Lists that may fail before the others are not asked for."""
_MAX_SECONDS = 60.0
"""Seconds after which no further lists are asked for."""
_SOON, _LATER = 1.0, 60.0
"""Seconds after which lists are asked for that were not; later, if there was no room for them."""


class TagLists:
    """The lists that are not asked for yet, the oldest first.  Safe under concurrency."""

    def __init__(self, known: KnownRegistry, keys: Iterable[Key], ask: Callable[[Key], None]) -> None:
        """Ask for *keys* with *ask*, unless somebody else does meanwhile."""
        self._known = known
        self._ask = ask
        self._waiting = deque(sorted(keys, key=known.told_at))
        self._failures: list[str] = []
        self._without_room: list[Key] = []
        self._is_full = False
        self._deadline = time.monotonic() + _MAX_SECONDS

    def ask(self) -> None:
        """Ask for them, until all are known, three have failed or it takes too long."""
        threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(min(len(self._waiting), _AT_ONCE) - 1)
        ]
        started = []
        for thread in threads:
            try:
                thread.start()
            except RuntimeError:  # as many as this user may have: then slower
                break
            started.append(thread)
        self._work()
        for thread in started:
            thread.join()

    def left(self) -> Iterator[tuple[Sequence[Key], float, str]]:
        """Yield the lists that were not asked for, after how many seconds they may be, and why."""
        if self._without_room:
            yield self._without_room, _LATER, self._known.too_many
        if self._waiting:
            slow = f"the lists of tags take more than {_MAX_SECONDS:g} s; {len(self._waiting)} are missing or old"
            yield [*self._waiting], _SOON, self._failures[-1] if len(self._failures) >= _FAILURES else slow

    def _work(self) -> None:
        while len(self._failures) < _FAILURES and time.monotonic() < self._deadline:
            try:
                key = self._waiting.popleft()
            except IndexError:
                return
            if self._known.is_answered(key):  # since somebody else has asked
                continue
            before = self._known.answer(key)
            if self._is_full and not (before and before.known):  # a known one may have as much room as before
                self._without_room.append(key)
                continue
            self._ask(key)
            answer = self._known.answer(key)
            if answer is not None and answer.failure == self._known.too_many:
                self._is_full = True
            elif answer is not None and answer.failure:
                self._failures.append(answer.failure)
