"""An engine behind a unix socket, with Python's own HTTP: the SDK takes longer to import than a kept image to mount.

Whatever is not a plain yes is left to the SDK, and to its errors.
"""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Self
from urllib.parse import quote, urlencode

from fusefs.content import Buffer
from fusefs.platforms import Platform
from fusefs.sources.endpoint import Endpoint
from fusefs.sources.inspection import NONSENSE, Inspected, Target, parse_inspected
from fusefs.sources.saving import PLATFORM_VERSION, requested_platform

_UNIX = "unix://"
_ANSWER_TIMEOUT = 60
"""Seconds for an answer to all but a save: as long as the SDK waits."""
_MAX_ANSWER = 16 << 20
_CHUNK = 1 << 20
_OK = 200

_FAILURES = (OSError, http.client.HTTPException)


class NoPlainAnswer(Exception):
    """The engine did not just say yes."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWER_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Stream:
    """The answer to a save."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()

    def chunks(self) -> Iterator[Buffer]:
        """Yield the bytes, each time in the same buffer."""
        buffer = memoryview(bytearray(_CHUNK))
        while count := self._answer.readinto(buffer):
            yield buffer[:count]


class UnixEngine:
    """A connection to an engine; each method raises NoPlainAnswer unless the engine just says yes."""

    failures = _FAILURES

    def __init__(self, endpoint: Endpoint) -> None:
        """Name the engine; nothing is connected yet."""
        if not endpoint.host.startswith(_UNIX):
            raise NoPlainAnswer
        self.shown = endpoint.shown
        self._connection = _Connection(endpoint.host.removeprefix(_UNIX))
        self._version = ""

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def picks(self, platform: Platform | None) -> bool:
        """Return whether a save is asked for the *platform*."""
        return platform is not None and _numbers(self._version) >= _numbers(PLATFORM_VERSION)

    def inspect(self, name: str) -> Inspected:
        """Return what the engine says of the image *name*."""
        try:
            answer = self._get(f"/images/{quote(name, safe='/:@')}/json")
            self._version = answer.headers.get("Api-Version", "")
            _numbers(self._version)
            return parse_inspected(json.loads(answer.read(_MAX_ANSWER)))
        except (RecursionError, *_FAILURES, *NONSENSE):
            raise NoPlainAnswer from None

    def begin(self, target: Target) -> _Stream:
        """Return the answer to a save once it has begun."""
        platform = target.platform
        parameters = {}
        if platform is not None and self.picks(platform):
            parameters["platform"] = requested_platform(platform)
        path = f"/v{self._version}/images/{target.inspected.image_id}/get"
        try:
            return _Stream(self._get(f"{path}?{urlencode(parameters)}" if parameters else path, timeout=None))
        except _FAILURES:
            raise NoPlainAnswer from None

    def _get(self, path: str, timeout: float | None = _ANSWER_TIMEOUT) -> http.client.HTTPResponse:
        connection = self._connection
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(timeout)
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != _OK:
            raise NoPlainAnswer
        return answer


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version of the API; ValueError if it is none."""
    return tuple(map(int, version.split(".")))
