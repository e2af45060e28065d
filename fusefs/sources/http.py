"""HTTP from a server that may be hostile: every answer has a bound, in bytes, in lines and in time.

The limits that Python's `http.client` has (100 headers, lines of 64 KiB) end neither a hundred of ``100 Continue`` nor
trailers without end, nor an answer that sends a byte each second.
"""

import functools
import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, Protocol

from fusefs.text import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ANSWER = 4 << 20
"""Maximum size of an answer other than an image, in bytes.  As JSON it takes up to 30 times as much memory."""
MAX_REFUSAL = 1 << 16
"""Bytes that are read of the reason for a refusal."""
MAX_LINES = 1 << 16
"""Maximum size of lines in a row, in bytes: of all headers, or of all trailers."""
_INTERIM = frozenset({100, *range(102, 200)})
"""Statuses before that of the answer itself (RFC 9110, 15.2); 101 would be another protocol."""
_MAX_INTERIM = 10
_MAX_LOCATION = 200
"""Characters that are shown of the target of a redirect."""
_REDIRECTS = range(300, 400)


class Headers(Protocol):
    """The headers of an answer, of any library."""

    def get(self, name: str, default: str, /) -> str:
        """Return the value of the header *name*."""


class RefusedAnswer(http.client.HTTPException):
    """An answer violates a bound."""


class _Received(io.RawIOBase):
    """The bytes that a socket receives, within a time."""

    def __init__(self, sock: socket.socket, seconds: float | None) -> None:
        """Limit the time of all bytes: to the timeout of *sock*, if it has one, else to *seconds* from the first on."""
        self._raw = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._seconds = seconds
        self._each: float | None = None
        timeout = sock.gettimeout()
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        """Receive some bytes; TimeoutError if the time is over."""
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left)
        count = self._raw.readinto(buffer)
        if self._deadline is None and self._seconds is not None:
            self._deadline = time.monotonic() + self._seconds
        return count

    def wait(self, seconds: float | None) -> None:
        """From now on, limit the time of each read, and not that of all together; lines in a row have one time."""
        self._deadline = self._seconds = None
        self._each = seconds
        if not self.closed:
            self._sock.settimeout(seconds)

    def limit_lines(self) -> None:
        """After `wait`: limit the time of what is read up to `end_lines`, as long as that may be."""
        if self._each is not None:
            self._deadline = time.monotonic() + self._each

    def end_lines(self) -> None:
        """Limit the time of each read again."""
        if self._each is not None and self._deadline is not None:
            self._deadline = None
            self._sock.settimeout(self._each)

    def close(self) -> None:
        """Close the socket, if nobody else has it."""
        self._raw.close()
        super().close()


class _Lines(io.BufferedReader):
    """Reads no more than `MAX_LINES` of lines in a row, and no negative number of bytes."""

    _in_a_row = 0

    def __init__(self, received: _Received) -> None:
        """Read what is *received*."""
        super().__init__(received)
        self._received = received

    def end_lines(self) -> None:
        """Count lines anew: what follows are none."""
        if self._in_a_row:
            self._in_a_row = 0
            self._received.end_lines()

    def readline(self, size: int | None = -1) -> bytes:
        """Return the next line; RefusedAnswer if there are too many, or one without end."""
        if not self._in_a_row:
            self._received.limit_lines()
        left = MAX_LINES + 1 - self._in_a_row
        line = super().readline(left if size is None or size < 0 else min(size, left))
        self._in_a_row += len(line)
        if self._in_a_row > MAX_LINES:
            raise RefusedAnswer(f"its headers have more than {MAX_LINES} bytes")
        return line

    def read(self, size: int | None = -1) -> bytes:
        """Return up to *size* bytes; a chunk of a negative size would be all that come."""
        if size is None or size < 0:
            raise RefusedAnswer("its answer has a negative size")
        self.end_lines()
        return super().read(size)

    def read1(self, size: int = -1) -> bytes:
        """Return up to *size* bytes as they come."""
        self.end_lines()
        return super().read1(size)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill *buffer*."""
        self.end_lines()
        return super().readinto(buffer)


class BoundedResponse(http.client.HTTPResponse):
    """An answer whose lines are bounded, and whose time: all of it, until `wait` changes that."""

    seconds: float | None = None
    """The time of an answer that may take long to begin, from its first byte on; None: no limit."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        """Set the connection."""
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self._received = _Received(sock, self.seconds)
        self.fp = self._lines = _Lines(self._received)
        self._interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        """Return the status line; that of an interim answer as ``100 Continue``, which `begin` skips."""
        version, status, reason = super()._read_status()  # type: ignore[misc]  # not in the stubs
        if status in _INTERIM:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise RefusedAnswer(f"it sends more than {_MAX_INTERIM} interim answers (1xx)")
            status = http.client.CONTINUE
        return version, status, reason

    def wait(self, seconds: float | None) -> None:
        """From now on, limit the time of each read to *seconds*."""
        self._lines.end_lines()
        self._received.wait(seconds)

    def whole(self) -> bytes:
        """Return the body of an answer other than an image; RefusedAnswer if it is too large or compressed."""
        check_encoding(self.headers)
        data = self.read(MAX_ANSWER + 1)
        check_size(data)
        self.check_end()
        return data

    def check_end(self) -> None:
        """Raise IncompleteRead if the body, read to its end, is shorter than its stated length."""
        if self.length:
            raise http.client.IncompleteRead(b"", self.length)


@functools.cache  # a class for each connection would be garbage that only a collection of cycles frees
def bounded_response(seconds: float | None) -> type[BoundedResponse]:
    """Return the class of the answers to a client that waits so long."""
    return type("Response", (BoundedResponse,), {"seconds": seconds})


def check_encoding(headers: Headers) -> None:
    """Raise RefusedAnswer for a compressed answer: imgfs asks for plain ones."""
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise RefusedAnswer(f"its answer is compressed ({printable(encoding)[:20]}), although that was not asked for")


def check_size(data: bytes) -> None:
    """Raise RefusedAnswer if *data*, read up to a byte more than `MAX_ANSWER`, is that large."""
    if len(data) > MAX_ANSWER:
        raise RefusedAnswer(f"its answer has more than {MAX_ANSWER} bytes")


def redirect(status: int, headers: Headers) -> str:
    """Return the reason for the refusal of an answer that is a redirect, empty for another *status*."""
    if status not in _REDIRECTS:
        return ""
    location = printable(headers.get("Location", ""))[:_MAX_LOCATION] or "nowhere"
    return f"it redirects to {location}, which imgfs does not follow"


class UnixConnection(http.client.HTTPConnection):
    """A connection to the server on a unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        """Set the socket's path; `connect` connects."""
        super().__init__("localhost", timeout=timeout)
        self.response_class = bounded_response(timeout)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
