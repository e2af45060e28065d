"""A file in an object store: S3, Google Cloud Storage or Azure, with the extra ``imgfs[s3]``.

The library (obstore) runs in a child process: it has threads, which do not survive the fork of a mount, and a child
that hangs can be ended.  It finds credentials and regions as the programs of these stores do, and renews them itself.
"""

import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from weakref import WeakSet

from fusefs.content.pieces import Take
from fusefs.content.protocol import Bytes
from fusefs.errors import ImgfsError, InvalidImage, RegistryError, Unavailable, UsageError
from fusefs.image.model import Traffic
from fusefs.sources.url.object_child import ASK, CHUNK, DATA, FOUND, REPLY

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_CODE = f"import sys; sys.path.append({_PACKAGES!r}); from fusefs.sources.url.object_child import main; main()"
_AT_ONCE = 8 << 20
"""Bytes of one request: other readers wait for its end."""
_BACK_OFF = 2.0
"""Seconds in which a store that failed is not asked again."""
_GRACE = 0.5
"""Seconds after `--timeout` in which the child may still say why there is no answer."""
_OF_STORE = (RegistryError, Unavailable, InvalidImage, UsageError)
"""Errors that all readers share, other than those of storing what arrives."""
_KINDS = {b"M": Unavailable, b"D": Unavailable, b"U": UsageError, b"C": Unavailable}


class Bucket:
    """One version of an object: that of the first answer.

    Safe under concurrency: `_lock` is held for the time of a request, since one child answers one after the other.
    """

    is_page = False
    encoding = ""

    def __init__(
        self, url: str, name: str, environment: Mapping[str, str], timeout: float | None, traffic: Traffic
    ) -> None:
        """Messages call it *name*.  Give up after *timeout* seconds of silence, None: never.

        What is received is counted in *traffic*.
        """
        self._traffic = traffic
        self.name = name
        self._url = url
        self.size: int | None = None
        self._environment = dict(environment)
        self._timeout = timeout
        self._version = b""
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._changed: Unavailable | None = None
        self._failures = 0
        self._failed: tuple[float, ImgfsError] = 0.0, RegistryError(name)
        """Until when the store is not asked again, and why."""
        _all.add(self)

    def begin(self, size: int) -> bytes | None:
        """Return the first bytes, *size* or all."""
        return self._bytes(0, size)

    def receive(self, start: int, end: int, take: Take) -> None:
        """Receive the bytes from *start* up to *end*: see `pieces.Receive`."""
        for offset in range(start, end, _AT_ONCE):
            self._ask(offset, min(offset + _AT_ONCE, end), take)

    def stream(self, start: int) -> Iterator[bytes]:
        """Yield all bytes from *start* on."""
        assert self.size is not None
        for offset in range(start, self.size, _AT_ONCE):
            yield self._bytes(offset, min(offset + _AT_ONCE, self.size))

    def check(self) -> None:
        """Raise Unavailable if the object is known to have changed."""
        if self._changed is not None:
            raise self._changed.with_traceback(None)

    def _bytes(self, start: int, end: int) -> bytes:
        parts: list[Bytes] = []

        def take(_: int, data: Bytes) -> None:
            parts.append(data)

        self.receive(start, end, take)
        return b"".join(parts)

    def _ask(self, start: int, end: int, take: Take) -> None:
        """Receive the bytes of one request; if it fails, it has failed for all that wait for the child."""
        failures = self._failures
        with self._lock:
            self.check()
            until, why = self._failed
            if failures != self._failures or time.monotonic() < until:
                raise type(why)(str(why))
            try:
                self._asked(start, end, take)
            except _OF_STORE as error:
                self._traffic.count(errors=1)
                self._failures += 1
                self._failed = time.monotonic() + _BACK_OFF, type(error)(str(error))
                raise

    def _asked(self, start: int, end: int, take: Take) -> None:
        child = self._running()
        self._traffic.count(requests=1)
        try:
            assert child.stdin is not None
            child.stdin.write(ASK.pack(start, end, len(self._version)) + self._version)
            child.stdin.flush()
            position = start
            while True:
                kind, length = REPLY.unpack(self._read(child, REPLY.size))
                data = self._read(child, length) if 0 < length <= CHUNK else b""
                if kind == DATA:
                    if position + len(data) > end:
                        raise RegistryError(f"{self.name}: the store sends more bytes than it was asked for")
                    self._traffic.count(received=len(data))
                    take(position, data)
                    position += len(data)
                elif kind == FOUND:
                    self._found(data)
                    end = min(end, self.size or 0)
                elif kind == b"E" and position == end:
                    return
                else:
                    raise self._error(kind, data)
        except (OSError, struct.error):
            self._end()
            raise RegistryError(f"{self.name}: the process that asks the store has ended") from None
        except BaseException:  # the rest of its answer must not be taken for the next one
            self._end()
            raise

    def _found(self, data: bytes) -> None:
        size, version = int.from_bytes(data[:8], "big"), data[8:]
        if self.size is not None and (size, version) != (self.size, self._version):
            raise self._error(b"C", b"")
        self.size, self._version = size, version
        if not size:
            raise InvalidImage(f"{self.name}: not a tar archive: the file is empty")

    def _error(self, kind: bytes, data: bytes) -> Exception:
        text = data.decode("utf-8", "replace")
        if kind == b"C":
            self._changed = Unavailable(f"{self.name} was changed while it is in use; unmount it and mount it again")
            return self._changed
        return _KINDS.get(kind, RegistryError)(f"{self.name}: {text or 'the transfer breaks off'}")

    def _read(self, child: "subprocess.Popen[bytes]", size: int) -> bytes:
        """Return *size* bytes of the child's output; RegistryError if it is silent."""
        assert child.stdout is not None
        deadline = None if self._timeout is None else time.monotonic() + self._timeout + _GRACE
        data = b""
        while len(data) < size:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([child.stdout], [], [], left)[0]:
                raise RegistryError(f"{self.name}: the store is silent")
            more = os.read(child.stdout.fileno(), size - len(data))
            if not more:
                raise OSError("end")
            data += more
        return data

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None or self._child.poll() is not None:
            timeout = "0" if self._timeout is None else str(self._timeout)
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-c", _CODE, self._url, timeout],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=self._environment,
                bufsize=0,
            )
        return self._child

    def _end(self) -> None:
        """End the child."""
        if self._child is not None:
            with self._child as child:
                child.kill()
        self._child = None

    def let_go(self) -> None:
        """Forget the child, which is another process's: it ends when that one closes its standard input."""
        if self._child is not None:
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                pipe.close()
        self._child = None


_all: WeakSet[Bucket] = WeakSet()


def _let_go_all() -> None:
    for bucket in _all:
        bucket.let_go()


os.register_at_fork(after_in_child=_let_go_all)
