"""The images of a catalog: opened at the first access, shared by all their directories, let go when unused."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from fusefs.errors import ImgfsError, Unavailable, limit_reached
from fusefs.image.opened import Opened
from fusefs.log import logger
from fusefs.mount.catalog.provider import Listed, Provider
from fusefs.text import printable

log = logger(__name__)

RETRY = 2.0
"""Seconds before an image that could not be opened is tried again."""


class CatalogImage:
    """One image.  Safe under concurrency: `_lock` guards all but what `failing` and `release` set whole."""

    def __init__(self, listed: Listed, provider: Provider, clock: Callable[[], float] = time.monotonic) -> None:
        """Open *listed* with *provider* at the first access."""
        self.listed = listed
        self._provider = provider
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self._unwanted = False
        """Whether it was let go since the last `open` began."""
        self._failed: Unavailable | None = None
        self._failed_at = 0.0
        self.directories = 0
        """How many directories use it."""
        self.error = ""
        """Why it could not be opened the last time; empty if it could, or if nobody has tried."""

    @property
    def is_open(self) -> bool:
        """Whether it is open now."""
        return self._opened is not None

    def open(self) -> Opened:
        """Return the image, opened now if it is not; Unavailable, with a line in the log, if that fails.

        Within 2 s after a failure it is not tried again.
        """
        self._unwanted = False
        try:
            return self._open()
        finally:
            if self._unwanted:
                self.release()

    def _open(self) -> Opened:
        with self._lock:
            if self._failed is not None and self._clock() < self._failed_at + RETRY:
                raise self._failed.with_traceback(None)  # the same: the log has it already
            if self._opened is not None:
                return self._opened
            log.info("opening %s", printable(self.listed.name))
            with self.failing():
                self._opened = self._provider.open(self.listed)
            log.info("opened %s", printable(self.listed.name))
            return self._opened

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Take an error of the block for one of the image: Unavailable, also at the next `open`, for 2 s."""
        try:
            yield
        except Exception as error:
            known = limit_reached(error) or error
            if not isinstance(known, ImgfsError | OSError):
                raise
            self._failed_at = self._clock()
            self.error = str(known)
            self._failed = failed = Unavailable(f"cannot open {printable(self.listed.name)}: {known}")
            raise failed from None
        else:
            self.error, self._failed = "", None

    def release(self) -> None:
        """Let go of the image: files that are still read stay open until they are not.

        Waits for nothing: a thread that is opening it lets go of it when it has.
        """
        self._unwanted = True
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._opened is not None:
                self._provider.close(self._opened)
            self._opened = None
        finally:
            self._lock.release()


class Images:
    """The images of a catalog by their keys, each as long as a directory of it exists.  Safe under concurrency."""

    def __init__(self, provider: Provider) -> None:
        """Open images with *provider*."""
        self._provider = provider
        self._lock = threading.Lock()
        self._images: WeakValueDictionary[str, CatalogImage] = WeakValueDictionary()
        """All that a directory refers to; guarded by the lock, as their `directories`."""

    def image(self, listed: Listed) -> CatalogImage:
        """Return the image of a directory: the one that is in use, or a new one."""
        with self._lock:
            image = self._images.get(listed.key)
            if image is None:
                image = self._images[listed.key] = CatalogImage(listed, self._provider)
            return image

    def enter(self, image: CatalogImage) -> None:
        """Count one more directory that uses *image*."""
        with self._lock:
            image.directories += 1

    def leave(self, image: CatalogImage) -> None:
        """Count one directory less; the last one lets go of the image."""
        with self._lock:
            image.directories -= 1
            if image.directories:
                return
        image.release()
        self._provider.left(image.listed.key)
