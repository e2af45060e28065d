"""What the user said about where images come from."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fusefs.cache.store import Cache
from fusefs.errors import UsageError
from fusefs.oci.platform import Platform
from fusefs.progress import Progress
from fusefs.text import printable

_TMPDIR = "/var/tmp"  # noqa: S108 - files there are created unlinked; /tmp is often in memory
_TIMEOUT = 60.0
"""Seconds."""


def platform_named(text: str | None) -> Platform | None:
    """Return the platform that a user asks for, as in ``linux/arm64``; UsageError if that is none."""
    try:
        return None if text is None else Platform.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def tmpdir_named(path: str | None, environment: Mapping[str, str]) -> str:
    """Return where to write what must be written.  Absolute: a mount's process works in the root directory."""
    return absolute(path or environment.get("IMGFS_TMPDIR") or _TMPDIR)


def absolute(path: str) -> str:
    """Return *path* from the root; UsageError if it is relative to a directory that is gone."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UsageError(f"{printable(path)} is relative, and the current directory is gone") from None


def timeout_named(seconds: float | None) -> float | None:
    """Return how long to wait for an engine, None for ever, which a user asks for as 0."""
    return _TIMEOUT if seconds is None else seconds or None


def _no_cache() -> Cache | None:
    return None


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that sources heed, and whom to tell how far they are."""

    host: str | None
    context: str | None
    tmpdir: str
    """Where to spool what must be written."""
    verify: bool
    """Read a file whole and compare its digests."""
    platform: Platform | None
    """None for what suits this machine best."""
    environment: Mapping[str, str]
    progress: Progress
    timeout: float | None = _TIMEOUT
    """Seconds that an engine may take for an answer, and while it sends an image for each piece; None for ever."""
    cache: Callable[[], Cache | None] = _no_cache
    """Opens the cache, None if there is to be none; NoSpace if it cannot be used."""
