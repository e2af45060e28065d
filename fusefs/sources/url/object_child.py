"""The child process of a `Bucket`: reads requests from its standard input, and writes answers to the standard output.

It ends when its standard input does, so with the process that started it, even while it waits for the store.
"""

import os
import re
import select
import struct
import sys
import threading
import time
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

ASK = struct.Struct(">QQI")
"""A request: the first byte, the one behind the last, the length of the version that follows."""
REPLY = struct.Struct(">cI")
"""A part of an answer: its kind, and the length of what follows."""
FOUND, DATA = b"F", b"B"
"""Kinds: size (8 bytes) and version; bytes.  ``E`` is the end; M, D, C, U and G are errors with a text."""
_DATE = "@"
"""What begins the version of an object without an ETag, which is when it was modified."""
CHUNK = 1 << 20
_MAX_TEXT = 300
_LONGEST = 3600.0
"""Seconds of attempts, if the user sets no limit."""
_SHARE = 0.7
"""The part of `--timeout` without progress that is for attempts: the rest is for the last answer, and the reason."""
_LEAST_SHARE = 0.1
"""The part of it for attempts at a store that has not answered yet, which may not exist."""
_PAUSES = 0.1
"""The part of it, and the most seconds, that a pause between two attempts takes."""
_LONGEST_PAUSE = 2.0
_TINY, _MAX_TINY = 4096, 64
"""How many answers of fewer bytes a request may take."""
_FEW, _MANY = 5, 1_000_000
"""Attempts after the first: few at a store that has not answered yet."""
_IS_BUSY = re.compile(r"status code: (?:408|425|429|5[0-9]{2})\b")
_ATTEMPTS = re.compile(r" in [0-9.]+\S*s(?:, after .*?)? +-(?= )")
_ASKS_MACHINE = re.compile(r"//169\.254\.169\.254/|//metadata\.google\.internal/|^Generic \w+ error: Account must be")
"""In the error of a request for the credentials of the machine's role."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "GOOGLE_SERVICE_ACCOUNT, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_IS_EMPTY = re.compile(r"status code: 416\b")
_LONGEST_REQUEST = 7 * 86400
"""Seconds for one answer, however slowly it arrives."""
_USER = re.compile(r"//[^?#\s]*@")
_QUERY = re.compile(r"\?|%3F", re.IGNORECASE)


def main() -> None:
    """Answer requests for the object whose URL is the first argument."""
    url, timeout = sys.argv[1], float(sys.argv[2]) or _LONGEST
    ask, answer = sys.stdin.buffer, sys.stdout.buffer
    threading.Thread(target=_end_with_input, daemon=True).start()
    asked = _Object(url, timeout)
    while len(head := ask.read(ASK.size)) == ASK.size:
        start, end, length = ASK.unpack(head)
        version = ask.read(length).decode()
        try:
            asked.send((start, end), version, answer)
            _send(answer, b"E")
        except ImportError:
            how = "pipx install '.[s3]' in a checkout of imgfs installs an imgfs with it"
            _send(answer, b"U", f"object stores need the Python package obstore; {how}".encode())
        except Exception as error:  # noqa: BLE001 - each is an answer
            if not (start or version) and _IS_EMPTY.search(_line(error)):
                _send(answer, FOUND, bytes(8))
            _send(answer, *_described(error, url))
        answer.flush()


class _Object:
    """The object, of which parts are asked for."""

    def __init__(self, url: str, timeout: float) -> None:
        scheme, _, rest = url.partition("://")
        bucket, _, key = rest.partition("/")
        self._bucket, self._path = f"{scheme}://{bucket}", unquote(key)
        self._timeout = timeout
        self._store: Any = None

    def send(self, wanted: tuple[int, int], version: str, out: Any) -> None:
        """Send an answer to *out*.

        The library resumes one only for a time after its begin.  So what is left is asked for anew, unless an answer
        to that brought nothing.  Bytes are sent on at once, since `Bucket` must not take a slow store for a silent one.
        """
        start, end = wanted
        asked, came, found, tiny = -1, time.monotonic(), None, 0
        if self._store is None:
            self._store = self._store_for(_SHARE)
            found = None if version else self._found_soon(wanted)
        store = self._store
        while True:
            if found is None:
                asked, found = start, self._found(store, (start, end), version)
            version = found.meta.get("e_tag") or _DATE + found.meta["last_modified"].isoformat()
            _send(out, FOUND, found.meta["size"].to_bytes(8, "big") + version.encode())
            try:
                for data in found.stream(min_chunk_size=1):
                    view = memoryview(data)
                    for offset in range(0, len(view), CHUNK):
                        _send(out, DATA, bytes(view[offset : offset + CHUNK]))
                    out.flush()
                    start, came = start + len(view), time.monotonic()
            except Exception:
                tiny += start - asked < _TINY
                if start == asked or tiny > _MAX_TINY:
                    raise
                left = _SHARE - (time.monotonic() - came) / self._timeout
                found, store = None, self._store_for(max(left, _LEAST_SHARE))
            else:
                return

    def _found(self, store: Any, wanted: tuple[int, int], version: str) -> Any:
        import obstore  # noqa: PLC0415 - may be missing

        is_strong = version and not version.startswith((_DATE, "W/"))  # a weak one matches nothing (RFC 9110, 13.1.1)
        options: Any = {"range": wanted, "if_match": version} if is_strong else {"range": wanted}
        return obstore.get(store, self._path, options=options)

    def _found_soon(self, wanted: tuple[int, int]) -> Any:
        """Return the first answer of a store that may not exist, or None if it is busy, so does exist."""
        try:
            return self._found(self._store_for(_LEAST_SHARE, _FEW), wanted, "")
        except Exception as error:
            if not _IS_BUSY.search(_line(error)):
                raise
            return None

    def _store_for(self, share: float, attempts: int = _MANY) -> Any:
        """Return the library's store, whose attempts end after a *share* of the timeout."""
        from obstore.store import from_url  # noqa: PLC0415 - may be missing

        longest = min(self._timeout * _PAUSES, _LONGEST_PAUSE)
        pauses: Any = {
            "init_backoff": timedelta(seconds=longest / 20),
            "max_backoff": timedelta(seconds=longest),
            "base": 2,
        }
        return from_url(
            self._bucket,
            client_options={
                "connect_timeout": "10s",
                "timeout": f"{_LONGEST_REQUEST}s",  # of a whole answer; `Bucket` ends a child that is silent
                "allow_http": _allows_http(),
            },
            retry_config={
                "max_retries": attempts,
                "retry_timeout": timedelta(seconds=self._timeout * share),
                "backoff": pauses,
            },
        )


def _end_with_input() -> None:
    """End this process with its standard input, whatever it waits for: an answer may take long."""
    input_ends = select.poll()
    input_ends.register(sys.stdin.fileno(), 0)  # that nobody has the other end is always reported
    input_ends.poll()
    os._exit(0)


def _allows_http() -> bool:
    return os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")


def _is_plain(message: str) -> bool:
    """Return whether a *message* of the library is that of a request to http:// that it did not make."""
    return " http://" in message and message.endswith("builder error")


def _send(out: Any, kind: bytes, data: bytes = b"") -> None:
    out.write(REPLY.pack(kind, len(data)) + data)


def _line(error: Exception) -> str:
    """Return the first line of an *error* of the library, without its counts of attempts."""
    return _ATTEMPTS.sub(":", str(error).partition("\n")[0], count=1)


def _described(error: Exception, url: str) -> tuple[bytes, bytes]:
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
    text = text or _QUERY.split(_USER.sub("//***@", _line(error)))[0].strip(" :")[:_MAX_TEXT]
    if _ASKS_MACHINE.search(_line(error)):
        text += f"; the environment has no credentials: set {_CREDENTIALS[url.partition('://')[0]]}"
    elif "non-partial response" in text:
        text = "the store ignores ranges, which imgfs needs of object stores"
    return kind, text.encode("ascii", "backslashreplace")
