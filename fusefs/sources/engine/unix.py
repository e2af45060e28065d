"""A client for an engine on a unix socket, without the SDK: importing that takes longer than mounting a cached image.

If the engine cannot be reached or does not have the image, the SDK tries again and reports the error.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from fusefs.errors import InvalidImage
from fusefs.oci.platform import Platform
from fusefs.oci.transport import Source
from fusefs.oci.untrusted_json import parse_object
from fusefs.sources.engine.answers import (
    PLATFORM_VERSION,
    is_version,
    message_of,
    platform_hint,
    refusal,
    requested_platform,
    unanswered,
    version_numbers,
)
from fusefs.sources.engine.endpoint import Endpoint
from fusefs.sources.engine.inspected import NONSENSE, Inspected, Target, parse_inspected, parse_list
from fusefs.sources.engine.question import NoPlainAnswer, ask

if TYPE_CHECKING:
    from fusefs.content.protocol import Buffer
    from fusefs.sources.http import BoundedResponse, UnixConnection

_UNIX = "unix://"
_CHUNK = 1 << 20
_OK = 200


class _UnixStream:
    """The answer to a save."""

    def __init__(self, answer: "BoundedResponse", connection: "UnixConnection") -> None:
        self._answer = answer
        self._connection = connection
        answer.wait(None)  # engines may take minutes to prepare the first byte

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        self._connection.close()  # unread bytes may remain in it; the next request reconnects

    def chunks(self) -> "Iterator[Buffer]":
        """Yield the bytes in chunks.  All chunks share one buffer: each overwrites the one before."""
        buffer = memoryview(bytearray(_CHUNK))
        count = self._answer.readinto(buffer[:1])
        if count:
            self._answer.wait(self._connection.timeout)
            count += self._answer.readinto(buffer[count:])
        while count:
            yield buffer[:count]
            count = self._answer.readinto(buffer)
        self._answer.check_end()


class UnixEngine:
    """An engine on a unix socket."""

    def __init__(self, endpoint: Endpoint, timeout: float | None) -> None:
        """Set the address; raises NoPlainAnswer if it is not a unix socket.  The first request connects."""
        if not endpoint.host.startswith(_UNIX):
            raise NoPlainAnswer
        self.shown = endpoint.shown
        self._address = endpoint.host.removeprefix(_UNIX)
        self._timeout = timeout
        self._connection: UnixConnection | None = None
        """For requests after the first."""
        self._version = ""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """The exceptions of a broken connection."""
        import http.client  # noqa: PLC0415 - a cached image needs no second request

        return OSError, http.client.HTTPException

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def picks(self, platform: Platform | None) -> bool:
        """Return whether the engine can send only the *platform* of an image."""
        return platform is not None and version_numbers(self._version) >= PLATFORM_VERSION

    def inspect(self, name: str) -> Inspected:
        """Return the engine's description of the image *name*.

        Raises NoPlainAnswer for every other answer, and EngineError if the timeout passes without an answer.
        """
        try:
            answer = ask(self._address, f"/images/{name}/json", self._timeout)
            self._version = answer.headers.get("api-version", "")
            if not is_version(self._version):
                raise NoPlainAnswer
            return parse_inspected(parse_object(answer.body, self.shown, "an image"))
        except TimeoutError:
            raise unanswered(self.shown, self._timeout) from None
        except (InvalidImage, OSError, *NONSENSE):
            raise NoPlainAnswer from None

    def history(self, target: Target) -> list[Any]:
        """Return the history of the image, the newest step first; NoPlainAnswer for every other answer."""
        import http.client  # noqa: PLC0415 - as for `failures`

        try:
            answer = self._get(f"/v{self._version}/images/{target.inspected.image_id}/history", self._timeout)
            if answer.status != _OK:
                raise NoPlainAnswer
            return parse_list(answer.whole())
        except TimeoutError:
            raise unanswered(self.shown, self._timeout) from None
        except (OSError, http.client.HTTPException, *NONSENSE, RecursionError):
            raise NoPlainAnswer from None

    def begin(self, target: Target) -> _UnixStream:
        """Return the answer to a save once it begins; EngineError if the engine refuses."""
        from urllib.parse import urlencode  # noqa: PLC0415 - a cached image is not saved

        from fusefs.sources.http import MAX_REFUSAL, check_encoding, redirect  # noqa: PLC0415

        platform = target.platform
        parameters = {}
        if platform is not None and self.picks(platform):
            parameters["platform"] = requested_platform(platform)
        path = f"/v{self._version}/images/{target.inspected.image_id}/get"
        answer = self._get(f"{path}?{urlencode(parameters)}" if parameters else path, None)
        assert self._connection is not None
        if answer.status != _OK:
            why = redirect(answer.status, answer.headers) or message_of(answer.read(MAX_REFUSAL), answer.reason)
            raise refusal(self.shown, target.name, why, platform_hint(target))
        check_encoding(answer.headers)
        return _UnixStream(answer, self._connection)

    def _get(self, path: str, timeout: float | None) -> "BoundedResponse":
        """Return the answer once its headers are there; without a *timeout*, it may take long to begin."""
        from fusefs.sources.http import BoundedResponse, UnixConnection  # noqa: PLC0415 - as for `failures`

        if self._connection is None:
            self._connection = UnixConnection(self._address, self._timeout)
        connection = self._connection
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(timeout)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert isinstance(answer, BoundedResponse)
        return answer


class Asked(NamedTuple):
    """An engine that has described an image, and need not be asked for that again."""

    engine: UnixEngine
    endpoint: Endpoint
    source: Source
    inspected: Inspected
