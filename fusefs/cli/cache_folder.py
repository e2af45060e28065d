"""The cache of a command, as its options and the environment name it."""

import argparse
from collections.abc import Callable, Mapping

from fusefs.cache.store import Cache
from fusefs.cache.writeback import Writeback
from fusefs.sources.caching import CacheOnDemand, cache_folder


def cache_folders(arguments: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the path of the cache that the options name, nothing with ``--no-cache``."""
    return () if arguments.no_cache else cache_folder(arguments.cache_dir, environment)[:1]


def opening_cache(
    arguments: argparse.Namespace, environment: Mapping[str, str], writeback: Writeback
) -> Callable[[], Cache | None]:
    """Return a function that opens the cache on its first call and returns it, None if there is none.

    A cache that cannot be used raises NoSpace if the user named it; otherwise it is a warning.
    """
    if arguments.no_cache:
        return lambda: None
    return CacheOnDemand(arguments.cache_dir, arguments.cache_size, environment, writeback.later)
