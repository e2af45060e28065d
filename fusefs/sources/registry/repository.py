"""The requests to one repository: manifests and blobs, by the OCI distribution specification 1.1.

There is no request for ``/v2/`` and no HEAD of a blob: a request that needs authorization is told so.
"""

import json
import math
import re
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from fusefs.errors import InvalidImage, RegistryError, Unavailable
from fusefs.log import logger
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.pattern import pattern
from fusefs.ranges import Range
from fusefs.sources.registry.authorization import Authorization
from fusefs.sources.registry.availability import Availability
from fusefs.sources.registry.links import next_query
from fusefs.sources.registry.places import Place
from fusefs.sources.servers.connections import Answer, ConnectionFailed, Connections
from fusefs.sources.servers.retries import MAY_PASS, Retries, Transient, pauses, retry_after
from fusefs.text import printable

_ACCEPT = ", ".join([*sorted(documents.MANIFESTS), *sorted(documents.INDEXES)])
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 400, 401, 403
_NO_PARTS = (400, 403, 416, 501)
"""Answers to the request for a part of a blob after which all of it may be had."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MISSING = (404, 410)
_URL_EXPIRED = (400, 401, 403, 410)
"""Answers of a storage to a signed URL that is no longer valid."""
_DENIED = (401, 403, 410)
"""Those that stand if the next URL is refused, too."""
_NO_SUCH = (401, 403, 404, 410)
"""Answers to HEAD that may mean that there is no such manifest."""
_DENIED_FOR = 60.0
"""Seconds in which a blob that was refused as a whole is asked for in parts alone."""
_MAX_ERROR, _MAX_MESSAGE = 1 << 16, 300
_NO_LIST = (400, 404, 405, 406, 410)
"""Answers of registries without such a list."""
_NO_REFERRERS = (*_NO_LIST, 501)
_REFERRERS = "referrers/"
"""Where lists of referrers are: they may fail where all else works."""
_RANGE = pattern(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_NO_RANGE = pattern(r"bytes \*/([0-9]{1,19})")
_WARNING = pattern(r'299 - "((?:[^"\\]|\\.)*+)"')
"""What a registry tells its users (OCI distribution specification 1.1, "Warnings")."""
_MAX_WARNINGS = 100
_warned: set[tuple[str, str]] = set()
"""The warnings of this process, each with its registry: each is shown once."""

log = logger(__name__)


class Found(NamedTuple):
    """A manifest or an index as a registry sends it."""

    data: bytes
    """Empty if it was not asked for: see `Repository.current`."""
    media_type: str
    digest: Digest | None
    """As the registry states it, None if it does not."""


class Missing(Unavailable):
    """The registry has no such manifest, blob or list."""


class _UrlRefused(Transient):
    """A storage refuses a signed URL, which may have expired, or what was asked of it."""


class Repository:
    """One place of a repository.  Safe under concurrency."""

    def __init__(self, place: Place, connections: Connections, authorization: Authorization) -> None:
        self.place = place
        self.availability = Availability(place.shown)
        self._connections = connections
        self._authorization = authorization
        self._scheme = "https"
        self._answered = False
        self._stored: dict[Digest, str] = {}
        """Where blobs are, on other hosts, as the registry said last."""
        self._denied: dict[Digest, tuple[float, int | None]] = {}
        """When and how (None: their URL) blobs were refused as a whole: for a while, that refusal of a part stands."""

    def attempt_failed(self, why: str) -> None:
        """Count an attempt that failed, and note why."""
        self.availability.failing = why
        self._connections.traffic.count(errors=1)

    def manifest(self, reference: str, retries: Retries) -> Found:
        """Return the manifest or index *reference*, a tag or a digest.

        Raises Unavailable if there is none or access is denied, Transient, RegistryError, InvalidImage if it is large.
        """
        answer = self._get("GET", f"manifests/{reference}", {"Accept": _ACCEPT}, retries)
        return Found(self._document(answer, f"manifest {reference}"), _media_type(answer), _stated_digest(answer))

    def current(self, reference: str, retries: Retries, *, trusts_head: bool) -> Found:
        """Return what *reference* is now: as HEAD tells it, without the data; with them if HEAD is refused.

        Some registries, and storages that they redirect to, answer GET alone.  *trusts_head*: but if HEAD finds no
        such manifest, or may not see it, there is none.  Raises as `manifest` does.
        """
        path = f"manifests/{reference}"
        answer = self._sent("HEAD", path, {"Accept": _ACCEPT}, retries)
        answer.discard()
        if answer.status == _OK:
            return Found(b"", _media_type(answer), _stated_digest(answer))
        if answer.status in MAY_PASS or (trusts_head and answer.status in _NO_SUCH):
            self._refused(answer, path)
        return self.manifest(reference, retries)

    def blob(self, blob: Descriptor, wanted: Range, retries: Retries) -> tuple[Answer, int]:
        """Return an answer with bytes of *blob*, and where it begins: the bytes *wanted*, or all from 0 on.

        Raises as `manifest` does, but InvalidImage if the registry sends another number of bytes.
        """
        try:
            answer, begins = self._blob(blob, wanted, retries)
        except BaseException:
            self._stored.pop(blob.digest, None)
            raise
        if answer.host != self.place.host:
            self._stored[blob.digest] = answer.url
        return answer, begins

    def _blob(self, blob: Descriptor, wanted: Range, retries: Retries) -> tuple[Answer, int]:
        (start, end), (_, size, digest) = wanted, blob[:3]
        if wanted == (0, size) or retries.without_parts:
            answer = self._of_blob(digest, {}, retries)
        else:
            answer = self._part_of_blob(blob, wanted, retries)
        if answer.status not in (_OK, _PARTIAL):
            self._refused(answer, f"blobs/{digest}")
        begins, ends = 0, size
        if answer.status == _PARTIAL:
            match = _RANGE.fullmatch(answer.header("Content-Range"))
            if match is None or (int(match[1]), int(match[2])) != (start, end - 1) or match[3] not in ("*", str(size)):
                answer.close()
                shown = printable(answer.header("Content-Range")) or "nothing"
                raise Transient(
                    f"{self._name}: asked for bytes {start}-{end - 1}/{size} of {digest}, the registry sends {shown}",
                    once=True,
                )
            begins, ends = start, end
        length = answer.header("Content-Length")
        if length.isascii() and length.isdigit() and (stated := int(length[:20])) != ends - begins:
            answer.close()
            raise self._of_other_size(blob, begins + stated)
        return answer, begins

    def _from_storage(self, digest: Digest, headers: Mapping[str, str], retries: Retries) -> Answer | None:
        """Return the answer from where the blob was before; None if the registry must be asked for another URL."""
        url = self._stored.get(digest)
        if url is None:
            return None
        pauses.check(urlsplit(url).netloc.rpartition("@")[2])
        try:
            answer = self._requested("GET", url, headers, retries)
            if answer.status in (_OK, _PARTIAL):
                return answer
            answer.discard()
        except ConnectionFailed as error:
            if not error.refused:  # otherwise the blob may have moved
                raise self.broken(error) from None
        return None

    def _of_blob(self, digest: Digest, headers: Mapping[str, str], retries: Retries) -> Answer:
        return self._from_storage(digest, headers, retries) or self._sent("GET", f"blobs/{digest}", headers, retries)

    def _part_of_blob(self, blob: Descriptor, wanted: Range, retries: Retries) -> Answer:
        """Return the answer to a request for a part, or for all of *blob* from a server that refuses parts.

        The body of a refusal is not read: docker-registry 2.8 states the size of the blob as its length, and sends one
        line.
        """
        digest = blob.digest
        try:
            answer = self._of_blob(digest, {"Range": f"bytes={wanted[0]}-{wanted[1] - 1}"}, retries)
        except _UrlRefused:
            if not retries.part_refused or self._is_denied(digest, None):
                retries.part_refused = True
                raise
        else:
            if answer.status not in _NO_PARTS:
                self._denied.pop(digest, None)
                return answer
            if answer.status != _UNSATISFIABLE and self._is_denied(digest, answer.status):
                return answer
            answer.close()
            match = _NO_RANGE.fullmatch(answer.header("Content-Range"))
            if answer.status == _UNSATISFIABLE and match is not None and int(match[1]) != blob.size:
                raise self._of_other_size(blob, int(match[1]))
        try:
            answer = self._of_blob(digest, {}, retries)
        except _UrlRefused:
            self._denied[digest] = time.monotonic(), None
            raise
        if answer.status == _OK:
            retries.without_parts = True
        elif answer.status not in MAY_PASS:
            self._denied[digest] = time.monotonic(), answer.status
        return answer

    def _is_denied(self, digest: Digest, status: int | None) -> bool:
        when, found = self._denied.get(digest, (-math.inf, None))
        return found == status and time.monotonic() - when < _DENIED_FOR

    def _of_other_size(self, blob: Descriptor, size: int) -> InvalidImage:
        text = f"{blob.digest} has {size} bytes in the registry, the manifest says {blob.size}"
        return InvalidImage(f"{self._name}: {text}")

    def referrers(self, subject: Digest, query: str, retries: Retries) -> tuple[bytes, str | None]:
        """Return a page of the list of manifests that refer to *subject*, an index, and the query of the next page.

        The first page has no *query*, and the last one an empty one to follow; None: it is at another place.  Raises as
        `manifest` does; Missing for a registry without such lists.
        """
        path = f"{_REFERRERS}{subject}{query and '?'}{query}"
        answer = self._sent("GET", path, {"Accept": documents.OCI_INDEX}, retries)
        if answer.status in _NO_REFERRERS or (answer.status == _OK and _media_type(answer) != documents.OCI_INDEX):
            answer.discard()
            raise Missing(f"the registry {self.place.shown} has no list of referrers")
        if answer.status != _OK:
            self._refused(answer, path)
        is_elsewhere = answer.host != self.place.host
        data = self._document(answer, f"list of referrers of {subject}", once=is_elsewhere)
        return data, next_query(answer.headers("Link"), self._url(self._below(path)))

    def names(self, path: str, query: str, retries: Retries) -> tuple[bytes, str | None]:
        """Return a page of a list of names, ``tags/list`` or ``_catalog``, and the query of the next page.

        None: the link to it is malformed.  Behind a proxy, registries state hosts that are not theirs: only the query
        is used.  Raises as `manifest` does; Missing for a registry without such a list.
        """
        path = f"{path}?{query}"
        answer = self._sent("GET", path, {"Accept": "application/json"}, retries)
        if answer.status in _NO_LIST:
            message = _message(answer)
            raise Missing(f"the registry {self.place.shown} has no {self._what(path)}{message and f' ({message})'}")
        if answer.status != _OK:
            self._refused(answer, path)
        following = next_query(answer.headers("Link"), self._url(self._below(path)), anywhere=True)
        return self._document(answer, self._what(path)), following

    @property
    def _name(self) -> str:
        return f"{self.place.shown}/{printable(self.place.repository)}".rstrip("/")

    def _document(self, answer: Answer, what: str, *, once: bool = False) -> bytes:
        """Return the body of an answer; *once*: see `Transient`."""
        try:
            data = answer.document(documents.DOCUMENT_LIMIT)
        except ConnectionFailed as error:
            raise self.broken(error, once=once) from None
        if data is None:
            raise InvalidImage(f"{self._name}: the {what} has more than {documents.DOCUMENT_LIMIT} bytes")
        if not data:  # as if the connection ended in the headers
            raise Transient(f"{self._name}: the registry sends nothing for the {what}")
        return data

    def _get(self, method: str, path: str, headers: Mapping[str, str], retries: Retries) -> Answer:
        """Return a successful answer."""
        answer = self._sent(method, path, headers, retries)
        if answer.status not in (_OK, _PARTIAL):
            self._refused(answer, path)
        return answer

    def _sent(self, method: str, path: str, headers: Mapping[str, str], retries: Retries) -> Answer:
        """Return the answer, authorized and from where the registry redirects to, whatever its status is."""
        try:
            return self._authorized(method, self._below(path), headers, retries)
        except ConnectionFailed as error:  # the host of the lists alone may be down
            once = path.startswith(_REFERRERS) and error.host != self.place.host
            raise self.broken(error, once=once) from None

    def _authorized(self, method: str, path: str, headers: Mapping[str, str], retries: Retries) -> Answer:
        for attempt in range(2):
            header = self._authorization.header(retries.limits)
            authorized = {**headers, "Authorization": header} if header else headers
            answer = self._ask(method, path, authorized, retries)
            url = self._url(path)
            answer = self._followed(method, answer, url, authorized, retries)
            is_refused = answer.status == _UNAUTHORIZED and answer.url == url
            if attempt or not (is_refused or _challenges(answer, url)):
                break
            answer.discard()
            self._authorization.renew(answer, header, retries.limits)
        return answer

    def _ask(self, method: str, path: str, headers: Mapping[str, str], retries: Retries) -> Answer:
        """Ask the registry itself; a place that may be plain, and does not speak TLS, by plain HTTP.

        Only an answer decides on the scheme: a registry that is down now may speak TLS when it is back.
        """
        scheme, may_change = self._scheme, self.place.may_be_plain and not self._answered
        failure: ConnectionFailed | None = None
        try:
            answer = self._asked_by(scheme, method, path, headers, retries)
        except ConnectionFailed as error:
            if not may_change or not error.no_tls:
                raise
            failure = error
        if failure is not None:  # not in the handler: Python would take it for the cause of the next failure
            scheme = "http"
            answer = self._asked_by(scheme, method, path, headers, retries)
            if answer.status == _BAD_REQUEST and not failure.no_handshake:  # a server of TLS that was starting, perhaps
                answer.close()
                raise failure
        if not self._answered:
            self._scheme, self._answered = scheme, True
        return answer

    def _asked_by(self, scheme: str, method: str, path: str, headers: Mapping[str, str], retries: Retries) -> Answer:
        pauses.check(self.place.host)
        answer = self._requested(method, f"{scheme}://{self.place.host}{path}", headers, retries)
        for text in _WARNING.findall(", ".join(answer.headers("Warning"))):
            self._warn(printable(re.sub(r"\\(.)", r"\1", text)[:_MAX_MESSAGE]))
        return answer

    def _warn(self, text: str) -> None:
        warning = self.place.shown, text
        if warning not in _warned and len(_warned) < _MAX_WARNINGS:
            _warned.add(warning)
            log.warning("the registry %s warns: %s", *warning)

    def _requested(self, method: str, url: str, headers: Mapping[str, str], retries: Retries) -> Answer:
        answer = self._connections.request(method, url, headers, retries.limits())
        retries.answered()
        return answer

    def _below(self, path: str) -> str:
        """Return the whole path; a place without a repository is the registry itself."""
        repository = self.place.repository
        return f"/v2/{repository}{repository and '/'}{path}"

    def _url(self, path: str) -> str:
        return f"{self._scheme}://{self.place.host}{path}"

    def _followed(self, method: str, answer: Answer, url: str, headers: Mapping[str, str], retries: Retries) -> Answer:
        """Return the answer to which *answer* redirects, or itself; another host gets no authorization."""
        first = url
        origin: tuple[str, ...] | None = urlsplit(url)[:2]
        for _ in range(_MAX_REDIRECTS):
            if answer.status not in _REDIRECTS:
                return answer
            answer.discard()
            try:
                url, parts = answer.redirected(url)
                if not parts.hostname:
                    raise ValueError
            except ValueError:
                raise RegistryError(f"{self._name}: the registry redirects to a malformed URL") from None
            if parts.scheme not in (("https", "http") if self._scheme == "http" or self.place.insecure else ("https",)):
                raise RegistryError(f"{self._name}: the registry redirects to a URL that is not https")
            if parts[:2] != origin:  # for good: that host may redirect back to anything
                origin = None
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            pauses.check(parts.netloc.rpartition("@")[2])
            answer = self._requested(method, url, headers, retries)
            if origin is not None and _challenges(answer, first):
                return answer
            if answer.status in _URL_EXPIRED and method != "HEAD":  # a signed URL is for one method
                answer.close()
                shown = printable(parts.netloc.rpartition("@")[2])
                text = f"{self._name}: the storage {shown} answers {answer.status} {answer.reason}"
                raise _UrlRefused(text, once=True, denied=answer.status in _DENIED)
        raise RegistryError(f"{self._name}: the registry redirects more than {_MAX_REDIRECTS} times")

    def broken(self, error: ConnectionFailed, *, once: bool = False) -> Transient | RegistryError:
        """Return the failure for a connection that broke or could not be made; *once*: see `Transient`."""
        shown = self.place.shown
        named, authority = f"the registry {error}", "its authority"
        if error.host != self.place.host:  # its token server, or where it redirects to
            named, authority = f"{error}; the registry {shown} leads there", f"the authority of {printable(error.host)}"
        if error.untrusted:
            return RegistryError(
                f"cannot trust {named}; put {authority} into /etc/containers/certs.d/{shown}/, or use --insecure"
            )
        if error.malformed or ((error.no_handshake or error.not_http) and not self._answered):
            may_help = error.no_handshake and not self.place.may_be_plain
            hint = "; if it speaks plain HTTP, --insecure allows that" if may_help else ""
            return RegistryError(f"cannot reach {named}{hint}")
        return Transient(f"cannot reach {named}", once=once, down=error.refused)

    def _refused(self, answer: Answer, path: str) -> None:
        """Raise the error for an *answer* that is not a success."""
        status, message = answer.status, _message(answer)
        shown = f"{status} {answer.reason}".strip() + (f" ({message})" if message else "")
        if status in _MISSING:
            raise Missing(f"the registry {self.place.shown} has no {self._what(path)}: {shown}")
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            raise Unavailable(f"the registry {self.place.shown} denies access to {self._what(path)}: {shown}")
        text = f"the registry {self.place.shown} answers {shown} to the request for {self._what(path)}"
        if status in MAY_PASS:
            after = retry_after(answer.header("Retry-After"), answer.header("Date"))
            text += f"; it asks to wait {after:.0f} s" if after is not None else ""
            if after:
                pauses.begin(answer.host, after, text)
            raise Transient(text, after=after, once=path.startswith(_REFERRERS))
        raise RegistryError(text)

    def _what(self, path: str) -> str:
        kind, _, reference = path.partition("?")[0].partition("/")
        colon = "@" if ":" in reference else ":"
        named = f"{printable(self.place.repository)}{colon}{reference}"
        lists = {
            "referrers": f"list of referrers of {named}",
            "tags": f"list of tags of {printable(self.place.repository)}",
            "_catalog": "list of repositories",
        }
        return named if kind == "manifests" else lists.get(kind, f"blob {reference}")


def _challenges(answer: Answer, url: str) -> bool:
    """Return whether *answer* asks for authorization, and is from the server of *url*."""
    is_same = urlsplit(answer.url)[:2] == urlsplit(url)[:2]
    return is_same and answer.status == _UNAUTHORIZED and bool(answer.header("WWW-Authenticate"))


def _media_type(answer: Answer) -> str:
    return answer.header("Content-Type").partition(";")[0].strip()


def _stated_digest(answer: Answer) -> Digest | None:
    try:
        return Digest.parse(answer.header("Docker-Content-Digest"))
    except ValueError:
        return None


def _message(answer: Answer) -> str:
    """Return the registry's reason for an error, as the specification has it, empty without one."""
    try:
        data = answer.document(_MAX_ERROR)
        error = json.loads(data or b"")["errors"][0]
        text = ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))
    except (ConnectionFailed, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return printable(text[:_MAX_MESSAGE])
