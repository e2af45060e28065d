"""The places of a repository: mirrors first, then the registry itself, as containers-registries.conf(5) says."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from fusefs.errors import Unavailable, UsageError
from fusefs.oci.reference import DOCKER_HUB, RegistryReference, full_reference
from fusefs.sources.registry.registries_conf import Entry, read_configuration
from fusefs.sources.servers.hosts import is_loopback
from fusefs.text import printable

_HUB_HOST = "registry-1.docker.io"
"""The host that answers for docker.io."""


class Place(NamedTuple):
    """A repository in one registry."""

    name: str
    """The registry in messages and credentials, with its port if it states one."""
    repository: str
    insecure: bool = False
    """Its certificate is not checked, and it may speak plain HTTP."""

    @property
    def host(self) -> str:
        """The host to connect to, with its port if it states one."""
        return _HUB_HOST if self.name == DOCKER_HUB else self.name

    @property
    def may_be_plain(self) -> bool:
        """Whether plain HTTP is acceptable: the place is insecure, or is this machine."""
        return self.insecure or is_loopback(self.host)

    @property
    def shown(self) -> str:
        """The registry in messages."""
        return printable(self.name)


def find_places(reference: RegistryReference, environment: Mapping[str, str], *, insecure: bool) -> list[Place]:
    """Return the places of the image, in the order in which they are asked.

    *insecure*: all of them are.  Raises Unavailable for a blocked registry, UsageError for a damaged configuration.
    """
    entries = read_configuration(environment).entries
    length, entry = _longest_match(str(reference), entries)
    if entry.blocked:
        raise _blocked(str(reference))
    kind = "digest-only" if reference.digest else "tag-only"
    serving = [mirror[:2] for mirror in entry.mirrors if mirror.serves in ("all", kind)]
    places, blocked = list[Place](), ""
    for location, is_insecure in (*serving, (entry.location, entry.insecure)):
        found = _at(location, reference, length) if location else reference
        if _longest_match(str(found), entries)[1].blocked:
            blocked = str(found)
        else:
            places.append(Place(found.host, found.repository, insecure or is_insecure))
    if not places:
        raise _blocked(blocked)
    return places


def _blocked(name: str) -> Unavailable:
    return Unavailable(f"{printable(name)} is blocked by the configuration in registries.conf")


def _at(location: str, reference: RegistryReference, matched: int) -> RegistryReference:
    """Return the image at *location*, which replaces the first *matched* characters of the name."""
    whole = location + str(reference)[matched:]
    found = full_reference(whole)
    if found is None:
        raise UsageError(f"registries.conf: {printable(location)} is not the location of a repository")
    if (found.tag, found.digest) != (reference.tag, reference.digest):
        raise UsageError(f"registries.conf: {printable(location)} states another tag or digest than {reference}")
    return found


def _longest_match(name: str, entries: Mapping[str, Entry]) -> tuple[int, Entry]:
    """Return the entry with the longest prefix of *name*, and how many characters it matches; 0 without one.

    The length is that of the prefix itself, as for containers/image: ``*.a.example`` comes before ``*.example``.
    """
    matches = [(-len(prefix), prefix, length) for prefix in entries if (length := _match_length(name, prefix))]
    _, prefix, length = min(matches, default=(0, "", 0))
    return (length, entries[prefix]) if length else (0, Entry("", ""))


def _match_length(name: str, prefix: str) -> int:
    """Return how many characters of *name* the *prefix* matches, 0 if it does not.

    A host without a port is that host at any port, as for containers/image.
    """
    if prefix.startswith("*."):
        host = re.sub(r":[0-9]+$", "", name.partition("/")[0])
        return len(host) if host.endswith(prefix[1:]) else 0
    return len(prefix) if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in ("", *"/:@") else 0
