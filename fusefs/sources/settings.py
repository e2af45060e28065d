"""The options of the user that sources follow."""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fusefs.cache.store import Cache
from fusefs.errors import UsageError
from fusefs.oci.platform import Platform
from fusefs.progress import Progress
from fusefs.text import printable

_TMPDIR = "/var/tmp"  # noqa: S108 - files there are created unlinked; /tmp is often in memory
_TIMEOUT = 60.0
"""Seconds."""


def platform_named(text: str | None) -> Platform | None:
    """Return the platform that a user asks for, as in ``linux/arm64``; UsageError if it is malformed."""
    try:
        return None if text is None else Platform.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def tmpdir_named(path: str | None, environment: Mapping[str, str]) -> str:
    """Return the spool directory, absolute: a mount's process works in the root directory."""
    return absolute(path or environment.get("IMGFS_TMPDIR") or _TMPDIR)


def absolute(path: str) -> str:
    """Return *path* as an absolute path; UsageError if the current directory, which it starts from, is gone."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UsageError(f"{printable(path)} is relative, and the current directory is gone") from None


def timeout_named(seconds: float | None) -> float | None:
    """Return the seconds to wait for a server (default: 60); None, which a user spells 0, is no limit."""
    return _TIMEOUT if seconds is None else seconds or None


def _no_cache() -> Cache | None:
    return None


class Settings(NamedTuple):
    """The options that sources follow, and where they report progress."""

    host: str | None
    context: str | None
    tmpdir: str
    """The spool directory."""
    verify: bool
    """Read a file completely and compare its digests."""
    platform: Platform | None
    """None: the best for this machine."""
    environment: Mapping[str, str]
    progress: Progress
    shared_blobs: str | None = None
    """The directory of the blobs of an image layout in a directory; None: in the layout."""
    timeout: float | None = _TIMEOUT
    """Seconds that an engine may be silent, before an answer and between two pieces of an image; None: no limit.

    Of a registry: seconds without progress, attempts included.
    """
    authfile: str | None = None
    """The only file with credentials for registries; None: those of $REGISTRY_AUTH_FILE, containers and docker."""
    insecure: bool = False
    """Do not check the certificates of registries, and accept plain HTTP."""
    offline: bool = False
    """Use only what is cached of an image in a registry."""
    cache: Callable[[], Cache | None] = _no_cache
    """Opens the cache; returns None if caching is off; NoSpace if the cache cannot be used."""
