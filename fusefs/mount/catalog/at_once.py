"""The names of a provider that lists all of its images at once: of an engine, or of a folder."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from fusefs.errors import ImgfsError
from fusefs.image.opened import Opened
from fusefs.log import logger
from fusefs.mount.catalog.provider import FRESH, Folder, Found, Link, Listed, Path, Question

log = logger(__name__)

_Folder = dict[bytes, "Listed | _Folder"]


class Listing(Protocol):
    """The images at one moment.  Immutable."""

    @property
    def images(self) -> Sequence[Listed]:
        """The directories that are listed."""

    def link(self, folder: Path, name: bytes) -> bytes | None:
        """Return the target of the unlisted symbolic link *name* in *folder*, None if there is no such link."""


class Lister(Protocol):
    """Lists all images, and opens them.  Safe under concurrency."""

    @property
    def place(self) -> str:
        """What it lists, for users."""

    def listing(self) -> Listing:
        """Return the images that are there now; an ImgfsError if nothing can tell.  Opens none."""

    def open(self, listed: Listed) -> Opened:
        """Return an image, as `Provider.open` does."""

    def close(self, opened: Opened) -> None:
        """Close an image as soon as nobody reads from it any more."""


class Arranged(NamedTuple):
    """A listing, and its images by the directories above them."""

    listing: Listing
    root: _Folder


def arranged(listing: Listing) -> Arranged:
    """Return the directories of a listing."""
    root: _Folder = {}
    for listed in listing.images:
        _put(root, listed)
    return Arranged(listing, root)


class ListingNames:
    """The names of one listing.  Immutable."""

    def __init__(self, last: Arranged, error: str = "") -> None:
        """*error*: why there is no listing after the *last* one."""
        self.last = last
        self._error = error

    def listed(self, folder: Path) -> Mapping[bytes, Listed | Folder]:
        """Return the names that are listed in *folder*."""
        here = self._at(folder) or {}
        return {name: below if isinstance(below, Listed) else Folder() for name, below in here.items()}

    def is_listed(self, folder: Path, name: bytes) -> bool:
        """Return whether *name* is listed in *folder*."""
        return name in (self._at(folder) or ())

    def find(self, folder: Path, name: bytes) -> Found | None:
        """Return what *name* is in *folder*."""
        here = self._at(folder)
        if here is None:
            return None
        match here.get(name):
            case dict():
                return Folder()
            case Listed() as listed:
                return listed
        target = self.last.listing.link(folder, name)
        return None if target is None else Link(target)

    def error(self, folder: Path) -> str:  # noqa: ARG002 - all folders have the same
        """Return why there is no newer listing."""
        return self._error

    def _at(self, path: Path) -> _Folder | None:
        here = self.last.root
        for name in path:
            below = here.get(name)
            if not isinstance(below, dict):
                return None
            here = below
        return here


class ListedAtOnce:
    """The provider.  Asked by one thread at a time; its attributes are set whole."""

    questions_at_once = 1

    def __init__(self, lister: Lister, listing: Listing) -> None:
        """Begin with *listing*."""
        self._lister = lister
        self.place = lister.place
        self.names = ListingNames(arranged(listing))
        self._stale_at = time.monotonic() + FRESH
        self._failure = ""
        """Why there was no listing the last time."""
        self._changed = False
        """Whether names have changed since the last `changes`; set after `names`."""

    @property
    def fresh_for(self) -> float:
        """The seconds for which names of the last listing are still valid."""
        return max(0.0, self._stale_at - time.monotonic())

    def question(self, folder: Path, name: bytes | None) -> Question | None:  # noqa: ARG002 - all are one
        """Return the question for a new listing, None if the last one is new enough."""
        return None if self.fresh_for else Question("listing", self._ask, self._keep_old)

    def _ask(self) -> None:
        try:
            names = ListingNames(arranged(self._lister.listing()))
        except (ImgfsError, OSError) as error:
            if str(error) != self._failure:  # an engine that is gone for hours is asked every 2 s
                log.warning("cannot list the images: %s", error)
            self._failure = str(error)
            names = ListingNames(self.names.last, str(error))
        else:
            self._failure = ""
        changed = names.last.root != self.names.last.root
        self.names = names
        self._changed = self._changed or changed
        self._keep(FRESH)

    def _keep(self, seconds: float) -> None:
        self._stale_at = time.monotonic() + seconds

    def _keep_old(self, seconds: float) -> None:
        if not self.fresh_for:  # else the answer has come meanwhile
            self._keep(seconds)

    def changes(self) -> Iterable[Path] | None:
        """Return that any name may have changed, or that none has."""
        if not self._changed:  # a link may have changed, which the kernel looks up again in two seconds
            return ()
        self._changed = False
        return None

    def open(self, listed: Listed) -> Opened:
        """Return an image."""
        return self._lister.open(listed)

    def close(self, opened: Opened) -> None:
        """Close an image as soon as nobody reads from it any more."""
        self._lister.close(opened)

    def left(self, key: str) -> None:
        """Do nothing: a key names an image."""


def _put(root: _Folder, listed: Listed) -> None:
    """Add an image directory; a name that is a directory of others, too, stays that."""
    here: Mapping[bytes, Listed | _Folder] = root
    for name in listed.path[:-1]:
        assert isinstance(here, dict)
        below = here.setdefault(name, {})
        if not isinstance(below, dict):
            below = here[name] = {}
        here = below
    assert isinstance(here, dict)
    here.setdefault(listed.path[-1], listed)
