"""The IMAGE argument: what names an image, and where it is to be looked for.

Grammars: containers-transports(5) for the transports, github.com/distribution/reference for names.
"""

import re
from dataclasses import dataclass

from fusefs.errors import UsageError, printable

STANDARD_INPUT = "standard input"
"""What ``-`` is called in messages."""
_ARCHIVE_ENDINGS = tuple(
    f".{ending}" for ending in ("tar", "tar.gz", "tgz", "tar.zst", "tzst", "tar.xz", "txz", "tar.bz2", "tbz2", "tbz")
)
_MAX_NAME = 255

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
)
_FILE_TRANSPORTS = ("docker-archive", "oci-archive", "oci")
_UNREAD = {
    "containers-storage": "podman save it, or start podman's service and give its socket to --host",
    "dir": "skopeo copy it to oci:DIR, then give that",
}
"""Transports of skopeo that imgfs does not know, and what to do instead."""
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image in an engine: a name, with tag or digest or neither, or an ID or its beginning."""

    text: str


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image in a file, a directory or a pipe."""

    transport: str | None
    """``docker-archive``, ``oci-archive``, ``oci``, or None: what the contents say."""
    path: str
    """``-`` is standard input."""
    choice: str | int | None
    """The name or the index that picks one of several images."""


def parse_image(argument: str) -> EngineImage | FileImage:
    """Return what the IMAGE *argument* asks for; UsageError when it is none."""
    transport, colon, rest = argument.partition(":")
    if argument == "-" or _is_path(argument):
        return FileImage(None, argument, None)
    if transport in _FILE_TRANSPORTS and colon:
        return _file(transport, rest)
    if transport == "docker-daemon" and colon:
        argument = rest
    if "://" in argument:
        msg = f"bad reference '{printable(argument)}': imgfs reads no registry; docker pull it, then give its name"
        raise UsageError(msg)
    if transport in _UNREAD and (transport != "dir" or rest.startswith(("/", "."))):
        msg = f"bad reference '{printable(argument)}': {transport}: is not read; {_UNREAD[transport]}"
        raise UsageError(msg)
    check_reference(argument)
    return EngineImage(argument)


def check_reference(text: str) -> None:
    """Raise UsageError unless *text* is a name, with tag or digest or neither, or an image ID."""
    match = _REFERENCE.fullmatch(text)
    if match is None and _IMAGE_ID.fullmatch(text) is None:
        hint = ": repository names are lower case" if _REFERENCE.fullmatch(text.lower()) else ""
        msg = f"bad reference '{printable(text)}'{hint}"
        raise UsageError(msg)
    if match is not None and len(match["name"]) > _MAX_NAME:
        msg = f"bad reference: the name has {len(match['name'])} characters, more than {_MAX_NAME}"
        raise UsageError(msg)


def tagged(reference: str) -> str:
    """Return *reference* in its full form: with registry, folder and tag, as names are compared."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        return reference
    first, slash, path = match["name"].partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        first, path = "docker.io", match["name"]
    if first == "index.docker.io":
        first = "docker.io"
    if first == "docker.io" and "/" not in path:
        path = f"library/{path}"
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return f"{first}/{path}" + (f":{tag}" if tag else "") + (f"@{match['digest']}" if match["digest"] else "")


def tag_of(reference: str) -> str:
    """Return the tag in *reference*, empty if there is none."""
    match = None if _IMAGE_ID.fullmatch(reference) else _REFERENCE.fullmatch(reference)
    return (match["tag"] or "") if match else ""


def _is_path(argument: str) -> bool:
    """Return whether *argument* is a path by its looks alone: no folder here shadows an image's name."""
    if argument.startswith(("/", "./", "../")):
        return True
    return ":" not in argument and argument.lower().endswith(_ARCHIVE_ENDINGS)


def _file(transport: str, rest: str) -> FileImage:
    """Return what follows ``TRANSPORT:``: ``PATH``, ``PATH:REF`` or for a Docker archive ``PATH:@INDEX``."""
    path, colon, choice = rest.partition(":")
    if not path or (colon and not choice):
        index = "|:@INDEX" if transport == "docker-archive" else ""
        msg = f"bad reference '{transport}:{printable(rest)}': expected {transport}:PATH[:REF{index}]"
        raise UsageError(msg)
    if not colon:
        return FileImage(transport, path, None)
    if transport != "docker-archive":
        return FileImage(transport, path, choice)  # an image layout's names are free text
    if choice.startswith("@"):
        if re.fullmatch(r"[0-9]{1,18}", choice[1:]) is None:
            msg = f"bad reference: '{printable(choice)}' is no index; expected @0, @1, …"
            raise UsageError(msg)
        return FileImage(transport, path, int(choice[1:]))
    check_reference(choice)
    return FileImage(transport, path, choice)
