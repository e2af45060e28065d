"""Mounting one image that has to be opened, or all images of an engine or a folder."""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fusefs.cli.cache_folder import cache_folders
from fusefs.cli.imports import BackgroundImport, import_in_thread
from fusefs.cli.kept_mounts import KeptMount
from fusefs.cli.kernel_mounts import KernelMounts
from fusefs.cli.mounting import Mounting
from fusefs.cli.output.stdout import human_size
from fusefs.cli.parsing.mount_options import ALL, EROFS
from fusefs.content.pieces import FetchFailed
from fusefs.image.model import Image
from fusefs.image.opened import Opened
from fusefs.log import has_warned, logger
from fusefs.mount.status import BytesRead, image_xattrs, process_xattrs, traffic_xattrs
from fusefs.mount.view import ViewOptions, image_view
from fusefs.oci.transport import REGISTRY, transport_of
from fusefs.sources import open_image
from fusefs.sources.argument import public_name
from fusefs.sources.settings import Settings
from fusefs.tree.overrides import Overrides
from fusefs.tree.top import Top, find_top

if TYPE_CHECKING:  # imported by `BackgroundImport`, or for few mounts
    import logging

    from fusefs.mount.kernel.view import KernelOptions
    from fusefs.mount.session import MountOptions

log = logger(__name__)


class ImageMount:
    """The mount of one image, or of many, within a `Mounting`."""

    def __init__(self, mounting: Mounting, settings: Settings, importing: BackgroundImport, kept: KeptMount) -> None:
        """Let *importing* import what FUSE needs; *kept* is what is known of the image."""
        self._mounting = mounting
        self._settings = settings
        self._importing = importing
        self._kept = kept
        self._bytes_read = BytesRead()

    def mount(self, log: "logging.Handler | None") -> None:
        """Open the image, mount it, and return when the mount is usable or, in the foreground, unmounted.

        *log* is open, None for the default.
        """
        mounting, settings, importing = self._mounting, self._settings, self._importing
        arguments = mounting.arguments
        try:
            opened = self._opened(settings)
            view = self._view_options(opened)
            top = partial(self._top, opened, settings)
            if arguments.subdir:
                importing.finish()  # a first access may import more
                top(view)  # one that is not there is an error of the command, with every driver
            kernel = KernelMounts(arguments.driver, opened, view, top, self._kernel_options)
            if arguments.prefetch == ALL:
                with settings.progress.waiting(f"fetching {opened.shown}"):
                    opened.fetch()
            root = kernel.root()
            if root is None:
                importing.begin()
                if arguments.index and not arguments.no_trees:
                    opened.index()
                    kernel.indexed()
        finally:
            importing.finish()
        if root is None:
            mounting.serve(partial(self._serve, opened, top, view, kernel, settings), log)
        else:
            mounting.mount_by_kernel(root, log)

    def mount_all(self, log: "logging.Handler | None") -> None:
        """Mount many images, as `mount` mounts one."""
        self._mounting.serve(self._catalog_server(self._settings, self._importing), log)

    def _opened(self, settings: Settings) -> Opened:
        """Open the image."""
        arguments = self._mounting.arguments
        strict = arguments.strict or arguments.driver == EROFS  # which needs whole layers anyway
        sourced = open_image(arguments.image, settings, self._kept.asked)
        opened = Opened(sourced, settings.tmpdir, settings.progress, strict=strict)
        if (why := opened.image.why_no_rootfs) and not arguments.no_trees:
            log.warning("%s is mounted without rootfs/: %s", opened.shown, why)
        self._mounting.contents = contents(opened.image)
        return opened

    def _view_options(self, opened: Opened) -> ViewOptions:
        arguments = self._mounting.arguments
        return ViewOptions(
            uid=os.getuid(),
            gid=os.getgid(),
            trees=not arguments.no_trees,
            transform_symlinks="transform_symlinks" in arguments.options,
            xattrs=image_xattrs(public_name(arguments.image), opened.image.source.place, arguments.subdir or ""),
        )

    def _top(self, opened: Opened, settings: Settings, options: ViewOptions) -> Top:
        """Return the directory of the image's view that is mounted; first access to the layers that it lies in."""
        view = image_view(opened.image, opened.layers, options)
        subdir = self._mounting.arguments.subdir
        if not subdir:
            return Top(view)
        try:
            with settings.progress.waiting(f"indexing {opened.shown}"):
                return find_top(view, os.fsencode(subdir), opened.image.name)
        except FetchFailed as error:
            raise error.error from None

    def _kernel_options(self) -> "KernelOptions":
        from fusefs.mount.kernel.view import KernelOptions  # noqa: PLC0415 - other mounts do not need it

        mounting = self._mounting
        return KernelOptions(
            public_name(mounting.arguments.image),
            mounting.flags,
            Overrides(**mounting.overrides),
            self._settings.tmpdir,
            "" if has_warned() else self._kept.record,  # another mount has to say it again
            mounting.contents,
        )

    def _catalog_server(self, settings: Settings, importing: BackgroundImport) -> Callable[[Callable[[], None]], None]:
        """Return a function that serves many images."""
        from fusefs.cli.catalogs.choice import ChosenCatalog  # noqa: PLC0415 - few mounts need it

        chosen = ChosenCatalog(self._mounting.arguments, settings)
        self._mounting.all_of = chosen.place
        importing.begin()
        importing.finish()
        options = self._mount_options(settings)

        def serve_catalog(ready: Callable[[], None]) -> None:
            from fusefs.mount.session import serve  # noqa: PLC0415 - imported by `BackgroundImport`

            try:
                begin = partial(self._begin, None, None, ready)
                serve(chosen.catalog(self._bytes_read), self._mounting.mountpoint, options, begin)
            finally:
                self._mounting.finish()

        return serve_catalog

    def _mount_options(self, settings: Settings, kernel: KernelMounts | None = None) -> "MountOptions":
        from fusefs.mount.session import MountOptions  # noqa: PLC0415 - imported by `BackgroundImport`

        folders = (settings.tmpdir, *cache_folders(self._mounting.arguments, self._mounting.environment))
        overrides, image = Overrides(**self._mounting.overrides), public_name(self._mounting.arguments.image)
        successor = kernel.successor(foreground=self._mounting.arguments.foreground) if kernel else None
        files = self._credential_files(settings)
        return MountOptions(image, self._mounting.flags, overrides, self._bytes_read, folders, successor, files)

    def _credential_files(self, settings: Settings) -> tuple[str, ...]:
        """Return the files that a registry may make necessary at any time."""
        if transport_of(self._mounting.arguments.image) is not REGISTRY:
            return ()
        from fusefs.sources.registry.credentials import credential_files  # noqa: PLC0415 - other mounts need none

        return credential_files(settings.authfile, settings.environment)

    def _serve(  # noqa: PLR0913, PLR0917 - the parts of one mount
        self,
        opened: Opened,
        top: Callable[[ViewOptions], Top],
        view: ViewOptions,
        kernel: KernelMounts,
        settings: Settings,
        ready: Callable[[], None],
    ) -> None:
        """Mount by FUSE, call *ready* and serve until the end; background writes run meanwhile and are drained."""
        from fusefs.mount.session import serve  # noqa: PLC0415 - imported by `BackgroundImport`

        traffic = () if opened.traffic is None else traffic_xattrs(opened.traffic)
        xattrs = (*view.xattrs, *process_xattrs(self._bytes_read), *traffic)
        root = top(view._replace(xattrs=xattrs, merged=kernel.indexed)).root()
        try:
            begin = partial(self._begin, opened, kernel, ready)
            serve(root, self._mounting.mountpoint, self._mount_options(settings, kernel), begin)
        finally:
            self._mounting.finish()

    def _begin(self, opened: Opened | None, kernel: KernelMounts | None, ready: Callable[[], None]) -> None:
        """Start the threads that may not exist before a fork, then report that the mount is usable."""
        self._mounting.release()
        self._mounting.writeback.start()
        # The first access to a layer needs the indexer.  In a thread, the import does not delay reads of blobs.
        import_in_thread("fusefs.layers.indexer")
        ready()
        if kernel is not None:
            kernel.log_why_fuse()
        if self._mounting.arguments.prefetch and opened is not None:
            from fusefs.image.prefetch import begin_prefetch  # noqa: PLC0415 - few mounts need it

            begin_prefetch(opened)


def contents(image: Image) -> str:
    """Return number and size of the layers of *image*: ``5 layers, 393 MB``."""
    count = len(image.layers)
    size = human_size(sum(layer.descriptor.size for layer in image.layers)).replace(".0 ", " ")
    return f"{count} layer{'' if count == 1 else 's'}, {size}"
