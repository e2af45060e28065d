"""The places of a repository: mirrors first, then the registry itself, as containers-registries.conf(5) says.

Version 2 of the format.  ``docker://NAME`` names one image, as for skopeo: unqualified-search-registries and aliases,
which resolve short names, do not concern it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fusefs.errors import Unavailable, UsageError
from fusefs.home import home
from fusefs.oci.reference import DOCKER_HUB, RegistryReference
from fusefs.text import printable

_SYSTEM = Path("/etc/containers/registries.conf")
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


def is_loopback(host: str) -> bool:
    """Return whether *host*, which may state a port, is this machine."""
    name = re.sub(r":[0-9]+$", "", host)
    return name in ("localhost", "[::1]") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", name) is not None


def find_places(reference: RegistryReference, environment: Mapping[str, str], *, insecure: bool) -> list[Place]:
    """Return the places of the image, in the order in which they are asked.

    *insecure*: all of them are.  Raises Unavailable for a blocked registry, UsageError for a damaged configuration.
    """
    name = str(reference)
    prefix, entry = _entry(name, _registries(environment))
    if entry.get("blocked") is True:
        raise Unavailable(f"{printable(name)} is blocked by the configuration in registries.conf")
    places = [
        _place(mirror, name, prefix, insecure=insecure)
        for mirror in _tables(entry, "mirror")
        if _serves(mirror, entry, by_digest=bool(reference.digest))
    ]
    return [*places, _place(entry, name, prefix, insecure=insecure)]


def _serves(mirror: Mapping[str, Any], entry: Mapping[str, Any], *, by_digest: bool) -> bool:
    only = mirror.get("pull-from-mirror") or ("digest-only" if entry.get("mirror-by-digest-only") else "all")
    return only in ("all", "digest-only" if by_digest else "tag-only")


def _place(entry: Mapping[str, Any], name: str, matched: int, *, insecure: bool) -> Place:
    """Return the place of the image *name*, whose first *matched* characters the location of *entry* replaces."""
    location = entry.get("location")
    whole = location + name[matched:] if isinstance(location, str) and location else name
    host, _, rest = whole.partition("/")
    repository = rest.partition("@")[0].partition(":")[0]
    if not repository:
        raise UsageError(f"registries.conf: {printable(str(location))} is not the location of a repository")
    return Place(host, repository, insecure or entry.get("insecure") is True)


def _entry(name: str, registries: Mapping[str, Mapping[str, Any]]) -> tuple[int, Mapping[str, Any]]:
    """Return the entry with the longest prefix of *name*, and its length; an empty entry if none has one."""
    matches = [(_matched(name, prefix), prefix) for prefix in registries]
    length, prefix = max(matches, default=(0, ""))
    return (length, registries[prefix]) if length else (0, {})


def _matched(name: str, prefix: str) -> int:
    """Return how many characters of *name* the *prefix* matches, 0 if it does not."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        return len(host) if host.endswith(prefix[1:]) else 0
    ends = ("", "/", ":", "@") if "/" in prefix else ("", "/")  # after a host, a colon begins a port
    return len(prefix) if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in ends else 0


def _registries(environment: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """Return the entries of all files by their prefixes; a later file replaces those of earlier ones."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in _files(environment):
        for entry in _tables(_document(path), "registry"):
            prefix = entry.get("prefix") or entry.get("location")
            if not isinstance(prefix, str) or not prefix:
                raise UsageError(f"{path}: a registry has neither prefix nor location")
            found[prefix] = entry
    return found


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    config = environment.get("XDG_CONFIG_HOME") or f"{home(environment)}/.config"
    user = Path(config, "containers", "registries.conf")
    named = environment.get("CONTAINERS_REGISTRIES_CONF")
    if named:
        yield Path(named)
    elif user.exists():
        yield user
    elif _SYSTEM.exists():
        yield _SYSTEM
    for folder in (Path(f"{_SYSTEM}.d"), Path(f"{user}.d")):
        if folder.is_dir():
            yield from (folder / name for name in sorted(os.listdir(folder)) if name.endswith(".conf"))


def _document(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - few machines have such a file

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {printable(str(error))}") from None


def _tables(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the array of tables *key*, empty if there is no such array."""
    tables = document.get(key)
    return [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
