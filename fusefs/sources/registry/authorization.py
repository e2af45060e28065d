"""The authorization for one repository: Basic, or Bearer with a token (distribution's token and OAuth protocols)."""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from fusefs.errors import ImgfsError, RegistryError, Unavailable, UsageError
from fusefs.log import logger
from fusefs.pattern import pattern
from fusefs.sources.registry.credentials import HELPER_TIMEOUT, Credentials
from fusefs.sources.registry.places import Place
from fusefs.sources.servers.connections import Answer, ConnectionFailed, Connections, Limits, without_control
from fusefs.sources.servers.hosts import is_loopback
from fusefs.sources.servers.retries import MAY_PASS, Transient, pauses, retry_after
from fusefs.text import printable

log = logger(__name__)

_OK = 200
_REDIRECTS, _REDIRECTS_TO_GET = frozenset({301, 302, 303, 307, 308}), frozenset({301, 302, 303})
_MAX_REDIRECTS = 5
_DENIED = (400, 401, 403)
_LIFETIME = 60.0
"""Seconds that a token lives at least, and if its server does not say."""
_EARLY, _EARLIEST = 0.1, 30.0
"""A token is renewed in this last part of its lifetime, and at most so many seconds before its end."""
_BACK_OFF = 2.0
"""Seconds in which a helper that failed, and the renewal of a token that still lives, are not tried again."""
_EARLY_PATIENCE = 10.0
"""Seconds for the renewal of a token that still lives."""
_FAILURES = (ConnectionFailed, Transient, ImgfsError)
_MAX_ANSWER = 1 << 20
_PARTS = pattern(r'(?<![A-Za-z_-])([A-Za-z_-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]*+))|([A-Za-z]++)')
"""A parameter of a challenge, or its scheme.  A registry writes the text: what was looked at is not looked at again."""


class Challenge(NamedTuple):
    """What a registry asks for in ``WWW-Authenticate``."""

    scheme: str
    """In lower case."""
    realm: str = ""
    service: str = ""
    scope: str = ""


def challenges(headers: Iterable[str]) -> Iterator[Challenge]:
    """Yield the challenges in *headers*."""
    for header in headers:
        scheme, parameters = "", dict[str, str]()
        for name, quoted, plain, word in _PARTS.findall(header):
            if word:
                if scheme:
                    yield _challenge(scheme, parameters)
                scheme, parameters = word.lower(), {}
            else:
                parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) or plain
        if scheme:
            yield _challenge(scheme, parameters)


def _challenge(scheme: str, parameters: dict[str, str]) -> Challenge:
    return Challenge(scheme, *(parameters.get(name, "") for name in ("realm", "service", "scope")))


class _Held(NamedTuple):
    """The header that is sent, and until when, by the monotonic clock."""

    header: str | None = None
    due: float = math.inf
    """When it is renewed."""
    ends: float = math.inf
    """When it is worth nothing any more."""


class Authorization:
    """The header for requests to a repository.  Safe under concurrency.

    Tokens are renewed before they end, and when the registry refuses one.  One thread does it for all that wait, and if
    it fails, it has failed for all of them.  `_lock` guards all attributes; `_held` is replaced as a whole and read
    without it.
    """

    def __init__(self, place: Place, connections: Connections, find: Callable[[float], Credentials | None]) -> None:
        """*find* reads the credentials within some seconds, each time: a helper may have new ones."""
        self._place = place
        self._connections = connections
        self._find = find
        self._credentials: Credentials | None = None
        self._has_read = False
        """Whether the credentials were read, even if there are none."""
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._held = _Held()
        self._failure: Exception | None = None
        """That of the last renewal, None if it succeeded."""
        self._failures = 0
        self._fails_until = 0.0
        """When a renewal is tried again, by the monotonic clock."""

    def header(self, limits: Callable[[], Limits]) -> str | None:
        """Return the value of ``Authorization``, None as long as the registry asked for none.

        *limits* are those of the request, now.  Raises as `renew` does.
        """
        held, now = self._held, time.monotonic()
        if now < held.due or self._challenge is None:
            return held.header
        if now < held.ends:
            self._renew_early(held, self._challenge, limits)
        else:
            with self._turn(limits):
                if self._held is held:
                    self._renew(self._challenge, limits)
        return self._held.header

    def renew(self, answer: Answer, refused: str | None, limits: Callable[[], Limits]) -> None:
        """Get a new header, since *answer* has refused the header *refused*.

        Raises Unavailable if the registry denies access, ConnectionFailed, Transient or an ImgfsError if there is no
        token.
        """
        with self._turn(limits):
            if self._held.header != refused:  # another thread has renewed it meanwhile
                return
            asked = {challenge.scheme: challenge for challenge in challenges(answer.headers("WWW-Authenticate"))}
            challenge = asked.get("bearer") or asked.get("basic")
            if challenge is None:
                raise self._denied("it asks for neither Basic nor Bearer authorization")
            self._renew(challenge, limits)
            if self._held.header == refused:
                raise self._denied("it refuses the credentials")

    @contextmanager
    def _turn(self, limits: Callable[[], Limits]) -> Iterator[None]:
        """Hold the lock for a renewal; raise the failure of another one that was waited for."""
        failures = self._failures
        if not self._lock.acquire(timeout=min(limits().left, threading.TIMEOUT_MAX)):
            raise Transient(f"the registry {self._place.shown}: no authorization in time")
        try:
            if self._failure is not None and (failures != self._failures or time.monotonic() < self._fails_until):
                raise self._failure.with_traceback(None)
            try:
                yield
            except _FAILURES as error:
                self._failures += 1
                self._failure = error
                if isinstance(error, UsageError):  # else attempts have pauses of their own
                    self._fails_until = time.monotonic() + _BACK_OFF
                raise
            self._failure = None
        finally:
            self._lock.release()

    def _renew_early(self, held: _Held, challenge: Challenge, limits: Callable[[], Limits]) -> None:
        """Renew a token that still lives, unless another thread does; if that fails, it is used on."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._held is held:
                self._renew(challenge, lambda: Limits(min(limits().left / 2, _EARLY_PATIENCE)))
        except _FAILURES as error:
            log.info("the token for %s is not renewed yet: %s", self._place.shown, error)
            self._held = held._replace(due=time.monotonic() + _BACK_OFF)
        finally:
            self._lock.release()

    def _renew(self, challenge: Challenge, limits: Callable[[], Limits]) -> None:
        self._read_credentials(limits())
        credentials = self._credentials
        if challenge.scheme == "basic":
            if credentials is None or not credentials.user:
                raise self._denied("it asks for a user and a password")
            held = _Held(credentials.basic)
        elif credentials is not None and credentials.registry_token:
            held = _Held(f"Bearer {credentials.registry_token}", time.monotonic() + _LIFETIME)
        else:
            began = time.monotonic()
            token, lifetime = self._token(challenge, credentials, limits)
            lifetime = max(lifetime, _LIFETIME)
            due = lifetime - min(_EARLIEST, lifetime * _EARLY)
            held = _Held(f"Bearer {token}", began + due, began + lifetime)
        self._challenge, self._held = challenge, held

    def _read_credentials(self, limits: Limits) -> None:
        """Read the credentials again; if that fails later, as without root's capabilities, the last ones stay."""
        left = limits.left / 2 if self._has_read else limits.left
        try:
            self._credentials = self._find(min(HELPER_TIMEOUT, left))
        except UsageError:
            if not self._has_read:
                raise
        self._has_read = True

    def _token(
        self, challenge: Challenge, credentials: Credentials | None, limits: Callable[[], Limits]
    ) -> tuple[str, float]:
        """Return a new token and its lifetime in seconds."""
        if not challenge.realm:
            raise self._denied("it names no token server")
        try:
            realm = urlsplit(without_control(challenge.realm))
        except ValueError:
            raise self._denied("the URL of its token server is malformed") from None
        is_plain = self._place.insecure or (self._place.may_be_plain and is_loopback(realm.netloc))
        if realm.scheme not in (("https", "http") if is_plain else ("https",)) or not realm.hostname or realm.username:
            raise self._denied(f"its token server {printable(challenge.realm.partition('?')[0])} is not https")
        repository = self._place.repository
        scopes = challenge.scope.split() or [f"repository:{repository}:pull" if repository else "registry:catalog:*"]
        asked = [("service", challenge.service)] if challenge.service else []
        if credentials is not None and credentials.identity_token:
            form = [*asked, ("grant_type", "refresh_token"), ("client_id", "imgfs"), ("scope", " ".join(scopes))]
            body = urlencode([*form, ("refresh_token", credentials.identity_token)]).encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._asked("POST", challenge.realm, kind, limits, body)
        else:
            query = urlencode([*asked, *(("scope", scope) for scope in scopes)], quote_via=quote)
            url = f"{challenge.realm}{'&' if realm.query else '?'}{query}"
            headers = {"Authorization": credentials.basic} if credentials is not None and credentials.user else {}
            answer = self._asked("GET", url, headers, limits)
        return self._token_in(answer, printable(realm.netloc))

    def _asked(
        self, method: str, url: str, headers: Mapping[str, str], limits: Callable[[], Limits], body: bytes | None = None
    ) -> Answer:
        """Return the answer of the token server, redirects followed; only its own host gets secrets."""
        parts = urlsplit(url)
        first = parts
        for _ in range(_MAX_REDIRECTS + 1):
            pauses.check(parts.netloc)
            answer = self._connections.request(method, url, headers, limits(), body)
            if answer.status not in _REDIRECTS:
                return answer
            answer.discard()
            shown = printable(parts.netloc)
            try:
                url, parts = answer.redirected(url)
            except ValueError:
                raise RegistryError(f"the token server {shown} redirects to a malformed URL") from None
            is_plain = first.scheme == "http" and (self._place.insecure or is_loopback(parts.netloc))
            if parts.scheme not in (("https", "http") if is_plain else ("https",)) or not parts.hostname:
                raise RegistryError(f"the token server {shown} redirects to a URL that is not https")
            if answer.status in _REDIRECTS_TO_GET and body is not None:
                method, headers, body = "GET", {}, None
            if parts[:2] != first[:2]:
                headers = {}
                if body is not None:
                    raise RegistryError(f"the token server {shown} redirects an identity token to another host")
        raise RegistryError(f"the token server {printable(first.netloc)} redirects more than {_MAX_REDIRECTS} times")

    def _token_in(self, answer: Answer, host: str) -> tuple[str, float]:
        data = answer.document(_MAX_ANSWER)
        if answer.status in _DENIED:
            raise self._denied(f"{host} gives no token")
        if answer.status != _OK:
            text = f"the token server {host} answers {answer.status} {answer.reason}"
            if answer.status not in MAY_PASS:
                raise RegistryError(text)
            after = retry_after(answer.header("Retry-After"), answer.header("Date"))
            if after:
                text += f"; it asks to wait {after:.0f} s"
                pauses.begin(answer.host, after, text)
            raise Transient(text, after=after)
        try:
            document = json.loads(data or b"")
            token = document.get("token") or document.get("access_token")
            stated = float(document.get("expires_in") or _LIFETIME)
            lifetime = stated if math.isfinite(stated) else _LIFETIME
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            token, lifetime = None, 0.0
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryError(f"the token server {host} sends no token")
        return token, lifetime

    def _denied(self, why: str) -> Unavailable:
        place = self._place
        login = "" if self._credentials else f"; skopeo login {place.shown} or docker login {place.shown} logs in"
        what = printable(place.repository) or "its list of repositories"
        return Unavailable(f"the registry {place.shown} denies access to {what}: {why}{login}")
