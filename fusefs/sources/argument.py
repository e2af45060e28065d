"""The IMAGE argument: what names an image, and where it is to be looked for.

Grammars: containers-transports(5) for the transports, github.com/distribution/reference for names.
"""

import re
from dataclasses import dataclass

from fusefs.errors import UsageError
from fusefs.oci.reference import check_reference
from fusefs.text import printable

STANDARD_INPUT = "standard input"
"""What ``-`` is called in messages."""
_ARCHIVE_ENDINGS = tuple(
    f".{ending}" for ending in ("tar", "tar.gz", "tgz", "tar.zst", "tzst", "tar.xz", "txz", "tar.bz2", "tbz2", "tbz")
)

_FILE_TRANSPORTS = ("docker-archive", "oci-archive", "oci")
_UNREAD = {
    "containers-storage": "podman save it, or start podman's service and give its socket to --host",
    "dir": "skopeo copy it to oci:DIR, then give that",
}
"""Transports of skopeo that imgfs does not know, and what to do instead."""


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
        raise UsageError(
            f"bad reference '{printable(argument)}': imgfs reads no registry; docker pull it, then give its name"
        )
    if transport in _UNREAD and (transport != "dir" or rest.startswith(("/", "."))):
        raise UsageError(f"bad reference '{printable(argument)}': {transport}: is not read; {_UNREAD[transport]}")
    check_reference(argument)
    return EngineImage(argument)


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
        raise UsageError(f"bad reference '{transport}:{printable(rest)}': expected {transport}:PATH[:REF{index}]")
    if not colon:
        return FileImage(transport, path, None)
    if transport != "docker-archive":
        return FileImage(transport, path, choice)  # an image layout's names are free text
    if choice.startswith("@"):
        if re.fullmatch(r"[0-9]{1,18}", choice[1:]) is None:
            raise UsageError(f"bad reference: '{printable(choice)}' is no index; expected @0, @1, …")
        return FileImage(transport, path, int(choice[1:]))
    check_reference(choice)
    return FileImage(transport, path, choice)
