"""The authorization for one repository: Basic, or Bearer with a token (distribution's token and OAuth protocols)."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from fusefs.errors import RegistryError, Unavailable, UsageError
from fusefs.sources.registry.connections import Answer, Connections, Limits
from fusefs.sources.registry.credentials import Credentials
from fusefs.sources.registry.places import Place, is_loopback
from fusefs.sources.registry.retries import Transient
from fusefs.text import printable

_OK = 200
_DENIED = (400, 401, 403)
_LIFETIME = 60.0
"""Seconds that a token lives at least, and if its server does not say."""
_EARLY, _EARLIEST = 0.1, 30.0
"""A token is renewed in this last part of its lifetime, and at most so many seconds before its end."""
_MAX_ANSWER = 1 << 20
_PARTS = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|([A-Za-z]+)')
"""A parameter of a challenge, or its scheme."""


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


def _usable(lifetime: float) -> float:
    """Return the seconds after which a token of this *lifetime* is renewed."""
    lifetime = max(lifetime, _LIFETIME)
    return lifetime - min(_EARLIEST, lifetime * _EARLY)


class Authorization:
    """The header for requests to a repository.  Safe under concurrency: `_lock` guards all attributes.

    Tokens are renewed before they end, and when the registry refuses one; one thread does it for all that wait.
    """

    def __init__(self, place: Place, connections: Connections, find: Callable[[], Credentials | None]) -> None:
        """*find* reads the credentials, each time: a helper may have new ones."""
        self._place = place
        self._connections = connections
        self._find = find
        self._credentials: Credentials | None = None
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._header: str | None = None
        self._ends = 0.0

    def header(self, limits: Limits) -> str | None:
        """Return the value of ``Authorization``, None as long as the registry asked for none."""
        with self._lock:
            if self._challenge is not None and self._challenge.scheme == "bearer" and time.monotonic() > self._ends:
                self._renew(self._challenge, limits)
            return self._header

    def renew(self, answer: Answer, refused: str | None, limits: Limits) -> None:
        """Get a new header, since *answer* has refused the header *refused*.

        Raises Unavailable if the registry denies access, ConnectionFailed, Transient or RegistryError if there is no
        token.
        """
        with self._lock:
            if self._header != refused:  # another thread has renewed it meanwhile
                return
            asked = {challenge.scheme: challenge for challenge in challenges(answer.headers("WWW-Authenticate"))}
            challenge = asked.get("bearer") or asked.get("basic")
            if challenge is None:
                raise self._denied("it asks for neither Basic nor Bearer authorization")
            self._renew(challenge, limits)
            if self._header == refused:
                raise self._denied("it refuses the credentials")

    def _renew(self, challenge: Challenge, limits: Limits) -> None:
        self._read_credentials()
        credentials = self._credentials
        if challenge.scheme == "basic":
            if credentials is None or not credentials.user:
                raise self._denied("it asks for a user and a password")
            self._header, self._ends = credentials.basic, 0.0
        elif credentials is not None and credentials.registry_token:
            self._header, self._ends = f"Bearer {credentials.registry_token}", time.monotonic() + _LIFETIME
        else:
            began = time.monotonic()
            token, lifetime = self._token(challenge, credentials, limits)
            self._header, self._ends = f"Bearer {token}", began + _usable(lifetime)
        self._challenge = challenge

    def _read_credentials(self) -> None:
        """Read the credentials again; if that fails later, as without root's capabilities, the last ones stay."""
        try:
            self._credentials = self._find()
        except UsageError:
            if self._credentials is None:
                raise

    def _token(self, challenge: Challenge, credentials: Credentials | None, limits: Limits) -> tuple[str, float]:
        """Return a new token and its lifetime in seconds."""
        try:
            realm = urlsplit(challenge.realm)
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
            answer = self._connections.request("POST", challenge.realm, kind, limits, body)
        else:
            query = urlencode([*asked, *(("scope", scope) for scope in scopes)], quote_via=quote)
            url = f"{challenge.realm}{'&' if realm.query else '?'}{query}"
            headers = {"Authorization": credentials.basic} if credentials is not None and credentials.user else {}
            answer = self._connections.request("GET", url, headers, limits)
        return self._token_in(answer, printable(realm.netloc))

    def _token_in(self, answer: Answer, host: str) -> tuple[str, float]:
        data = answer.document(_MAX_ANSWER)
        if answer.status in _DENIED:
            raise self._denied(f"{host} gives no token")
        if answer.status != _OK:
            raise Transient(f"the token server {host} answers {answer.status} {answer.reason}")
        try:
            document = json.loads(data or b"")
            token = document.get("token") or document.get("access_token")
            lifetime = float(document.get("expires_in") or _LIFETIME)
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
