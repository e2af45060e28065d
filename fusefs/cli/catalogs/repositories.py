"""The repositories of a registry that are known, by their folders: those that it lists, and those looked up."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice

from fusefs.log import logger
from fusefs.mount.catalog.provider import Path

log = logger(__name__)

_MAX_SEEN = 10_000
"""Repositories, and tags of one, that were looked up and are listed."""
_MAX_DEPTH = 16
"""Folders above a repository that is listed."""
_MAX_FOLDERS = 100_000
"""Folders in all that are listed; a name of 255 bytes may need 127."""


class Repositories:
    """Repositories below a namespace.  Safe under concurrency: `_lock` guards changes; an index is set whole."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._catalog: Mapping[str, object] = {}
        self._seen: OrderedDict[str, dict[str, None]] = OrderedDict()
        self._index = _Index((), namespace)
        self._is_said = False
        """Whether it was logged that names are left out."""

    def listed(self, names: object) -> bool:
        """Take the registry's list of names, None without one; return whether it is another one."""
        catalog = names if isinstance(names, dict) else {}
        with self._lock:
            if catalog.keys() == self._catalog.keys():
                return False
            self._catalog = catalog
            left_out = self._arrange()
            is_said, self._is_said = self._is_said, self._is_said or left_out > 0
        if left_out and not is_said:
            log.warning(
                "%d repositories are not listed: only %d levels of folders are, and %d folders in all",
                left_out,
                _MAX_DEPTH,
                _MAX_FOLDERS,
            )
        return True

    def _arrange(self) -> int:
        """Make the index; return how many names are left out."""
        self._index = _Index({**self._catalog, **self._seen}, self._namespace)
        return self._index.left_out

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
                self._arrange()
            if len(self._seen) > _MAX_SEEN:
                for oldest in [*self._seen][: _MAX_SEEN // 10]:
                    del self._seen[oldest]
                self._arrange()

    def seen(self, repository: str) -> Sequence[str]:
        """Return the tags of a repository that were looked up."""
        with self._lock:
            return [*self._seen.get(repository, ())]

    def folders(self, folder: Path) -> frozenset[str]:
        """Return the names of the folders in *folder*."""
        return self._index.folders(_joined(self._namespace, folder))

    def has_folder(self, folder: Path, name: str) -> bool:
        """Return whether *name* is a folder in *folder*."""
        return self._index.has_folder(_joined(self._namespace, folder), name)

    def within(self, folder: Path, most: int | None = None) -> list[tuple[str, str]]:
        """Return the repositories in *folder*, and for each the name before its tags; at *most* so many.

        The root has those of a repository that is called like the namespace, too.
        """
        here = _joined(self._namespace, folder)
        found = [(name, f"{here}/{name}".lstrip("/")) for name in self._index.names(here, most)]
        own = self._namespace.rpartition("/")[2]
        if self._is_own(folder, own) and (most is None or len(found) < most):
            found.append((own, self._namespace))
        return found

    def has(self, folder: Path, base: str) -> bool:
        """Return whether *base* is the name of a repository in *folder*."""
        return self._index.has_name(_joined(self._namespace, folder), base) or self._is_own(folder, base)

    def _is_own(self, folder: Path, base: str) -> bool:
        """Return whether *base* in *folder* is the repository that is called like the namespace."""
        is_like_it = not folder and base != "" and base == self._namespace.rpartition("/")[2]
        return is_like_it and not self._index.has_name(self._namespace, base)

    def named(self, folder: Path, base: str) -> str:
        """Return the repository that *base* is in *folder*, whether or not there is one."""
        if self._is_own(folder, base):
            return self._namespace
        return f"{_joined(self._namespace, folder)}/{base}".lstrip("/")


class _Index:
    """Names in each folder: those of repositories, and those of further folders."""

    def __init__(self, repositories: Iterable[str], namespace: str) -> None:
        self._namespace = namespace
        self._names: dict[str, dict[str, None]] = {}
        self._folders: dict[str, dict[str, None]] = {}
        self._number = 0
        """How many folders there are."""
        self.left_out = sum(not self.add(repository) for repository in repositories)
        """How many of *repositories* lie too deep, or need more folders than may be."""

    def add(self, repository: str) -> bool:
        """Add a repository below the namespace; return whether it is listed."""
        if repository == self._namespace:
            return True
        here, _, name = repository.rpartition("/")
        if here.removeprefix(self._namespace).lstrip("/").count("/") >= _MAX_DEPTH:
            return False
        new, above = list[tuple[str, str]](), here
        while above != self._namespace and above:
            above, _, folder = above.rpartition("/")
            if self.has_folder(above, folder):
                break
            new.append((above, folder))
        if self._number + len(new) > _MAX_FOLDERS:
            return False
        self._number += len(new)
        for above, folder in new:
            self._folders.setdefault(above, {})[folder] = None
        self._names.setdefault(here, {})[name] = None
        return True

    def has_name(self, here: str, name: str) -> bool:
        """Return whether *name* is that of a repository in *here*."""
        return name in self._names.get(here, ())

    def has_folder(self, here: str, name: str) -> bool:
        """Return whether *name* is that of a folder in *here*."""
        return name in self._folders.get(here, ())

    def names(self, here: str, most: int | None = None) -> list[str]:
        """Return the names of repositories, at *most* so many."""
        return [*islice(self._names.get(here, ()), most)]

    def folders(self, here: str) -> frozenset[str]:
        """Return the names of folders."""
        return frozenset(self._folders.get(here, ()))


def _joined(namespace: str, folder: Path) -> str:
    return "/".join(filter(None, (namespace, *(part.decode("ascii", "replace") for part in folder))))


def is_like(reference: str, pattern: str) -> bool:
    """Return whether a reference, or its name without the tag, is like a glob."""
    return fnmatchcase(reference, pattern) or fnmatchcase(reference.rpartition(":")[0], pattern)
