"""The IMAGE argument: the name of an image and the place to look for it.

Grammars: containers-transports(5) for the transports, github.com/distribution/reference for names.
"""

import os
import re
from typing import NamedTuple

from fusefs.errors import UsageError
from fusefs.oci.reference import RegistryReference, check_reference, registry_reference
from fusefs.oci.transport import (
    DOCKER_ARCHIVE,
    DOCKER_DAEMON,
    OCI,
    REGISTRY,
    STANDARD_INPUT,
    URL_SCHEMES,
    Source,
    Transport,
    transport_of,
    url_start,
)
from fusefs.pattern import pattern
from fusefs.text import printable, quoted, without_password

ARCHIVE_ENDINGS = tuple(
    f".{ending}" for ending in ("tar", "tar.gz", "tgz", "tar.zst", "tzst", "tar.xz", "txz", "tar.bz2", "tbz2", "tbz")
)

STDIN = "-"
"""The argument, and the path, of an image that comes through standard input."""
_INDEX = r"@[0-9]{1,18}"

_UNREAD = {
    "containers-storage": "podman save it, or start podman's service and give its socket to --host",
    "dir": "skopeo copy it to oci:DIR, then give that",
}
"""Transports of skopeo that imgfs does not read, and what to do instead."""
_HOST = pattern(rf"(?:{'|'.join(URL_SCHEMES)})://[^/?]*", re.IGNORECASE)
"""A URL up to its path: a colon behind it begins the name of an image."""
_DELETE = 0x7F
_MAX_LABEL = 63
"""Characters between two dots of a host's name (RFC 1035)."""
_URL_CHARACTERS = pattern(r"[!$-;=?-\[\]_a-z~]+")
"""Printable ASCII without those that no URL contains."""


class EngineImage(NamedTuple):
    """An image in an engine: a name, with tag or digest or neither, or an ID or its beginning."""

    text: str


class RegistryImage(NamedTuple):
    """An image in a registry."""

    reference: RegistryReference


class FileImage(NamedTuple):
    """An image in a file, a directory or a pipe."""

    transport: Transport | None
    """None: its contents decide."""
    path: str
    """`STDIN` is standard input."""
    choice: str | int | None
    """The name or the index that picks one of several images."""

    def source(self, name: str, transport: Transport) -> Source:
        """Return where its image, called *name*, came from; *transport* is the one that its contents decided."""
        place = STANDARD_INPUT if self.path == STDIN else os.path.abspath(self.path)
        return Source(name, transport, place, self.choice)


class UrlImage(NamedTuple):
    """An image in an archive at a URL."""

    transport: Transport | None
    """None: its contents decide."""
    url: str
    choice: str | int | None
    """The name or the index that picks one of several images."""

    @property
    def shown(self) -> str:
        """The URL for messages and lists: without its query, which may be a signature."""
        return printable(public_name(self.url))

    def source(self, name: str, transport: Transport) -> Source:
        """Return where its image, called *name*, came from; *transport* is the one that its contents decided."""
        return Source(public_name(name), transport, self.shown, self.choice)


def public_name(argument: str) -> str:
    """Return an IMAGE *argument* for messages and lists: the query of a URL, which may be a signature, is left out."""
    start = url_start(argument)
    url, question, query = argument.partition("?")
    if start is None or not question:
        return argument
    return "".join((url, "?…", *(query.partition(":")[1:] if start else ())))


def parse_image(argument: str) -> EngineImage | RegistryImage | FileImage | UrlImage:
    """Return the image that *argument* asks for; UsageError if it is malformed."""
    transport = transport_of(argument)
    word, _, rest = argument.partition(":")
    if url_start(argument) == 0:
        return UrlImage(None, _checked_url(argument), None)
    if argument == STDIN or _is_path(argument):
        return _path(argument)
    if transport is DOCKER_DAEMON:
        argument = rest
    elif transport is REGISTRY:
        return RegistryImage(registry_reference(argument.removeprefix(REGISTRY.prefix)))
    elif transport is not None:
        return _file(transport, rest)
    if "://" in argument:
        shown = printable(without_password(argument))
        raise UsageError(f"bad reference '{shown}': a registry's image is {REGISTRY.grammar}")
    if word in _UNREAD and (word != "dir" or rest.startswith(("/", "."))):
        raise UsageError(f"bad reference '{printable(argument)}': {word}: is not read; {_UNREAD[word]}")
    try:
        check_reference(argument)
    except UsageError as error:
        if os.path.exists(argument):
            raise UsageError(f"{error}; write {quoted(f'./{argument}')} for the file of that name") from None
        raise
    return EngineImage(argument)


def _is_path(argument: str) -> bool:
    """Return whether *argument* is spelled as a path.  The file system is not asked: no directory shadows an image."""
    if argument.startswith(("/", "./", "../")):
        return True
    return ":" not in argument and argument.lower().endswith(ARCHIVE_ENDINGS)


def _path(argument: str) -> FileImage:
    """Return the image at a path: all of *argument*, or its beginning if only that exists: ``./oci:v2``."""
    for match in re.finditer(":", "" if os.path.lexists(argument) else argument):
        path, choice = argument[: match.start()], argument[match.end() :]
        if choice and os.path.exists(path):
            index = re.fullmatch(_INDEX, choice)
            return FileImage(None, path, int(choice[1:]) if index else choice)
    return FileImage(None, argument, None)


def _file(transport: Transport, rest: str) -> FileImage | UrlImage:
    """Return the image that *rest* names: ``PATH``, ``PATH:REF`` or, of a Docker archive, ``PATH:@INDEX``."""
    host = _HOST.match(rest)
    start = host.end() if host else 0
    path, colon, choice = rest[start:].partition(":")
    path = rest[:start] + path
    if not path or (colon and not choice):
        raise UsageError(f"bad reference '{transport.prefix}{printable(rest)}': expected {transport.grammar}")
    kind = UrlImage if host else FileImage
    if host and transport is OCI:
        raise UsageError(f"bad reference '{transport.prefix}{printable(public_name(rest))}': a URL names an archive")
    path = _checked_url(path) if host else path
    if not colon:
        return kind(transport, path, None)
    if re.fullmatch(_INDEX, choice):
        return kind(transport, path, int(choice[1:]))
    if transport is not DOCKER_ARCHIVE:
        return kind(transport, path, choice)  # names in an image layout are free text
    if choice.startswith("@"):
        raise UsageError(f"bad reference: '{printable(choice)}' is no index; expected @0, @1, …")
    check_reference(choice)
    return kind(transport, path, choice)


def _checked_url(url: str) -> str:
    """Return *url*, the scheme in lower case; UsageError if it cannot be asked for."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].partition("?")[0]
    if not host.rpartition("@")[2].partition(":")[0]:
        raise UsageError(
            f"bad URL '{printable(public_name(url))}': the host is missing, as in {scheme.lower()}://HOST/PATH"
        )
    if not _URL_CHARACTERS.fullmatch(rest):
        raise UsageError(
            f"bad URL '{printable(public_name(url))}': spell characters outside of ASCII, and # and \\, as %XX"
        )
    shown = printable(without_password(public_name(url)))
    has_user = UsageError(f"bad URL '{shown}': it must not contain a user")
    if "@" in host:
        raise has_user
    labels = host.partition(":")[0].removesuffix(".").split(".")
    if scheme.lower().startswith("http") and not all(0 < len(label) <= _MAX_LABEL for label in labels):
        raise UsageError(f"bad URL '{shown}': no host can have that name")
    from urllib.parse import urlsplit  # noqa: PLC0415 - few arguments are URLs, and it takes 2 ms

    try:
        if urlsplit(url).port == 0:  # the property raises ValueError, too
            raise ValueError("Port out of range 1-65535")
    except ValueError as error:
        if without_password(url) != url:  # a password with a slash: the error contains its beginning
            raise has_user from None
        raise UsageError(f"bad URL '{shown}': {printable(str(error))}") from None
    if not (scheme.lower().startswith("http") or rest.partition("?")[0].partition("/")[2].strip("/")):
        bucket = "CONTAINER" if scheme.lower() == "az" else "BUCKET"
        raise UsageError(f"bad URL '{shown}': the key is missing, as in {scheme.lower()}://{bucket}/KEY")
    if not scheme.lower().startswith("http") and (rule := _broken_key_rule(rest.partition("/")[2])):
        raise UsageError(f"bad URL '{shown}': imgfs cannot ask for a key {rule}")
    return f"{scheme.lower()}://{rest}"


def _broken_key_rule(spelled: str) -> str:
    """Return what a key has that obstore alters or refuses, empty for a good one.  *spelled*: as in a URL."""
    from urllib.parse import unquote_to_bytes  # noqa: PLC0415 - few arguments are URLs, and it takes 2 ms

    key = unquote_to_bytes(spelled)
    rules = (
        ({b"", b".", b".."} & {*key.split(b"/")}, "with an empty part between slashes, or . or .. as one"),
        (any(char < ord(" ") or char == _DELETE for char in key), "with control characters"),
        (key.decode(errors="replace").encode() != key, "that is not UTF-8"),
    )
    return next((rule for broken, rule in rules if broken), "")
