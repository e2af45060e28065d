"""The repositories of a registry that are known, by their folders: those that it lists, and those looked up."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from fusefs.mount.catalog.provider import Path

_MAX_SEEN = 10_000
"""Repositories, and tags of one, that were looked up and are listed."""


class Repositories:
    """Repositories below a namespace.  Safe under concurrency: `_lock` guards changes; an index is set whole."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._catalog: Mapping[str, object] = {}
        self._seen: OrderedDict[str, dict[str, None]] = OrderedDict()
        self._index = _Index((), namespace)

    def listed(self, names: object) -> bool:
        """Take the registry's list of names, None without one; return whether it is another one."""
        catalog = names if isinstance(names, dict) else {}
        with self._lock:
            if catalog.keys() == self._catalog.keys():
                return False
            self._catalog = catalog
            self._index = _Index({**self._catalog, **self._seen}, self._namespace)
            return True

    def found(self, repository: str, tag: str, *, there: bool) -> None:
        """Note that a repository, and a *tag* of it unless that is empty, was looked up and is there, or is not."""
        with self._lock:
            before = repository in self._seen
            if there:
                tags = self._seen.setdefault(repository, {})
                self._seen.move_to_end(repository)
                if tag and len(tags) < _MAX_SEEN:
                    tags[tag] = None
                if not before and repository not in self._catalog:
                    self._index.add(repository)
            elif tag and before:
                self._seen[repository].pop(tag, None)
            elif before:
                del self._seen[repository]
                self._index = _Index({**self._catalog, **self._seen}, self._namespace)
            if len(self._seen) > _MAX_SEEN:
                for oldest in [*self._seen][: _MAX_SEEN // 10]:
                    del self._seen[oldest]
                self._index = _Index({**self._catalog, **self._seen}, self._namespace)

    def seen(self, repository: str) -> Sequence[str]:
        """Return the tags of a repository that were looked up."""
        with self._lock:
            return [*self._seen.get(repository, ())]

    def folders(self, folder: Path) -> frozenset[str]:
        """Return the names of the folders in *folder*."""
        return self._index.folders(_joined(self._namespace, folder))

    def within(self, folder: Path) -> list[tuple[str, str]]:
        """Return the repositories in *folder*, and for each the name before its tags.

        The root has those of a repository that is called like the namespace, too.
        """
        here = _joined(self._namespace, folder)
        names = self._index.names(here)
        found = [(name, f"{here}/{name}".lstrip("/")) for name in names]
        own = self._namespace.rpartition("/")[2]
        if not folder and own and own not in names:
            found.append((own, self._namespace))
        return found

    def named(self, folder: Path, base: str) -> str:
        """Return the repository that *base* is in *folder*, whether or not there is one."""
        here = _joined(self._namespace, folder)
        if not folder and base == self._namespace.rpartition("/")[2] and base not in self._index.names(here):
            return self._namespace
        return f"{here}/{base}".lstrip("/")


class _Index:
    """Names in each folder: those of repositories, and those of further folders."""

    def __init__(self, repositories: Iterable[str], namespace: str) -> None:
        self._namespace = namespace
        self._names: dict[str, dict[str, None]] = {}
        self._folders: dict[str, dict[str, None]] = {}
        for repository in repositories:
            self.add(repository)

    def add(self, repository: str) -> None:
        """Add a repository below the namespace."""
        if repository == self._namespace:
            return
        here, _, name = repository.rpartition("/")
        self._names.setdefault(here, {})[name] = None
        while here != self._namespace and here:
            above, _, name = here.rpartition("/")
            self._folders.setdefault(above, {})[name] = None
            here = above

    def names(self, here: str) -> list[str]:
        """Return the names of repositories."""
        return [*self._names.get(here, ())]

    def folders(self, here: str) -> frozenset[str]:
        """Return the names of folders."""
        return frozenset(self._folders.get(here, ()))


def _joined(namespace: str, folder: Path) -> str:
    return "/".join(filter(None, (namespace, *(part.decode("ascii", "replace") for part in folder))))


def is_like(reference: str, pattern: str) -> bool:
    """Return whether a reference, or its name without the tag, is like a glob."""
    return fnmatchcase(reference, pattern) or fnmatchcase(reference.rpartition(":")[0], pattern)
