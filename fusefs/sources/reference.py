"""The IMAGE argument: what names an image, and where it is to be looked for.

Grammars: containers-transports(5) for the transports, github.com/distribution/reference for names.
"""

import re
from dataclasses import dataclass

from fusefs.errors import Unsupported, UsageError, printable

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
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image in an engine: a name, with tag or digest or neither, or an ID or its beginning."""

    text: str


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """An image in a file."""

    path: str
    choice: str | int | None
    """The tag or the index that picks one of several images."""


def parse_image(argument: str) -> EngineImage | ArchiveImage:
    """Return what the IMAGE *argument* asks for; UsageError or Unsupported when it cannot be had."""
    transport, colon, rest = argument.partition(":")
    if colon and transport in ("oci", "oci-archive") and not _is_path(argument):
        msg = f"{printable(argument)}: OCI image layouts are not supported yet"
        raise Unsupported(msg)
    if argument == "-":
        msg = "reading an image from a pipe is not supported yet; save it to a file first"
        raise Unsupported(msg)
    if _is_path(argument):
        return ArchiveImage(argument, None)
    if transport == "docker-archive" and colon:
        return _archive(rest)
    if transport == "docker-daemon" and colon:
        argument = rest
    if "://" in argument:
        msg = f"bad reference {printable(argument)!r}: imgfs reads no registry; docker pull it, then give its name"
        raise UsageError(msg)
    check_reference(argument)
    return EngineImage(argument)


def check_reference(text: str) -> None:
    """Raise UsageError unless *text* is a name, with tag or digest or neither, or an image ID."""
    match = _REFERENCE.fullmatch(text)
    if match is None and _IMAGE_ID.fullmatch(text) is None:
        hint = ": repository names are lower case" if _REFERENCE.fullmatch(text.lower()) else ""
        msg = f"bad reference {printable(text)!r}{hint}"
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
    if first == "docker.io" and "/" not in path:
        path = f"library/{path}"
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return f"{first}/{path}" + (f":{tag}" if tag else "") + (f"@{match['digest']}" if match["digest"] else "")


def _is_path(argument: str) -> bool:
    """Return whether *argument* is a path by its looks alone: no folder here shadows an image's name."""
    if argument.startswith(("/", "./", "../")):
        return True
    return ":" not in argument and argument.lower().endswith(_ARCHIVE_ENDINGS)


def _archive(rest: str) -> ArchiveImage:
    """Return what follows ``docker-archive:``: ``PATH``, ``PATH:REF`` or ``PATH:@INDEX``."""
    path, colon, choice = rest.partition(":")
    if not path or (colon and not choice):
        msg = f"bad reference {printable('docker-archive:' + rest)!r}: expected docker-archive:PATH[:REF|:@INDEX]"
        raise UsageError(msg)
    if not colon:
        return ArchiveImage(path, None)
    if choice.startswith("@"):
        if not (choice[1:].isascii() and choice[1:].isdigit()):
            msg = f"bad reference: {printable(choice)!r} is no index; expected @0, @1, …"
            raise UsageError(msg)
        return ArchiveImage(path, int(choice[1:6]) if len(choice) < 6 else 10**6)
    check_reference(choice)
    return ArchiveImage(path, choice)
