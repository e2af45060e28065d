"""The child process of a `Bucket`: reads requests from its standard input, and writes answers to the standard output.

It ends when its standard input does, so with the process that started it.
"""

import os
import struct
import sys
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

ASK = struct.Struct(">QQI")
"""A request: the first byte, the one behind the last, the length of the ETag that follows."""
REPLY = struct.Struct(">cI")
"""A part of an answer: its kind, and the length of what follows."""
FOUND, DATA = b"F", b"B"
"""Kinds: size (8 bytes) and ETag; bytes.  ``E`` is the end; M, D, C, U and G are errors with a text."""
CHUNK = 1 << 20
_MAX_TEXT = 300
_LONGEST = 3600.0
"""Seconds of attempts, if the user sets no limit."""
_LONGEST_REQUEST = 7 * 86400
"""Seconds for one answer, however slowly it arrives."""
_LEAST = 1 << 17
"""Bytes that are sent on at once: few, since `Bucket` must not take a slow store for a silent one."""


def main() -> None:
    """Answer requests for the object whose URL is the first argument."""
    url, timeout = sys.argv[1], float(sys.argv[2]) or _LONGEST
    ask, answer = sys.stdin.buffer, sys.stdout.buffer
    store: Any = None
    while len(head := ask.read(ASK.size)) == ASK.size:
        start, end, length = ASK.unpack(head)
        etag = ask.read(length).decode()
        try:
            if store is None:
                store = _store(url, timeout)
            _answer(store, unquote(url.partition("://")[2].partition("/")[2]), (start, end), etag, answer)
            _send(answer, b"E")
        except ImportError:
            how = "pipx install '.[s3]' in a checkout of imgfs installs an imgfs with it"
            _send(answer, b"U", f"object stores need the Python package obstore; {how}".encode())
        except Exception as error:  # noqa: BLE001 - each is an answer
            _send(answer, *_described(error))
        answer.flush()


def _store(url: str, timeout: float) -> Any:
    from obstore.store import from_url  # noqa: PLC0415 - may be missing

    scheme, _, rest = url.partition("://")
    return from_url(
        f"{scheme}://{rest.partition('/')[0]}",
        client_options={
            "connect_timeout": "10s",
            "timeout": f"{_LONGEST_REQUEST}s",  # of a whole answer; `Bucket` ends a child that is silent
            "allow_http": _allows_http(),
        },
        retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=timeout)},
    )


def _allows_http() -> bool:
    return os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")


def _is_plain(message: str) -> bool:
    """Return whether a *message* of the library is that of a request to http:// that it did not make."""
    return " http://" in message and message.endswith("builder error")


def _answer(store: Any, path: str, wanted: tuple[int, int], etag: str, out: Any) -> None:
    import obstore  # noqa: PLC0415

    found = obstore.get(store, path, options={"range": wanted, "if_match": etag} if etag else {"range": wanted})
    stated = (found.meta.get("e_tag") or "").encode()
    _send(out, FOUND, found.meta["size"].to_bytes(8, "big") + stated)
    for data in found.stream(min_chunk_size=_LEAST):
        view = memoryview(data)
        for offset in range(0, len(view), CHUNK):
            _send(out, DATA, bytes(view[offset : offset + CHUNK]))


def _send(out: Any, kind: bytes, data: bytes = b"") -> None:
    out.write(REPLY.pack(kind, len(data)) + data)


def _described(error: Exception) -> tuple[bytes, bytes]:
    """Return the kind of an *error* of the library and its first line, which has no secrets."""
    kind = {
        "NotFoundError": b"M",
        "FileNotFoundError": b"M",
        "PermissionDeniedError": b"D",
        "UnauthenticatedError": b"D",
        "PreconditionError": b"C",
        "UnknownConfigurationKeyError": b"U",
    }.get(type(error).__name__, b"G")
    if _is_plain(str(error).partition("\n")[0]) and not _allows_http():
        return b"U", b"the endpoint of the store is http://, which needs AWS_ALLOW_HTTP=true"
    text = {b"M": "does not exist", b"D": "the store denies access"}.get(kind)
    text = text or str(error).partition("\n")[0].partition("?")[0].strip()[:_MAX_TEXT]
    return kind, text.encode("ascii", "backslashreplace")
