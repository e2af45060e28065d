"""A blob that another machine has: a sparse local file that fills, and is shown when it is complete and verified.

For readers that verify what they read by digests of their own, `RemoteBlob.unverified_range` fetches no more than they
ask for; if those digests differ, `RemoteBlob.drop_range` forgets the bytes.  `RemoteBlob.unverified_chunks` is for one
pass over all bytes while they arrive, whose result counts only after its end.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Protocol

from fusefs.content.file import Extent, OpenFile
from fusefs.content.pieces import FetchFailed, Pieces, Room, Take
from fusefs.content.protocol import Buffer, Bytes, Content, FilePlace, Slice, chunks
from fusefs.content.recent import RecentErrors
from fusefs.errors import DigestMismatch, ImgfsError, NoSpace
from fusefs.log import logger
from fusefs.ranges import Ranges

log = logger(__name__)

_STEP = 1 << 20
"""Bytes that are hashed at once."""
_LAST_STEP = 1 << 17
_TRIES = 3
"""How often a blob is hashed while readers drop pieces of it; the last time, these stay."""
_POLL = 0.01
"""Seconds between two looks for the file of a fetch that begins."""


def _steps(size: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of steps through *size* bytes, small ones at the end: little is left to do when all are here."""
    offset = 0
    while offset < size:
        end = min(size, offset + (_STEP if size - offset > _STEP else _LAST_STEP))
        yield offset, end
        offset = end


class Supply(Protocol):
    """Where the bytes of a blob come from, and where they are stored.  Safe under concurrency."""

    def stored(self) -> OpenFile | None:
        """Return the file of all bytes, verified, if it is here already."""

    def awaited(self) -> OpenFile | None:
        """Wait while another process receives the bytes; return the file, verified, None if there is none.

        The wait ends when that process does not get on, too.
        """

    def room(self, *, cached: bool) -> Room | None:
        """Return a file for the bytes: in the cache, None if that has no room, or outside of it.  Raises NoSpace."""

    def receive(self, start: int, end: int, take: Take, *, again: int) -> ImgfsError | None:
        """Receive the bytes from *start* up to *end*: see `pieces.Receive`.

        *again*: how often those that were received before proved wrong, 0 to 2.  From 1 on, who has them at first hand
        is asked first, and with 2 alone.  Returns why that one does not send them, if another one did.
        """

    def check(self) -> None:
        """Raise the error that `receive` would raise at once, since there was a failure a moment ago."""

    def is_busy(self) -> bool:
        """Return whether anybody waits for bytes of the same image."""

    def verify(self, data: Iterable[Bytes]) -> None:
        """Raise DigestMismatch if *data*, all bytes in order, have another digest than the blob."""


class _Whole:
    """The fetch of a whole blob by a thread of its own, for one that waits for the bytes in order."""

    def __init__(self, fetch: Callable[[], Extent], wake: Callable[[], None]) -> None:
        self.ended = threading.Event()
        self._fetch = fetch
        self._wake = wake
        self._error: OSError | None = None
        self._extent: Extent | None = None

    def fetch(self) -> None:
        """Fetch the blob."""
        try:
            self._extent = self._fetch()
        except OSError as error:
            self._error = error
        finally:
            self.ended.set()
            self._wake()

    def result(self) -> Extent:
        """Return all bytes, verified, after the end of the fetch; raises its error."""
        self.ended.wait()
        if self._error is not None:
            raise self._error
        assert self._extent is not None
        return self._extent


class RemoteBlob:
    """A blob whose reads return verified bytes only: the first one fetches all that is missing.

    Safe under concurrency.  `_whole` is held by the thread that fetches and verifies the whole blob; threads that wait
    for it share its error, and so do those that come soon after an error of the bytes; others try again.  `_opening`
    guards the making of `_pieces`, and `_doubted`, and is held for a moment.  `_extent` is set once.
    """

    def __init__(self, size: int, supply: Supply) -> None:
        """Fetch *size* bytes from *supply*."""
        self.size = size
        self._supply = supply
        self._extent: Extent | None = None
        self._pieces: Pieces | None = None
        self._outgrown: list[Pieces] = []
        self._opening = threading.Lock()
        self._whole = threading.Lock()
        self._failed: ImgfsError | None = None
        self._failures = 0
        self._wrong = RecentErrors()
        self._mistakes = 0
        """How often the whole blob proved wrong, up to 2, since it was asked for at first hand and sent."""
        self._not_sent: ImgfsError | None = None
        """Why it was not sent at first hand."""
        self._doubted = Ranges()
        """Ranges that proved wrong and did not arrive again.  Not the whole blob, which has a digest."""

    @property
    def stored(self) -> int:
        """All bytes count as stored."""
        return self.size

    @property
    def identity(self) -> str:
        """Always the same: the digest alone distinguishes the bytes."""
        return "0"

    def slice(self, offset: int, size: int) -> Content:
        """Return a part of the bytes."""
        return Slice(self, offset, size)

    def fetch(self) -> None:
        """Fetch and verify the bytes, unless they are here.  Raises FetchFailed."""
        self._fetched()

    @property
    def is_here(self) -> bool:
        """Whether all bytes are known to be here and verified, so that no read waits for another machine."""
        return self._extent is not None

    def file_place(self) -> FilePlace | None:
        """Return the position of the bytes, None if not all of them are here and verified; waits for no fetch."""
        if self._extent is None and self._pieces is None:
            with self._opening:
                self._find_stored()
        return None if self._extent is None else self._extent.file_place()

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return verified bytes; fetches the whole blob first.  Raises FetchFailed."""
        return self._fetched().read_at(offset, size)

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the bytes if all are here, and these are in the page cache, else None."""
        return None if self._extent is None else self._extent.read_cached(offset, size, buffer)

    def unverified_range(self, offset: int, size: int) -> Bytes:
        """Return bytes as the other machine sent them, fewer only at the end: the caller must compare a digest.

        Fetches those that are missing, and no others.  Each is fetched once: threads that wait share the fetch, and
        `fetch` asks only for the rest.  Raises FetchFailed.
        """
        while (pieces := self._opened_for_reader()) is not None:
            try:
                return pieces.read(offset, size)
            except FetchFailed as error:
                if not self._outgrows(pieces, error):
                    raise
        return self._fetched().read_at(offset, size)

    def drop_range(self, offset: int, size: int) -> None:
        """Forget bytes of `unverified_range` that proved wrong: they are fetched again when they are read again."""
        if self._pieces is None or self._extent is not None:
            return
        if size < self.size:
            with self._opening:
                self._doubted.add(offset, offset + size)
        self._pieces.drop(offset, offset + size)

    def is_busy(self) -> bool:
        """Return whether anybody waits for bytes of the same image."""
        return self._supply.is_busy()

    def check_supply(self) -> None:
        """Raise FetchFailed if missing bytes would not be asked for now, after a failure a moment ago."""
        try:
            if self._extent is None:
                self._supply.check()
        except ImgfsError as error:
            raise FetchFailed(error.with_traceback(None)) from None

    def unverified_chunks(self) -> Iterator[Bytes]:
        """Yield all bytes in order as they arrive.

        FetchFailed at the end at the latest if they cannot be verified.  They may also be wrong if the first ones that
        arrived were: whoever compares another digest, and finds it wrong, must look at the verified bytes.
        """
        if self._extent is None:
            whole = _Whole(self._fetched, self._wake)
            with suppress(RuntimeError):  # as many threads as this process may have
                threading.Thread(target=whole.fetch, daemon=True).start()
                yield from self._following(whole)
                return
        yield from chunks(self._fetched())

    def check(self) -> None:
        """Do nothing: nobody but imgfs writes to the file."""

    def close(self) -> None:
        """Close the files."""
        if self._extent is not None:
            self._extent.close()
        for pieces in (*self._outgrown, self._pieces):
            if pieces is not None:
                pieces.close()

    def _following(self, whole: "_Whole") -> Iterator[Bytes]:
        """Yield the bytes in order, while another thread fetches them for *whole*."""
        for offset, end in _steps(self.size):
            data: Bytes | None = None
            while data is None and not whole.ended.is_set():
                if (pieces := self._pieces) is None:  # it waits for another process, for example
                    whole.ended.wait(_POLL)
                else:
                    data = pieces.wait(offset, end, lambda at=pieces: whole.ended.is_set() or self._pieces is not at)  # type: ignore[misc]
            yield whole.result().read_at(offset, end - offset) if data is None else data
        whole.result()

    def _wake(self) -> None:
        if self._pieces is not None:
            self._pieces.wake()

    def _fetched(self) -> Extent:
        """Return all bytes, verified."""
        failures = self._failures
        if self._extent is None:
            with self._whole:
                if self._failed is not None and self._failures != failures:
                    raise FetchFailed(self._failed, shared=True)
                if self._extent is None:
                    self._wrong.check()
                try:
                    self._fetch_whole()
                except (FetchFailed, ImgfsError) as error:
                    failure = error if isinstance(error, FetchFailed) else FetchFailed(error)
                    self._failed = failure.error.with_traceback(None)
                    self._failures += 1
                    self._wrong.add(failure)
                    raise FetchFailed(self._failed, shared=failure.shared, until=failure.until) from None
        assert self._extent is not None
        return self._extent

    def _fetch_whole(self) -> None:
        if self._pieces is None and (received := self._supply.awaited()) is not None:
            with self._opening:
                self._extent = self._extent or Extent(received, 0, self.size)
        tries = 0
        while (pieces := self._opened()) is not None:
            tries += 1
            self._not_sent = None
            try:
                settled = pieces.settle(self._supply.verify, _STEP, final=tries >= _TRIES)
            except FetchFailed as error:
                if not self._outgrows(pieces, error):
                    raise
            except DigestMismatch as error:
                pieces.drop(0, self.size)
                self._mistakes += 1
                if self._mistakes > 1:
                    self._mistakes = 0 if self._not_sent is None else 2
                    raise self._not_sent or error from None
            else:
                if settled:
                    self._mistakes = 0
                    pieces.keep()
                    self._extent = Extent(pieces.file, 0, self.size)

    def _opened(self) -> Pieces | None:
        """Return the bytes that are here, None if they are complete.  Raises NoSpace."""
        with self._opening:
            self._find_stored()
            if self._extent is None and self._pieces is None:
                self._pieces = self._new_pieces(cached=True)
            return self._pieces if self._extent is None else None

    def _opened_for_reader(self) -> Pieces | None:
        try:
            return self._opened()
        except ImgfsError as error:
            raise FetchFailed(error) from None

    def _find_stored(self) -> None:
        if self._extent is None and self._pieces is None and (stored := self._supply.stored()) is not None:
            self._extent = Extent(stored, 0, self.size)

    def _outgrows(self, pieces: Pieces, error: FetchFailed) -> bool:
        """Return whether to go on outside of the cache, since that has no room for the bytes of *pieces*."""
        if not isinstance(error.error, NoSpace) or not pieces.is_limited:
            return False
        with self._opening:
            if self._pieces is pieces:
                log.info("%s; going on elsewhere", error.error)
                try:
                    self._pieces = self._new_pieces(cached=False, drops=pieces.drops)
                except ImgfsError as full:
                    raise FetchFailed(full) from None
                self._outgrown.append(pieces)
        pieces.wake()
        return True

    def _new_pieces(self, *, cached: bool, drops: int = 0) -> Pieces:
        room = self._supply.room(cached=True) if cached else None
        room = self._supply.room(cached=False) if room is None else room
        assert room is not None  # outside of the cache there is always one
        return Pieces(room, self.size, self._receive, drops=drops)

    def _receive(self, start: int, end: int, take: Take) -> None:
        with self._opening:
            doubted = any(self._doubted.within(start, end))
        again = self._mistakes or int(doubted)
        try:
            self._not_sent = self._supply.receive(start, end, take, again=again) or self._not_sent
        except ImgfsError:
            if again > 1:  # the next time, the others may send right bytes
                self._mistakes = 1
            raise
        if again:
            with self._opening:
                self._doubted.remove(start, end)
