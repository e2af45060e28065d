"""A file on a web server: ranges of one version of it, over retries and redirects (RFC 9110).

No credentials are sent, neither to the server nor to where it redirects to.  A client certificate in ``certs.d`` is
for its host alone.
"""

import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

from fusefs.content.pieces import Take
from fusefs.errors import ImgfsError, InvalidImage, RegistryError, Unavailable
from fusefs.ranges import Range
from fusefs.sources.servers.connections import Answer, ConnectionFailed, Connections
from fusefs.sources.servers.retries import MAY_PASS, Retries, Transient, pauses, retry_after
from fusefs.text import printable

_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_NO_PARTS = (400, 501)
"""Answers to the request for a part after which the whole file may be had."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MISSING, _DENIED = (404, 410), (401, 403)
_URL_EXPIRED = (400, 401, 403, 404, 410)
"""Answers of the place to which a redirect led before: its URL may have been valid for a time only."""
_MAX_BODIES = 2
"""How often a server that ignores ranges may send the whole file in one transfer."""
_TINY, _MAX_TINY = 4096, 64
"""How many answers of fewer bytes a transfer may take."""
_BACK_OFF = 2.0
"""Seconds in which a server that failed is not asked again: many readers must not wait one after the other."""
_MOST_FAILURES = 16
"""Failures that are remembered."""
_LONG = 1.0
"""Seconds after which a failure counts for fewer bytes, too: readers must not wait for each of them."""
_NOTHING: Range = (-1, -1)
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_MAX_VALIDATOR = 1000
"""Characters of an ETag that are compared."""


class Version(NamedTuple):
    """What tells one version of a file from another one."""

    size: int | None
    """In bytes; None if the server does not say."""
    etag: str
    modified: str

    def is_same(self, other: "Version") -> bool:
        """Return whether nothing that both state differs."""
        return all(a == b for a, b in zip(self, other, strict=True) if a not in (None, "") and b not in (None, ""))

    def states_validator_of(self, other: "Version") -> bool:
        """Return whether it states what `condition` of *other* asks for; the date is enough if there is no ETag."""
        if other.etag.startswith('"') and self.etag:
            return self.etag == other.etag
        if other.etag and not other.etag.startswith('"'):
            return True
        return self.modified == other.modified != "" or not (other.etag or other.modified)

    @property
    def condition(self) -> Mapping[str, str]:
        """The header that makes a server send a range of this version only; weak ETags are not allowed there."""
        strong = self.etag if self.etag.startswith('"') else ""
        validator = strong or ("" if self.etag else self.modified)
        return {"If-Range": validator} if validator else {}


class _Failure(NamedTuple):
    """Why the server is not asked again for a moment."""

    when: float
    """By the monotonic clock."""
    error: ImgfsError
    failed: Range | None
    """The bytes for which it is not asked; None: for none at all."""
    was_long: bool
    """Whether it is not asked for any of them, else only not for all."""

    def concerns(self, wanted: Range) -> bool:
        """Return whether it is an error of the bytes *wanted*, at this moment."""
        if time.monotonic() >= self.when + _BACK_OFF:
            return False
        if self.failed is None or self.was_long:
            return self.overlaps(wanted)
        return wanted[0] <= self.failed[0] and self.failed[1] <= wanted[1]

    def overlaps(self, other: Range | None) -> bool:
        """Return whether it is an error of some of the *other* bytes."""
        return self.failed is None or other is None or (self.failed[0] < other[1] and other[0] < self.failed[1])


class WebFile:
    """One version of the file at a URL: that of the first answer.

    Safe under concurrency after `begin`: `_target`, `_failed`, `_last_failed`, `_served` and `_changed` are replaced
    as a whole, and an old value costs one more request.
    """

    def __init__(self, url: str, name: str, connections: Connections, timeout: float | None, *, insecure: bool) -> None:
        """Messages call it *name*; see `Retries` for *timeout*.  *insecure*: https may redirect to http."""
        self.name = name
        self.is_page = False
        """Whether the server says that it is a web page."""
        self.encoding = ""
        """The Content-Encoding, empty without one.  It is not undone: compressed archives are often labelled so."""
        self.version = Version(None, "", "")
        self._url = url
        self._connections = connections
        self._timeout = timeout
        self._schemes = ("https", "http") if insecure or url.startswith("http:") else ("https",)
        self._target: str | None = None
        """Where the last redirect led."""
        self._whole: Answer | None = None
        """The answer to `begin`, if that is the whole file."""
        self._failed: tuple[_Failure, ...] = ()
        self._last_failed: _Failure | None = None
        self._served = -1.0
        """When bytes arrived last, by the monotonic clock."""
        self._changed: Unavailable | None = None

    @property
    def size(self) -> int | None:
        """The number of bytes, after `begin`; None if the server does not say."""
        return self.version.size

    def begin(self, size: int) -> bytes | None:
        """Return the first bytes, *size* or all; None if the server ignores ranges, so that only `stream` works.

        Raises Unavailable, RegistryError or InvalidImage, as all methods do.
        """
        retries = Retries(self._timeout)
        while True:
            try:
                first = self._begun(size, retries)
                return first if first is None else self._completed(first, size)
            except Transient as failure:
                self._wait(retries, failure)

    def receive(self, start: int, end: int, take: Take) -> None:
        """Receive the bytes from *start* up to *end*: see `pieces.Receive`."""
        for offset, piece in self._received(start, end):
            take(offset, piece)

    def _completed(self, first: bytes, size: int) -> bytes:
        """Return the first bytes, *size* or all; *first*: those of the first answer, which may be fewer."""
        assert self.version.size is not None
        size, data = min(size, self.version.size), bytearray(first)
        if len(data) < size:
            for offset, piece in self._received(len(data), size):
                data[offset : offset + len(piece)] = piece
                if len(data) >= size:  # it may send all
                    break
        return bytes(data[:size])

    def stream(self, start: int) -> Iterator[bytes]:
        """Yield all bytes from *start* on."""
        whole, self._whole = self._whole, None
        for offset, piece in self._received(start, self.version.size, whole):
            if offset + len(piece) > start:  # a server that ignores ranges begins again, after a cut
                piece = piece[max(0, start - offset) :]  # noqa: PLW2901
                start += len(piece)
                yield piece

    def check(self) -> None:
        """Raise Unavailable if the file is known to have changed."""
        if self._changed is not None:
            raise self._changed.with_traceback(None)

    def _begun(self, size: int, retries: Retries) -> bytes | None:
        answer = self._asked({"Range": f"bytes=0-{size - 1}"}, retries)
        self.is_page = _is_page(answer)
        self.version = _version(answer)
        if answer.status == _UNSATISFIABLE or (answer.status == _PARTIAL and self.version.size == 0):
            answer.close()  # its body may be announced, and not be there
            raise InvalidImage(f"{self.name}: not a tar archive: the file is empty")
        self.encoding = _encoding(answer)
        if answer.status == _OK or self.version.size is None:
            if answer.status == _OK:
                self._whole = answer
            else:  # of a range whose end is unknown
                answer.close()
            return None
        end = self._range_end(answer, 0, min(size, self.version.size))
        try:
            data = answer.document(end)
        except ConnectionFailed as error:
            raise self._broken(error) from None
        if data is None or len(data) < end:
            raise Transient(f"{self.name}: the server sends other bytes than it announces")
        return data

    def _received(self, start: int, end: int | None, answer: Answer | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes from *start* up to *end* with their offsets; all from 0 on, if the server ignores ranges.

        *answer* is the whole file; None: ask for the bytes.  After an error, the server is not asked for a moment: for
        the same bytes, or for anything, if it could not be reached, or others failed, too, for long, and none came.
        """
        self.check()
        last = sys.maxsize if end is None else end
        self._check_failed((start, last))
        began = time.monotonic()
        try:
            for offset, piece in self._transferred(start, end, answer):
                yield offset, piece
                start = max(start, offset + len(piece))
        except ImgfsError as error:
            self._check_failed(_NOTHING)  # the same error, if it concerns all bytes
            self._fail(error, (start, max(start + 1, last)), was_long=time.monotonic() > began + _LONG)
            raise

    def _transferred(self, start: int, end: int | None, answer: Answer | None) -> Iterator[tuple[int, bytes]]:
        retries, position, bodies, tiny = Retries(self._timeout), start, 0, 0
        versions: list[Version] = []
        while end is None or position < end:
            try:
                offset, ends = 0, self.version.size
                if answer is None:
                    answer, offset, ends = self._part(position, end, retries, versions)
                began = offset
                bodies += answer.status == _OK
                with closing(answer):
                    self._check_counts(bodies, tiny)
                    try:
                        for piece in answer.pieces():
                            retries.progressed()
                            if ends is not None and offset + len(piece) > ends:
                                raise InvalidImage(f"{self.name}: the server sends more bytes than it announces")
                            self._served = time.monotonic()
                            yield offset, piece
                            offset += len(piece)
                            position = max(position, offset)
                    finally:
                        tiny += 0 < offset - began < _TINY
                answer = None
                if ends is not None and offset < ends and (end is None or position < end):
                    raise Transient(f"{self.name}: the transfer breaks off after {position} bytes")
                if end is None:
                    return
            except ConnectionFailed as error:
                answer = None
                self._wait(retries, self._broken(error))
            except Transient as failure:
                self._wait(retries, failure)

    def _check_counts(self, bodies: int, tiny: int) -> None:
        """Raise RegistryError after too many answers of all bytes, or of a few."""
        if bodies > _MAX_BODIES:  # the traffic would grow with the square of the size
            raise RegistryError(f"{self.name}: the transfer breaks off, and the server ignores Range")
        if tiny > _MAX_TINY:
            raise RegistryError(f"{self.name}: the server sends a few bytes at a time")

    def _part(
        self, start: int, end: int | None, retries: Retries, versions: list[Version]
    ) -> tuple[Answer, int, int | None]:
        """Return an answer with bytes of this version, where it begins, at *start* or at 0, and its end if known.

        *versions* are other ones that the server has stated in this transfer: one answer may be wrong, two are not.
        """
        self.check()
        wanted = {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        answer = self._asked({**wanted, **(self.version.condition if wanted else {})}, retries)
        found = _version(answer)
        is_of_same_size = found.size is not None and found.size == self.version.size
        if _encoding(answer) != self.encoding and answer.status != _UNSATISFIABLE and not is_of_same_size:
            answer.close()
            shown = printable(_encoding(answer) or "identity")[:20]
            raise Transient(f"{self.name}: the server changes its Content-Encoding to {shown}", once=True)
        if _is_page(answer) and not self.is_page and answer.status != _UNSATISFIABLE:
            answer.close()
            raise Transient(f"{self.name}: the server sends a web page instead of the file")
        is_same = self.version.is_same(found) and answer.status != _UNSATISFIABLE
        if answer.status == _OK or self.version.etag:  # a range need not state a date (RFC 9110, 15.3.7)
            is_same = is_same and found.states_validator_of(self.version)
        if is_same:
            versions.clear()
        else:
            answer.close()
            if found not in versions:
                versions.append(found)
                raise Transient(f"{self.name}: the server sends another version of the file", once=True)
            self._changed = Unavailable(f"{self.name} was changed while it is in use; unmount it and mount it again")
            raise self._changed
        if answer.status == _PARTIAL:
            return answer, start, self._range_end(answer, start, end)
        return answer, 0, self.version.size

    def _range_end(self, answer: Answer, start: int, end: int | None) -> int:
        """Return where the range of an answer ends: at *end*, or earlier (RFC 9110, 15.3.7), but after *start*."""
        match = _RANGE.fullmatch(answer.header("Content-Range"))
        if match is None or int(match[1]) != start:
            self._refuse_range(answer, start, end)
        last, total = int(match[2]), int(match[3])
        if not (start <= last < min(end, total) if end is not None else last + 1 == total):
            self._refuse_range(answer, start, end)
        return last + 1

    def _refuse_range(self, answer: Answer, start: int, end: int | None) -> NoReturn:
        answer.close()
        stated = printable(answer.header("Content-Range"))[:100] or "nothing"
        raise Transient(
            f"{self.name}: asked for bytes {start}-{'' if end is None else end - 1}, the server sends {stated}",
            once=True,
        )

    def _asked(self, headers: Mapping[str, str], retries: Retries) -> Answer:
        """Return a successful answer, or that there is no such range."""
        try:
            return self._answered(self._target, headers, retries)
        except (Transient, RegistryError, Unavailable):
            self._target = None  # the next redirect may lead to another place
            raise

    def _answered(self, target: str | None, headers: Mapping[str, str], retries: Retries) -> Answer:
        try:
            answer = self._followed(target or self._url, headers, retries)
        except ConnectionFailed as error:
            raise self._broken(error) from None
        if target is not None and answer.status in _URL_EXPIRED:
            answer.close()
            raise Transient(f"{self.name}: where it redirects to answers {answer.status} {answer.reason}", once=True)
        if answer.status in _NO_PARTS and "Range" in headers:
            answer.close()
            return self._answered(None, {}, retries)
        if answer.status not in (_OK, _PARTIAL, _UNSATISFIABLE):
            self._refuse(answer)
        return answer

    def _followed(self, url: str, headers: Mapping[str, str], retries: Retries) -> Answer:
        """Return the answer to which redirects lead, and remember its URL."""
        for _ in range(_MAX_REDIRECTS + 1):
            pauses.check(urlsplit(url).netloc)
            answer = self._connections.request("GET", url, headers, retries.limits())
            if answer.status not in _REDIRECTS:
                return answer
            answer.discard()
            try:
                url, parts = answer.redirected(url)
            except ValueError:
                raise RegistryError(f"{self.name}: the server redirects to a malformed URL") from None
            if parts.scheme not in self._schemes or not parts.hostname:
                allowed = " or ".join(self._schemes)
                raise RegistryError(f"{self.name}: the server redirects to a URL that is not {allowed}")
            self._target = url
        raise RegistryError(f"{self.name}: the server redirects more than {_MAX_REDIRECTS} times")

    def _refuse(self, answer: Answer) -> None:
        """Raise the error for an *answer* that is not a success."""
        answer.discard()
        shown = f"{answer.status} {answer.reason}".strip()
        if answer.status in _MISSING:
            raise Unavailable(f"{self.name} does not exist: the server answers {shown}")
        if answer.status in _DENIED:
            raise Unavailable(f"{self.name}: the server denies access: {shown}")
        text = f"{self.name}: the server answers {shown}"
        if answer.status not in MAY_PASS:
            raise RegistryError(text)
        after = retry_after(answer.header("Retry-After"), answer.header("Date"))
        text += "" if after is None else f"; it asks to wait {after:.0f} s"
        if after:
            pauses.begin(answer.host, after, text)
        raise Transient(text, after=after)

    def _broken(self, error: ConnectionFailed) -> Transient | RegistryError:
        """Return the failure for a connection that broke or could not be made."""
        if error.malformed:
            return RegistryError(f"cannot reach the server {error}")
        if error.untrusted:
            return RegistryError(f"cannot trust the server {error}; see --insecure, and certs.d in man imgfs")
        if error.no_handshake:
            return RegistryError(f"cannot reach the server {error}; if it speaks plain HTTP, give an http:// URL")
        return Transient(f"cannot reach the server {error}", down=error.refused)

    def _wait(self, retries: Retries, failure: Transient | RegistryError) -> None:
        """Wait until the next attempt; RegistryError if there is none."""
        self._connections.traffic.count(errors=1)
        self._target = None  # if the transfer broke off there
        if isinstance(failure, RegistryError):
            self._fail(failure, None)
            raise failure
        try:
            retries.wait(failure)
        except RegistryError as error:
            if failure.down:
                self._fail(error, None)
            raise

    def _fail(self, error: ImgfsError, failed: Range | None, *, was_long: bool = False) -> None:
        """Do not ask for the bytes that *failed* until a moment is over, or for any."""
        now, last = time.monotonic(), self._last_failed
        if was_long and last is not None and last.was_long and last.when > self._served and not last.overlaps(failed):
            failed = None
        recent = [failure for failure in self._failed if failure.when + _BACK_OFF > now]
        self._last_failed = new = _Failure(now, type(error)(str(error)), failed, was_long)
        self._failed = (*recent, new)[-_MOST_FAILURES:]

    def _check_failed(self, wanted: Range) -> None:
        """Raise the error of a moment ago that concerns the bytes *wanted*."""
        for failure in self._failed:
            if failure.concerns(wanted):
                raise type(failure.error)(str(failure.error)) from None


def _version(answer: Answer) -> Version:
    if answer.status == _PARTIAL:
        size = answer.header("Content-Range").rpartition("/")[2]
    else:
        size = answer.header("Content-Length")
    known = size.isascii() and size.isdigit() and len(size) < 19 and answer.status != _UNSATISFIABLE
    return Version(
        int(size) if known else None,
        answer.header("ETag")[:_MAX_VALIDATOR],
        answer.header("Last-Modified")[:_MAX_VALIDATOR],
    )


def _is_page(answer: Answer) -> bool:
    return answer.header("Content-Type").lower().startswith("text/html")


def _encoding(answer: Answer) -> str:
    encoding = answer.header("Content-Encoding").strip().lower()
    return "" if encoding == "identity" else encoding
