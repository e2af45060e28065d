"""All packages that are installed in a root file system, and how two lists of them differ."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from fusefs.errors import InvalidImage
from fusefs.packages import apk, dpkg, rpm
from fusefs.packages.database import MAX_PACKAGES, Package
from fusefs.tree.node import Tree


class PackageChange(NamedTuple):
    """A package that differs: added without a version before, removed without one after."""

    kind: str
    name: str
    before: tuple[str, ...]
    """Versions, several if it is installed several times; with the architectures if there are several of these."""
    after: tuple[str, ...]

    @property
    def change(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        if not self.before:
            return "added"
        return "changed" if self.after else "removed"


def installed(tree: Tree) -> list[Package]:
    """Return the packages in *tree*, sorted.

    Raises InvalidImage if a database is damaged or too large, OSError if it cannot be read.
    """
    found: list[Package] = []
    for package in chain(dpkg.packages(tree), apk.packages(tree), rpm.packages(tree)):
        if len(found) >= MAX_PACKAGES:
            raise InvalidImage(f"more than {MAX_PACKAGES} packages are installed")
        found.append(package)
    return sorted(found)


def package_changes(old: Iterable[Package], new: Iterable[Package]) -> Iterator[PackageChange]:
    """Yield the packages that differ in their versions, sorted by name."""
    olds, news = _by_name(old), _by_name(new)
    for kind, name in sorted({*olds, *news}, key=lambda key: (key[1], key[0])):
        before, after = olds.get((kind, name), []), news.get((kind, name), [])
        # One architecture on each side, perhaps another one: versions alone.
        several = max(len({package.architecture for package in side}) for side in (before, after)) > 1
        versions = [
            Counter(f"{one.version} ({one.architecture})" if several else one.version for one in side)
            for side in (before, after)
        ]
        if versions[0] != versions[1]:
            yield PackageChange(kind, name, *(tuple(sorted(side.elements())) for side in versions))


def _by_name(packages: Iterable[Package]) -> dict[tuple[str, str], list[Package]]:
    found: dict[tuple[str, str], list[Package]] = {}
    for package in packages:
        found.setdefault((package.kind, package.name), []).append(package)
    return found
