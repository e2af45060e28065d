"""The driver of a mount: FUSE, or the kernel's own file system EROFS."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from fusefs.cli.parsing.mount_options import AUTO, EROFS, FUSE
from fusefs.errors import ImgfsError, MountError
from fusefs.image.opened import Opened
from fusefs.log import logger
from fusefs.mount.privileges import may_mount
from fusefs.mount.view import ViewOptions
from fusefs.tree.top import Top

if TYPE_CHECKING:
    from fusefs.mount.kernel.view import KernelOptions, KernelView
    from fusefs.mount.succession import Successor

log = logger(__name__)


class KernelMounts:
    """The kernel mounts of one image: at once if its metadata are cached or asked for, else in the place of FUSE."""

    def __init__(
        self,
        driver: str,
        opened: Opened,
        view: ViewOptions,
        top: Callable[[ViewOptions], Top],
        options: "Callable[[], KernelOptions]",
    ) -> None:
        """Decide whether a kernel mount is possible; MountError if it is not and *driver* is ``erofs``.

        *top* makes the view, and returns the directory of it that is mounted.
        """
        self._driver = driver
        self._opened = opened
        self._indexed = threading.Event()
        self._view: KernelView | None = None
        self._why_fuse = ""
        if driver == FUSE or (driver == AUTO and not may_mount()):
            return
        try:
            self._view = self._kernel_view(view, top, options())
        except ImgfsError as error:
            self._give_up(error)

    def _kernel_view(
        self, view: ViewOptions, top: Callable[[ViewOptions], Top], options: "KernelOptions"
    ) -> "KernelView":
        from fusefs.mount.kernel.view import KernelView  # noqa: PLC0415 - other mounts do not need it

        if not may_mount():
            raise MountError("only root may mount with the driver erofs")
        layers = self._opened.layers
        names = [*layers.cached_names(), str(view.transform_symlinks)] if view.trees else []
        return KernelView(top(view._replace(whole=True)), names, self._opened.cache, options)

    def _give_up(self, error: ImgfsError) -> None:
        if self._driver == EROFS:
            raise error
        self._why_fuse = f"{self._opened.shown} is mounted by FUSE: {error}"
        if self._view is not None:
            self._view.close()
            self._view = None

    def root(self) -> int | None:
        """Return a descriptor of the root of a kernel mount that is attached nowhere; None: mount by FUSE."""
        if self._view is None:
            return None
        try:
            if self._driver != EROFS:  # a mount that may be lazy decompresses nothing for this
                return self._view.cached(self._opened.layers.tars_cached)
            root = self._view.cached()
            if root is None:
                self._opened.index()
                self._opened.fetch()
                root = self._view.cached()
            if root is None:
                root = self._view.written()
        except ImgfsError as error:
            self._give_up(error)
            return None
        return root

    def log_why_fuse(self) -> None:
        """Write into the log why the kernel mounts nothing, unless nobody asked for that."""
        if self._why_fuse:
            log.info("%s", self._why_fuse)

    @property
    def indexed(self) -> Callable[[], None]:
        """The function to call when all layers are indexed."""
        return self._indexed.set

    def successor(self, *, foreground: bool) -> "Successor | None":
        """Return what takes the place of a FUSE mount, None if nothing can; *foreground* as in `Successor`."""
        from fusefs.mount.succession import Successor  # noqa: PLC0415 - imports trio

        return None if self._view is None else Successor(self._indexed, self._view.written, foreground)
