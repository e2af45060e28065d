"""Transports: the kinds of place that hold images, and where one image came from.

Names: containers-transports(5).  Shell completion imports this module at each press of Tab, so its values are tuples:
dataclasses load slowly.
"""

from enum import Enum
from typing import NamedTuple


class Holder(Enum):
    """The kind of place that a transport reads."""

    ENGINE = "engine"
    REGISTRY = "registry"
    FILE = "file"
    DIRECTORY = "directory"


class Transport(NamedTuple):
    """A way to name an image: its prefix and what follows it."""

    name: str
    """As in containers-transports(5); ``docker`` is a registry's."""
    holder: Holder
    grammar: str
    """The whole argument, as in usage messages and help."""
    meaning: str
    """The kind of image, in a few words for messages and help."""

    @property
    def prefix(self) -> str:
        """How an IMAGE argument of this transport begins; ``docker:1`` is an image in an engine."""
        return f"{self.name}://" if self.holder is Holder.REGISTRY else f"{self.name}:"


DOCKER_ARCHIVE = Transport(
    "docker-archive", Holder.FILE, "docker-archive:PATH[:REF|:@INDEX]", "an archive of docker save"
)
OCI_ARCHIVE = Transport("oci-archive", Holder.FILE, "oci-archive:PATH[:REF]", "an OCI image layout in a tar")
OCI = Transport("oci", Holder.DIRECTORY, "oci:DIR[:REF]", "an OCI image layout")
DOCKER_DAEMON = Transport("docker-daemon", Holder.ENGINE, "docker-daemon:NAME", "an image in Docker or Podman")
REGISTRY = Transport("docker", Holder.REGISTRY, "docker://[HOST/]NAME[:TAG][@DIGEST]", "an image in a registry")

TRANSPORTS = {transport.name: transport for transport in (DOCKER_ARCHIVE, OCI_ARCHIVE, OCI, DOCKER_DAEMON, REGISTRY)}
"""Every transport that imgfs reads, by name."""

URL_SCHEMES = ("https", "http", "s3", "gs", "az")
"""Places of archives, which also stand for PATH after the transports of archives."""

STANDARD_INPUT = "standard input"
"""The place of an image that came through ``-``."""


class Source(NamedTuple):
    """Where an image came from."""

    name: str
    """The user's name for the image: the IMAGE argument, without ``docker-daemon:``."""
    transport: Transport
    place: str
    """The URL of the engine, registry or archive, the absolute path of the file or directory, or `STANDARD_INPUT`."""
    reference: str | int | None = None
    """The requested name, ID or index in that place; None if the user gave none."""

    @property
    def choosing(self) -> str:
        """How to name one of several images in an archive at a URL or in a pipe; empty for a file: ``PATH:REF``."""
        if self.place == STANDARD_INPUT:
            return f"{self.transport.prefix}-:REF"
        if url_start(self.place) is None:
            return ""
        scheme, _, rest = self.place.partition("://")
        host, slash, path = rest.partition("/")
        return f"{self.transport.prefix}{scheme}://{host}{slash}{path.replace(':', '%3A')}:REF"


def transport_of(argument: str) -> Transport | None:
    """Return the transport that an IMAGE *argument* begins with, None without one."""
    transport = TRANSPORTS.get(argument.partition(":")[0])
    return transport if transport and argument.startswith(transport.prefix) else None


def url_start(argument: str) -> int | None:
    """Return where the URL of an archive begins in an IMAGE *argument*: at 0 or after the transport; None without one.

    A name in an engine never contains ``://``.
    """
    transport = transport_of(argument)
    start = len(transport.prefix) if transport and transport.holder is not Holder.REGISTRY else 0
    scheme, separator, _ = argument[start:].partition("://")
    return start if separator and scheme.lower() in URL_SCHEMES else None
