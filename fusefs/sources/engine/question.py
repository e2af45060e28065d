"""One question to the server on a unix socket: a GET of HTTP/1.0 (RFC 1945), whose answer ends with the connection.

For a mount that asks nothing else: `http.client` imports e-mail and TLS, which takes a third of such a mount's time.
"""

import _socket  # the module socket takes twice the time of the whole question
import time
from contextlib import closing
from typing import NamedTuple

_MAX_HEAD = 1 << 16
_MAX_BODY = 4 << 20
_CHUNK = 1 << 16
_DIGITS = 8
"""Digits of a length that is too large."""
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@")
"""Characters that a path contains as they are."""


class NoPlainAnswer(Exception):
    """Not a complete answer with the status 200, or not a question for this client; another client has to ask."""


class Answer(NamedTuple):
    """An answer with the status 200."""

    headers: dict[str, str]
    """By name, in lower case; the last of a name counts."""
    body: bytes


def ask(address: str, path: str, timeout: float | None) -> Answer:
    """Return the answer to a GET of *path* from the server on the unix socket *address*.

    All of it has to come within *timeout* seconds; TimeoutError if it does not.  Raises OSError if the connection
    fails, and NoPlainAnswer.
    """
    if not _PLAIN.issuperset(path):
        raise NoPlainAnswer
    deadline = None if timeout is None else time.monotonic() + timeout
    with closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)) as connection:
        connection.settimeout(timeout)
        connection.connect(address)
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return _received(connection, deadline)


def _received(connection: _socket.socket, deadline: float | None) -> Answer:
    head, body = b"", b""
    while b"\r\n\r\n" not in head:
        data = _piece(connection, deadline)
        head += data
        if not data or len(head) > _MAX_HEAD + _CHUNK:
            raise NoPlainAnswer
    head, _, body = head.partition(b"\r\n\r\n")
    headers = _headers(head)
    length = int(headers.get("content-length", _MAX_BODY))
    while len(body) < length and (data := _piece(connection, deadline)):
        body += data
    if len(body) > length or ("content-length" in headers and len(body) != length):
        raise NoPlainAnswer
    return Answer(headers, body)


def _piece(connection: _socket.socket, deadline: float | None) -> bytes:
    """Return the next bytes, none at the end; TimeoutError after the *deadline*."""
    if deadline is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
    return connection.recv(_CHUNK)


def _headers(head: bytes) -> dict[str, str]:
    """Return the headers of an answer whose bytes come as they are; NoPlainAnswer for any other."""
    status, *lines = head.decode("latin-1").split("\r\n")
    words = status.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if (
        not words[0].startswith("HTTP/1.")
        or words[1:2] != ["200"]
        or "transfer-encoding" in headers
        or headers.get("content-encoding", "identity") != "identity"
        or not (length.isascii() and length.isdigit() and len(length) < _DIGITS)
    ):
        raise NoPlainAnswer
    return headers
