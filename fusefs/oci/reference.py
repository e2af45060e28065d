"""Names of images.

Grammar: github.com/distribution/reference.
"""

import re
from typing import NamedTuple

from fusefs.errors import UsageError
from fusefs.pattern import pattern
from fusefs.text import printable, without_password

_MAX_NAME = 255
_MAX_PORT = 65535
_NO_PORT = f"a port is a number from 1 to {_MAX_PORT}"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = pattern(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
)
_TAG = pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = pattern(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_IMAGE_ID = pattern(r"sha256:[0-9a-f]{1,64}")
_ID = pattern(r"[0-9a-f]{64}")
"""No name in a registry, by the grammar: engines write an image's ID so."""
_PATH = pattern(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_HOST = pattern(_DOMAIN)
DOCKER_HUB = "docker.io"
"""The registry of names without one."""


class RegistryReference(NamedTuple):
    """The name of an image in a registry, in its full form."""

    host: str
    """With its port, if it states one: ``docker.io``, ``localhost:5000``."""
    repository: str
    """The path of the repository: ``library/nginx``."""
    tag: str
    """Empty if the digest alone names the image."""
    digest: str
    """It decides, whatever the tag is; empty without one."""

    @property
    def name(self) -> str:
        """The name without tag and digest."""
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def check_reference(text: str) -> None:
    """Raise UsageError unless *text* is a name, with tag or digest or neither, or an image ID."""
    match = _REFERENCE.fullmatch(text)
    if match is None and _IMAGE_ID.fullmatch(text) is None:
        raise UsageError(f"bad reference '{_shown(text)}': {_broken_rule(text)}")
    if match is not None and len(match["name"]) > _MAX_NAME:
        raise UsageError(f"bad reference: the name has {len(match['name'])} characters, more than {_MAX_NAME}")
    if match is not None and match["digest"]:
        from fusefs.oci.digest import Digest  # noqa: PLC0415 - most names have none, and hashlib takes 2 ms

        try:
            Digest.parse(match["digest"])
        except ValueError as error:
            raise UsageError(f"bad reference '{printable(text)}': {printable(str(error))}") from None


def _shown(text: str) -> str:
    """Return *text*, which is no reference, for messages: without a password, unless its ``@`` begins a digest."""
    return printable(text if re.fullmatch(r"[^@]*@sha[0-9]+:[^@/]*", text) else without_password(text))


def _has_port(host: str) -> bool:
    """Return whether the port of *host* is possible, or it states none."""
    port = host.rpartition(":")[2].lstrip("0")
    return ":" not in host or host.endswith("]") or (0 < len(port) <= len(str(_MAX_PORT)) and int(port) <= _MAX_PORT)


def _broken_rule(text: str) -> str:
    """Return the rule that *text*, which is no reference, breaks."""
    rest, at, digest = text.partition("@")
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    name = f"{head}{slash}{last}"
    odd = next((char for char in name if not (char.isascii() and (char.isalnum() or char in "._-/:[]"))), "")
    rules = (
        (not text, "it is empty"),
        (at and "/" in digest, "it must not contain a user"),
        (_REFERENCE.fullmatch(text.lower()) is not None, "repository names are lower case"),
        (":/" in text, "no name has ':/', which begins a path where IMAGE:/PATH is possible"),
        (at and not _DIGEST.fullmatch(digest), "a digest is as sha256:… with 64 hexadecimal digits"),
        (colon and not _TAG.fullmatch(tag), "a tag has up to 128 letters, digits and . _ -, and none of . - at first"),
        (odd, f"a name has no '{printable(odd)}'"),
        (name != name.lower(), "repository names are lower case"),
    )
    separators = "each part of a name begins and ends with a letter or digit, and has one of . _ __ - in between"
    return next((rule for broken, rule in rules if broken), separators)


def registry_reference(text: str) -> RegistryReference:
    """Return the image in a registry that *text* names, as in ``nginx``; UsageError if it is malformed or an ID."""
    check_reference(text)
    if _ID.fullmatch(text):
        raise UsageError(f"bad reference '{text}': it is an image ID, which only engines know")
    match = _REFERENCE.fullmatch(text)
    assert match is not None  # of an image ID it is name and tag, as for skopeo
    reference = _full(match)
    if not _has_port(reference.host):
        raise UsageError(f"bad reference '{_shown(text)}': {_NO_PORT}")
    return reference


def is_image_id(text: str) -> bool:
    """Return whether *text* is the ID of an image in an engine, whole or, with its algorithm, the beginning of one."""
    return _ID.fullmatch(text) is not None or _IMAGE_ID.fullmatch(text) is not None


def full_reference(text: str) -> RegistryReference | None:
    """Return the image in a registry that *text* names in full, None if it does not begin with a registry."""
    match = _REFERENCE.fullmatch(text)
    host, _, path = match["name"].partition("/") if match else ("", "", "")
    if match is None or not path or not _is_host(host) or len(match["name"]) > _MAX_NAME:
        return None
    return RegistryReference(host, path, match["tag"] or "", match["digest"] or "")


def is_repository(text: str) -> bool:
    """Return whether *text* is the path of a repository in a registry: ``library/nginx``."""
    return len(text) <= _MAX_NAME and _PATH.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Return whether *text* is a tag."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Return whether *text* is a digest."""
    return _DIGEST.fullmatch(text) is not None


def registry_namespace(text: str) -> tuple[str, str]:
    """Return registry and folder that ``HOST[/NAMESPACE]`` names, as in ``docker.io/library``; UsageError otherwise."""
    name = text.rstrip("/")
    first, _, path = name.partition("/")
    if not _is_host(first):
        first, path = DOCKER_HUB, name
    if not name or not _HOST.fullmatch(first) or (path and not is_repository(path)):
        shown = printable(without_password(text))
        raise UsageError(f"bad reference '{shown}': --all takes a registry, docker://HOST[/NAMESPACE]")
    if not _has_port(first):
        raise UsageError(f"bad reference '{printable(text)}': {_NO_PORT}")
    return (DOCKER_HUB if first == "index.docker.io" else first), path


def _is_host(first: str) -> bool:
    """Return whether the *first* part of a name is a registry."""
    return "." in first or ":" in first or first == "localhost" or first.lower() != first


def _full(match: re.Match[str]) -> RegistryReference:
    first, slash, path = match["name"].partition("/")
    if not slash or not _is_host(first):
        first, path = DOCKER_HUB, match["name"]
    if first == "index.docker.io":
        first = DOCKER_HUB
    if first == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return RegistryReference(first, path, tag, match["digest"] or "")


def tagged(reference: str) -> str:
    """Return *reference* in its full form, with registry, folder and tag: names are compared in this form."""
    match = _REFERENCE.fullmatch(reference)
    return reference if match is None else str(_full(match))


def same_image(asked: str, name: str) -> bool:
    """Return whether *asked* means the image *name*; podman looks for one without a registry in ``localhost``, too."""
    return tagged(name) in (tagged(asked), tagged(f"localhost/{asked}"))


def tag_of(reference: str) -> str:
    """Return the tag in *reference*, empty without one."""
    match = None if _IMAGE_ID.fullmatch(reference) else _REFERENCE.fullmatch(reference)
    return (match["tag"] or "") if match else ""
