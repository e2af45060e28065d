"""imgfs mount: an image as a read-only directory."""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from fusefs.cache.writeback import Writeback
from fusefs.cli.cache_folder import cache_folders
from fusefs.cli.imports import BackgroundImport, import_in_thread
from fusefs.cli.kernel_mounts import KernelMounts, attach_root
from fusefs.cli.notify import notify
from fusefs.cli.opening import settings_of
from fusefs.cli.output.messages import log_to_stderr
from fusefs.cli.output.stdout import Output, ReaderGone, human_size, say, seconds_since
from fusefs.cli.parsing.mount_options import ALL, EROFS, libfuse_flags, number_option
from fusefs.content.pieces import FetchFailed
from fusefs.errors import ImgfsError, UsageError
from fusefs.image.model import Image
from fusefs.image.opened import Opened
from fusefs.log import begin_to_log, logger
from fusefs.mount.mountinfo import mount_of
from fusefs.mount.mountpoint import Mountpoint, claim_mountpoint
from fusefs.mount.status import BytesRead, image_xattrs, process_xattrs, traffic_xattrs
from fusefs.mount.view import ViewOptions, image_view
from fusefs.sources import open_image
from fusefs.sources.argument import public_name
from fusefs.sources.handover import hand_over
from fusefs.sources.settings import Settings
from fusefs.text import printable
from fusefs.tree.overrides import Overrides
from fusefs.tree.top import Top, find_top

if TYPE_CHECKING:  # imported by `BackgroundImport`, or for few mounts
    import logging

    from fusefs.mount.kernel.view import KernelOptions
    from fusefs.mount.session import MountOptions

log = logger(__name__)

_NUMBERS = {"uid": 10, "gid": 10, "umask": 8}
"""Mount options that override the image's owners and modes, and the base of their numbers."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Mount the image; with ``fake``, only check the options and the mountpoint."""
    log_to_stderr(quiet=arguments.quiet, verbose=arguments.verbose)
    command = MountCommand(arguments, environment)
    if not arguments.fake:
        command.run()


def _check_subdir(subdir: str | None, options: Sequence[str]) -> None:
    """Raise UsageError for a path with ``..``, or one whose changed links would lead out of the mount."""
    names = [name for name in (subdir or "").split("/") if name not in ("", ".")]
    if ".." in names:
        raise UsageError(f"--subdir {printable(subdir or '')}: the path may not contain ..")
    if "transform_symlinks" in options and names and names[1 + (names[0] == "layers") :]:
        raise UsageError("transform_symlinks changes links to lead into the whole tree: --subdir rootfs or layers/N")


def _nothing() -> None:
    """Do nothing: the driver erofs needs no FUSE."""


def _begin_import(importing: BackgroundImport) -> None:
    begin_to_log()  # FUSE may log, and so may this thread, which must not import anything meanwhile
    importing.begin()


class MountCommand:
    """One mount, from its command line to its end."""

    def __init__(self, arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
        """Check the mount options, and claim the mountpoint."""
        self._arguments = arguments
        self._environment = environment
        self._flags = libfuse_flags(arguments.options)
        _check_subdir(arguments.subdir, arguments.options)
        self._overrides = {name: number_option(arguments.options, name, base) for name, base in _NUMBERS.items()}
        self._mountpoint = self._claimed()
        self._path = arguments.mountpoint or self._mountpoint.path
        self._released = False
        self._all = ""
        """Where many images come from; empty for one."""
        self._began = time.monotonic()
        self._contents = ""
        self._writeback = Writeback()
        self._bytes_read = BytesRead()

    def _claimed(self) -> Mountpoint:
        if self._arguments.mountpoint is not None:
            return claim_mountpoint(self._arguments.mountpoint, self._environment)
        from fusefs.mount.made_mountpoint import make_mountpoint, safe_name  # noqa: PLC0415 - few mounts need it

        return make_mountpoint(safe_name(self._arguments.image), self._environment)

    def run(self) -> None:
        """Mount, as `_mount`; after an error, nothing is left of a mountpoint that was made for this mount."""
        try:
            self._mount()
        except BaseException:
            self._release()
            self._remove_made()
            raise

    def _release(self) -> None:
        """Close the mountpoint, and with it the lock that keeps other processes from it."""
        if not self._released:
            self._released = True
            self._mountpoint.close()

    def _remove_made(self) -> None:
        if self._arguments.mountpoint is None:
            from fusefs.mount.made_mountpoint import remove_mountpoint  # noqa: PLC0415 - few mounts need it

            remove_mountpoint(self._path, self._environment)

    def _mount(self) -> None:
        """Open the image, mount it, and return when the mount is usable or, in the foreground, unmounted."""
        arguments = self._arguments
        log = self._open_log() if arguments.log_file else None
        # It begins when a source is waited for: earlier it would only delay that, and cached metadata need no FUSE.
        importing = BackgroundImport("fusefs.mount.session")
        begin = _nothing if arguments.driver == EROFS else partial(_begin_import, importing)
        settings = settings_of(arguments, self._environment, self._writeback, begin)
        if arguments.all:
            self._run(self._catalog_server(settings, importing), log)
            return
        try:
            opened = self._opened(settings)
            view = self._view_options(opened)
            top = partial(self._top, opened, settings)
            if arguments.subdir:
                importing.finish()  # a first access may import more
                top(view)  # one that is not there is an error of the command, with every driver
            kernel = KernelMounts(arguments.driver, opened, view, top, partial(self._kernel_options, settings))
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
            self._run(partial(self._serve, opened, top, view, kernel, settings), log)
        elif self._writeback.idle and not arguments.foreground:
            attach_root(root, self._mountpoint)
            self._announce(None)
        else:
            self._run(partial(self._serve_by_kernel, root), log)

    def _run(self, serve: Callable[[Callable[[], None]], None], log: "logging.Handler | None") -> None:
        """Call *serve*, in the background or here, and say when it is ready."""
        begin_to_log()  # FUSE may log
        if log is None and not self._arguments.foreground:
            log = self._open_log()
        if log is None or self._arguments.foreground:
            if log:
                import logging  # noqa: PLC0415 - mounts without a log need it only for messages

                logging.getLogger().addHandler(log)
            serve(partial(self._ready_in_foreground, log))
        else:
            from fusefs.mount.background import in_background  # noqa: PLC0415 - kernel mounts have no process

            hand_over()
            in_background(serve, log)
            self._announce(log)

    def _open_log(self) -> "logging.Handler":
        from fusefs.cli.output.logs import open_log  # noqa: PLC0415 - kernel mounts have no log

        return open_log(self._arguments.log_file, self._environment)

    def _opened(self, settings: Settings) -> Opened:
        """Open the image."""
        arguments = self._arguments
        strict = arguments.strict or arguments.driver == EROFS  # which needs whole layers anyway
        opened = Opened(open_image(arguments.image, settings), settings.tmpdir, settings.progress, strict=strict)
        if (why := opened.image.why_no_rootfs) and not arguments.no_trees:
            log.warning("%s is mounted without rootfs/: %s", opened.shown, why)
        self._contents = contents(opened.image)
        return opened

    def _view_options(self, opened: Opened) -> ViewOptions:
        arguments = self._arguments
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
        subdir = self._arguments.subdir
        if not subdir:
            return Top(view)
        try:
            with settings.progress.waiting(f"indexing {opened.shown}"):
                return find_top(view, os.fsencode(subdir), opened.image.name)
        except FetchFailed as error:
            raise error.error from None

    def _kernel_options(self, settings: Settings) -> "KernelOptions":
        from fusefs.mount.kernel.view import KernelOptions  # noqa: PLC0415 - other mounts do not need it

        return KernelOptions(
            public_name(self._arguments.image), self._flags, Overrides(**self._overrides), settings.tmpdir
        )

    def _catalog_server(self, settings: Settings, importing: BackgroundImport) -> Callable[[Callable[[], None]], None]:
        """Return a function that serves many images."""
        from fusefs.cli.catalogs.choice import ChosenCatalog  # noqa: PLC0415 - few mounts need it

        chosen = ChosenCatalog(self._arguments, settings)
        self._all = chosen.place
        importing.begin()
        importing.finish()
        options = self._mount_options(settings)

        def serve_catalog(ready: Callable[[], None]) -> None:
            from fusefs.mount.session import serve  # noqa: PLC0415 - imported by `BackgroundImport`

            try:
                serve(
                    chosen.catalog(self._bytes_read), self._mountpoint, options, partial(self._begin, None, None, ready)
                )
            finally:
                self._finish()

        return serve_catalog

    def _mount_options(self, settings: Settings, kernel: KernelMounts | None = None) -> "MountOptions":
        from fusefs.mount.session import MountOptions  # noqa: PLC0415 - imported by `BackgroundImport`

        folders = (settings.tmpdir, *cache_folders(self._arguments, self._environment))
        overrides, image = Overrides(**self._overrides), public_name(self._arguments.image)
        successor = kernel.successor(foreground=self._arguments.foreground) if kernel else None
        return MountOptions(image, self._flags, overrides, self._bytes_read, folders, successor)

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
            serve(root, self._mountpoint, self._mount_options(settings, kernel), begin)
        finally:
            opened.note()
            self._finish()

    def _serve_by_kernel(self, root: int, ready: Callable[[], None]) -> None:
        """Attach the kernel mount, call *ready*, drain background writes; in the foreground, wait for the unmount."""
        from fusefs.mount.kernel.hold import hold_until_unmounted, stop_signals_noted  # noqa: PLC0415

        none: Sequence[int] = ()
        with stop_signals_noted() if self._arguments.foreground else nullcontext(none) as noted:
            try:
                attach_root(root, self._mountpoint)
                mount = mount_of(root)
                os.close(root)
                self._release()
                ready()
                if mount is not None and self._arguments.foreground:
                    self._writeback.start()  # the next mount needs what is cached, and not only when this one ends
                    hold_until_unmounted(mount, noted)
            finally:
                self._finish()

    def _finish(self) -> None:
        if self._arguments.foreground:
            notify("STOPPING=1", self._environment)  # background writes may still have to reach the disk
        self._writeback.finish()
        self._remove_made()  # unless the kernel has taken over: then it is busy

    def _begin(self, opened: Opened | None, kernel: KernelMounts | None, ready: Callable[[], None]) -> None:
        """Start the threads that may not exist before a fork, then report that the mount is usable."""
        self._release()
        self._writeback.start()
        # The first access to a layer needs the indexer.  In a thread, the import does not delay reads of blobs.
        import_in_thread("fusefs.layers.indexer")
        ready()
        if kernel is not None:
            kernel.log_why_fuse()
        if self._arguments.prefetch and opened is not None:
            from fusefs.image.prefetch import begin_prefetch  # noqa: PLC0415 - few mounts need it

            begin_prefetch(opened.image)

    def _ready_in_foreground(self, log: "logging.Handler | None") -> None:
        self._announce(log)
        notify("READY=1", self._environment)

    def _announce(self, log: "logging.Handler | None") -> None:
        """Say that the image is mounted; as a helper of mount(8), only with ``--verbose``.

        Of a mountpoint that was made, standard output gets the path, and nothing else is said without ``--verbose``.
        """
        arguments = self._arguments
        if arguments.mountpoint is None:
            self._print_path()
            if not arguments.verbose:
                return
        shown = f"all of {self._all}" if self._all else arguments.image
        if not arguments.quiet and (arguments.verbose or not arguments.as_helper):
            where = f"; log: {log.name}" if log and log.name and (arguments.verbose or _is_new(log)) else ""
            mounted = f"mounted {printable(public_name(shown))} on {printable(self._path)}"
            contents_shown = f" ({self._contents})" if self._contents else ""
            say(f"{mounted} in {seconds_since(self._began)}{contents_shown}{where}")

    def _print_path(self) -> None:
        output = Output(self._environment)
        try:
            output.raw(os.fsencode(self._path) + b"\n")
            output.finish()
        except (ImgfsError, ReaderGone):  # nobody would know where it is
            from fusefs.mount.unmounting import unmount_all  # noqa: PLC0415 - few mounts need it

            unmount_all([self._path], lazily=True)
            raise


def _is_new(log: "logging.Handler") -> bool:
    from fusefs.cli.output.logs import is_new  # noqa: PLC0415 - kernel mounts have no log

    return is_new(log)


def contents(image: Image) -> str:
    """Return number and size of the layers of *image*: ``5 layers, 393 MB``."""
    count = len(image.layers)
    size = human_size(sum(layer.descriptor.size for layer in image.layers)).replace(".0 ", " ")
    return f"{count} layer{'' if count == 1 else 's'}, {size}"
