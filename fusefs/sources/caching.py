"""The place of the cache, as the user and the environment name it."""

import os
from collections.abc import Callable, Mapping

from fusefs.cache.store import DEFAULT_LIMIT, Cache
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


class CacheOnDemand:
    """The cache, opened on the first call."""

    def __init__(
        self,
        named: str | None,
        limit: int | None,
        environment: Mapping[str, str],
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        """Use the folder that the user *named*, or that of the *environment*; *limit* in bytes; *later* does work."""
        self._named = named
        self._limit = DEFAULT_LIMIT if limit is None else limit
        self._environment = environment
        self._later = later
        self._opened: list[Cache | None] = []

    def __call__(self) -> Cache | None:
        """Return the cache; if it cannot be used, None with a warning, or NoSpace if the user named it."""
        if not self._opened:
            path, named = cache_folder(self._named, self._environment)
            try:
                self._opened.append(Cache(path, self._limit, self._later))
            except NoSpace as error:
                if named:
                    raise
                log.warning("continuing without a cache: %s", error)
                self._opened.append(None)
        return self._opened[0]

    def close(self) -> None:
        """Close the cache if it was opened; no entry of it may be used any more."""
        for cache in self._opened:
            if cache is not None:
                cache.close()
        self._opened = [None]
