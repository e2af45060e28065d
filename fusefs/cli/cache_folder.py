"""The place of the cache, as options and environment name it."""

import argparse
import os
from collections.abc import Callable, Mapping

from fusefs.cache.store import DEFAULT_LIMIT, Cache
from fusefs.cache.writeback import Writeback
from fusefs.errors import NoSpace
from fusefs.home import home, owns_system
from fusefs.log import logger
from fusefs.sources.settings import absolute

log = logger(__name__)

_OF_ROOT = "/var/cache/imgfs"


def cache_folder(named: str | None, environment: Mapping[str, str]) -> tuple[str, bool]:
    """Return the path of the cache, and whether the user named it: with an option (*named*) or in the *environment*."""
    path = named or environment.get("IMGFS_CACHE_DIR")
    if path:
        return absolute(path), True
    if owns_system():
        return _OF_ROOT, False
    base = environment.get("XDG_CACHE_HOME") or ""
    if not os.path.isabs(base):  # the XDG specification ignores relative paths
        base = os.path.join(home(environment), ".cache")
    return os.path.join(base, "imgfs"), False


def cache_folders(arguments: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the path of the cache that the options name, nothing with ``--no-cache``."""
    return () if arguments.no_cache else cache_folder(arguments.cache_dir, environment)[:1]


def opening_cache(
    arguments: argparse.Namespace, environment: Mapping[str, str], writeback: Writeback
) -> Callable[[], Cache | None]:
    """Return a function that opens the cache on its first call and returns it, None if there is none.

    A cache that cannot be used raises NoSpace if the user named it; otherwise it is a warning.
    """
    opened: list[Cache | None] = [None] if arguments.no_cache else []

    def cache() -> Cache | None:
        if not opened:
            path, named = cache_folder(arguments.cache_dir, environment)
            limit = DEFAULT_LIMIT if arguments.cache_size is None else arguments.cache_size
            try:
                opened.append(Cache(path, limit, writeback.later))
            except NoSpace as error:
                if named:
                    raise
                log.warning("continuing without a cache: %s", error)
                opened.append(None)
        return opened[0]

    return cache
