"""A sparse file of bytes that another machine has: each is fetched at most once, by one thread for all that wait."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

from fusefs.content import patience
from fusefs.content.claims import Claim, Heir
from fusefs.content.file import OpenFile
from fusefs.content.protocol import Bytes
from fusefs.content.spool import no_space, write_failed
from fusefs.errors import ImgfsError, NoSpace
from fusefs.log import logger
from fusefs.ranges import Range, Ranges

log = logger(__name__)

Take = Callable[[int, Bytes], None]
"""Gets an offset and the bytes there, as they arrive."""
Receive = Callable[[int, int, Take], None]
"""Receives the bytes from the first number up to the second one, or raises an ImgfsError.

A server that ignores ranges sends all bytes instead, from 0 on.
"""


class Copies(Protocol):
    """Bytes that somebody else on this machine has.  Safe under concurrency."""

    def of(self, wanted: Ranges) -> Iterator[tuple[int, Bytes]]:
        """Yield those of the *wanted* bytes that are there, with their offsets, each once.  Raises OSError."""


class Notes(Protocol):
    """Notes of which bytes are in a file.  Safe under concurrency; raises nothing."""

    def add(self, start: int, end: int) -> None:
        """Note that the bytes from *start* up to *end* are there."""

    def remove(self, start: int, end: int) -> None:
        """Note that they are not there any more."""

    def fetching(self, *, everything: bool) -> None:
        """Note whether all missing bytes are being fetched."""


_LEAST = 1 << 17
"""Bytes that a file asks for at least, when it is to have more."""
_SHARE = 8
"""It asks for that fraction of what it has, an eighth, unless all is fetched."""
_PATIENCE = 1.0
"""Seconds after the first error of others in which further ones are passed over."""
_GAP = 1 << 16
"""Missing pieces that are less than so many bytes apart are fetched in one request."""


class FetchFailed(OSError):
    """Bytes cannot be fetched now; the next access tries again."""

    def __init__(self, error: ImgfsError, *, shared: bool = False, until: float | None = None) -> None:
        super().__init__(errno.ENOSPC if isinstance(error, NoSpace) else errno.EIO, str(error))
        self.error = error
        """The reason, for users."""
        self.shared = shared
        """Whether another reader's fetch failed, perhaps one of more bytes or a moment ago."""
        self.until = until
        """When the error of a moment ago is forgotten, by the monotonic clock; None: it is new."""


class Room(NamedTuple):
    """A file for the bytes of a blob, and what to do with it."""

    file: OpenFile
    directory: str
    """Where it lies, for messages."""
    size: int | None = None
    """How many bytes of disk space it may have; None: no limit but the disk."""
    grow: Callable[[int], bool] = lambda _: False
    """Returns whether it may have so many bytes more than it has."""
    keep: Callable[[], None] = lambda: None
    """Stores the file, when it is complete and verified, for the next time."""
    present: Ranges | None = None
    """The bytes that are there already; None: none."""
    notes: Notes | None = None
    """Which bytes are there, for the next time and for others."""
    copies: Copies | None = None
    """Bytes that need not be fetched; they may be wrong, as all others."""


class _Superseded(Exception):
    """Another thread receives everything, since the server ignores ranges."""


class Pieces:
    """The file, and which of its bytes are there.  They are as the other machine sent them: nothing is verified.

    Safe under concurrency.  `_changed` guards `present` and the claims, and is never held during I/O.  A missing byte
    is in at most one claim.  Only the thread of that claim writes it, once, before it becomes present.  So a byte that
    is present does not change, unless it is dropped; none is after `settle`.  A thread that waits waits for a claim,
    whose thread ends it, however its fetch ends; `Receive` ends by its timeouts.  Threads that waited for a claim share
    its error; if that may be about other bytes than theirs, they inherit their own.
    """

    def __init__(self, room: Room, size: int, receive: Receive, *, drops: int = 0) -> None:
        """Store the *size* bytes, which *receive* gets, in the file of *room*; there were *drops* in an earlier one."""
        self.file = room.file
        self.size = size
        self.present = Ranges(room.present.within(0, size) if room.present else ())
        self._room = room
        self._receive = receive
        self._copies = room.copies
        self._limit, self._most = room.size, size
        self._changed = threading.Condition()
        self._claims: list[Claim] = []
        self._ranges_ignored = False
        self.drops = drops
        """How often bytes proved wrong.  After that, no copies are used: the wrong bytes may have been some."""
        self._whole = self._settled = self._final = False
        self._closed = False

    def read(self, offset: int, size: int) -> Bytes:
        """Return bytes, fewer only at the end; fetches those that are missing.  Raises FetchFailed."""
        return self._read(offset, size, None)

    def _read(self, offset: int, size: int, first: Claim | None) -> Bytes:
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        self.ensure(offset, end, first)
        return self._there(offset, end)

    def has(self, start: int, end: int) -> bool:
        """Return whether the bytes from *start* up to *end* are there."""
        with self._changed:
            return self.present.cover(start, end)

    def ensure(self, start: int, end: int, first: Claim | None = None) -> None:
        """Fetch the missing bytes from *start* up to *end*, and wait until all are there.  Raises FetchFailed."""
        with patience.one_read():
            while (claim := self._claim(start, end, first)) is not None:
                self._fetch(claim)

    def in_order(self, step: int) -> Iterator[Bytes]:
        """Yield all bytes in order, *step* at a time, while another thread fetches the missing ones."""
        with self._changed:
            claim = self._new_claim(self._unclaimed(0, self.size))
        try:
            threading.Thread(target=self._fetch_quietly, args=(claim,), daemon=True).start()
        except RuntimeError:  # as many threads as this process may have
            self._fetch(claim)
        for offset in range(0, self.size, step):
            yield self._read(offset, step, claim)

    def settle(self, verify: Callable[[Iterator[Bytes]], None], step: int, *, final: bool) -> bool:
        """Let *verify* look at all bytes in order, *step* at a time; after that, no byte changes any more.

        Returns False if some were dropped meanwhile: they may be others than *verify* has seen.  *final*: none can be
        dropped meanwhile, so that the result does not depend on readers, who may compare wrong digests.
        """
        with self._changed:
            drops, self._final, self._whole = self.drops, final, True
        notes = self._room.notes
        if notes is not None:
            notes.fetching(everything=True)
        try:
            verify(self.in_order(step))
            with self._changed:
                self._settled = self.drops == drops
                return self._settled
        finally:
            self._final = self._whole = False
            if notes is not None and not self._settled:
                notes.fetching(everything=False)

    def keep(self) -> None:
        """Store the file for the next time: all bytes are there, and `settle` has returned True."""
        self._room.keep()

    def wait(self, start: int, end: int, stopped: Callable[[], bool]) -> Bytes | None:
        """Return the bytes once others have fetched them, None if *stopped* before; `wake` wakes this thread."""
        with self._changed:
            self._changed.wait_for(lambda: stopped() or self.present.cover(start, end))
            if not self.present.cover(start, end):
                return None
        return self._there(start, end)

    def wake(self) -> None:
        """Let the threads in `wait` ask whether they are stopped."""
        with self._changed:
            self._changed.notify_all()

    def drop(self, start: int, end: int) -> None:
        """Forget the bytes from *start* up to *end*, which proved wrong; who reads them next fetches them.

        Not if they are settled, or about to be: then they were wrong before, or all will be dropped.
        """
        with self._changed:
            if self._settled or self._final:
                return
            self.drops += 1
            self.present.remove(start, end)
        if self._room.notes is not None:
            self._room.notes.remove(start, end)

    def close(self) -> None:
        """Close the file, after the last fetch that writes to it."""
        with self._changed:
            self._closed = True
            idle = not self._claims
        if idle:
            self.file.close()

    def _there(self, start: int, end: int) -> Bytes:
        data = self.file.read_at(start, end - start)
        if len(data) < end - start:
            raise OSError(errno.EIO, f"{self.file.name} ends before offset {end}")
        return data

    def _claim(self, start: int, end: int, first: Claim | None) -> Claim | None:
        """Return a new claim of missing bytes that are in no claim; None if there are none.

        Before it returns None, it waits for the bytes of the claims of others.  If the claim *first* fails, its error
        is raised instead.
        """
        began = None
        with self._changed:
            while not self.present.cover(start, end):
                if self._closed:
                    raise OSError(errno.EBADF, f"{self.file.name} is closed")
                if first is not None and first.error is not None:
                    raise FetchFailed(first.error)
                if free := self._unclaimed(start, end):
                    return self._new_claim(self._unclaimed(0, self.size) if self._ranges_ignored else free)
                another, inherited = self._wait_for_another(start, end, first)
                if inherited is not None:
                    return inherited
                if another.error is not None and not self.present.cover(start, end):
                    is_late = began is not None and time.monotonic() > began + _PATIENCE
                    if another is first or another.fails(start, end) or is_late:
                        raise FetchFailed(another.error, shared=another is not first)
                    began = began or time.monotonic()
        return None

    def _new_claim(self, missing: Ranges) -> Claim:
        claim = Claim(missing)
        self._claims.append(claim)
        return claim

    def _wait_for_another(self, start: int, end: int, first: Claim | None) -> tuple[Claim, Claim | None]:
        """Wait until the bytes are there, or a claim that has some of them ends.

        Returns that claim, and one for this thread if that failed and is not *first*: else whoever is quicker than this
        thread might claim the same again, and again.
        """
        claim = next(each for each in self._claims if next(each.missing.within(start, end), None))
        heir = Heir((start, end))
        if claim is not first:
            claim.heirs.append(heir)
        try:
            self._changed.wait_for(lambda: claim.ended or self.present.cover(start, end))
        except BaseException:  # a signal in the main thread
            if heir.claim is not None:
                self._claims.remove(heir.claim)
                heir.claim.ended = True
            raise
        finally:
            if claim is not first:
                claim.heirs.remove(heir)
        patience.progressed(claim.since)
        return claim, heir.claim

    def _unclaimed(self, start: int, end: int) -> Ranges:
        free = Ranges(self.present.missing(start, end))
        for claim in self._claims:
            for first, last in claim.missing.within(start, end):
                free.remove(first, last)
        return free

    def _fetch(self, claim: Claim) -> None:
        """Fetch the bytes of *claim* and end it.  Raises FetchFailed."""
        try:
            with patience.one_read():
                self._fetch_missing(claim)
        except _Superseded:
            pass
        except ImgfsError as error:
            if not claim.begun and not claim.missing:  # another thread receives everything
                return
            claim.error = error.with_traceback(None)
            raise FetchFailed(error) from None
        finally:
            self._end(claim)

    def _fetch_missing(self, claim: Claim) -> None:
        try:
            self._copy(claim)
            for start, end in _merged(claim.missing):
                if not claim.whole:
                    claim.asked = start, end
                    self._receive(start, end, partial(self._take, claim, (start, end)))
        finally:
            claim.since = patience.since()

    def _copy(self, claim: Claim) -> None:
        """Store the bytes of *claim* that somebody else has, unless any bytes proved wrong before.  Raises NoSpace."""
        copies = self._copies
        if copies is None or self.drops:
            return
        with self._changed:
            wanted = Ranges(claim.missing)
        try:
            for offset, data in copies.of(wanted):
                self._take(claim, (offset, offset + len(data)), offset, data)
        except OSError as error:
            log.warning("%s: the copies of others cannot be used: %s", self.file.name, error.strerror)
            self._copies = None
        with self._changed:
            claim.begun = False  # nothing is written at the moment

    def _end(self, claim: Claim) -> None:
        with self._changed:
            self._claims.remove(claim)
            claim.ended = True
            for heir in claim.heirs if claim.error is not None else ():
                if not claim.fails(*heir.wanted) and (free := self._unclaimed(*heir.wanted)):
                    heir.claim = self._new_claim(free)
            close = self._closed and not self._claims
            self._changed.notify_all()
        if close:
            self.file.close()

    def _fetch_quietly(self, claim: Claim) -> None:
        with suppress(FetchFailed):  # `in_order` raises it
            self._fetch(claim)

    def _take(self, claim: Claim, asked: Range, offset: int, data: Bytes) -> None:
        """Store those of the bytes *data* that are in *claim*; the server was *asked* for a range."""
        end = offset + len(data)
        patience.progressed(time.monotonic())
        with self._changed:
            if not claim.begun and not claim.missing:  # another thread takes them
                raise _Superseded
            claim.begun = True
            knew = self._ranges_ignored
            if not claim.whole and (offset < asked[0] or end > asked[1]):
                self._take_everything(claim)
            knows = self._ranges_ignored
            parts = [*claim.missing.within(offset, end)]
        if knows and not knew:
            log.info("%s is fetched whole: the server ignores ranges", self.file.name)
        self._grow(sum(last - first for first, last in parts))
        for first, last in parts:
            self._write(memoryview(data)[first - offset : last - offset], first)
        with self._changed:
            for first, last in parts:
                claim.missing.remove(first, last)
                self.present.add(first, last)
            drops = self.drops
            self._changed.notify_all()
        if self._room.notes is not None:
            self._note(self._room.notes, parts, drops)

    def _note(self, notes: Notes, parts: Iterable[Range], drops: int) -> None:
        """Note that *parts* are there, except what was dropped meanwhile: there were so many *drops* before."""
        for part in parts:
            notes.add(*part)
        if self.drops != drops:
            with self._changed:
                gone = [each for part in parts for each in self.present.missing(*part)]
            for each in gone:
                notes.remove(*each)

    @property
    def is_limited(self) -> bool:
        """Whether the file may not be as large as the disk allows."""
        return self._limit is not None

    def _grow(self, more: int) -> None:
        """Make sure that *more* bytes may be stored than are now.  Raises NoSpace.

        What grows piece by piece asks for a fraction of what it has.  So it does not ask often, and does not keep much
        from others that it never uses.  Once that is refused, it asks for less and less.
        """
        if self._limit is None:
            return
        stored = os.fstat(self.file.descriptor).st_blocks * 512
        if stored + more <= self._limit or self.size <= self._limit:  # what is fetched again needs no more room
            return
        with self._changed:
            rest = self.size - self.present.total
        least = max(more, min(rest, _LEAST))
        ask = rest if self._whole else max(least, min(rest, stored // _SHARE, self._most))
        while not self._room.grow(ask):
            if self._whole or ask == least:
                raise no_space(self.file.name, self._room.directory, self.size, self._limit)
            ask = self._most = max(least, ask // 2)
        self._limit = stored + ask

    def _take_everything(self, claim: Claim) -> None:
        """Extend *claim* to all bytes that nobody fetches; give it up if another thread receives everything."""
        self._ranges_ignored = claim.whole = True
        other = next((each for each in self._claims if each.whole and each is not claim), None)
        taker = claim if other is None else other
        for each in () if other else self._claims:
            if not each.begun:  # it would receive everything once more, and writes nothing yet
                each.missing = Ranges()
        for first, last in claim.missing if other else self._unclaimed(0, self.size):
            taker.missing.add(first, last)
        if other is not None:
            claim.missing = Ranges()
            raise _Superseded

    def _write(self, data: memoryview, offset: int) -> None:
        try:
            while data:
                count = os.pwrite(self.file.descriptor, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            raise write_failed(self.file.name, self._room.directory, self.size, self.present.total, error) from None


def _merged(missing: Ranges) -> list[Range]:
    """Return the ranges to ask for: bytes that are there between two close ones are fetched again."""
    merged: list[Range] = []
    for start, end in missing:
        if merged and start - merged[-1][1] < _GAP:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((start, end))
    return merged
