"""imgfs mount."""

import argparse
import gc
import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping

from fusefs.cache.writeback import Writeback
from fusefs.cli.cache_folder import cache_folders
from fusefs.cli.notify import notify
from fusefs.cli.opening import settings_of
from fusefs.cli.output.logs import open_log, stderr_handler
from fusefs.cli.output.stdout import say
from fusefs.cli.parsing.mount_options import libfuse_flags, number_option
from fusefs.image.opened import Opened
from fusefs.mount.mountpoint import claim_mountpoint
from fusefs.mount.status import BytesRead, mount_xattrs
from fusefs.mount.view import ViewOptions, image_view
from fusefs.sources import open_image
from fusefs.sources.settings import Settings
from fusefs.text import printable
from fusefs.tree.node import Directory

_NUMBERS = {"uid": 10, "gid": 10, "umask": 8}
"""Options that put a number in the place of the image's, and its base."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image, mount it, and return when it is usable or, in the foreground, unmounted."""
    level = logging.ERROR if arguments.quiet else logging.INFO if arguments.verbose else logging.WARNING
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler(level)], force=True)
    flags = libfuse_flags(arguments.options)
    overrides = {name: number_option(arguments.options, name, base) for name, base in _NUMBERS.items()}
    mountpoint, claim = claim_mountpoint(arguments.mountpoint)
    if arguments.fake:
        return
    log = None if arguments.foreground and not arguments.log_file else open_log(arguments.log_file, environment)
    writeback = Writeback()
    importing = _Importing()
    bytes_read = BytesRead()
    settings = settings_of(arguments, environment, writeback, importing.begin)
    try:
        root = _root(arguments, settings, bytes_read)
    finally:
        importing.finish()
    from fusefs.mount.background import in_background  # noqa: PLC0415 - see above
    from fusefs.mount.overrides import Overrides  # noqa: PLC0415
    from fusefs.mount.session import MountOptions, serve  # noqa: PLC0415 - see above

    folders = (settings.tmpdir, *cache_folders(arguments, environment))
    options = MountOptions(arguments.image, flags, Overrides(**overrides), bytes_read, folders)

    def announce() -> None:
        # mount(8) says nothing when all is well, unless it is asked to.
        if not arguments.quiet and (arguments.verbose or not arguments.as_helper):
            where = f"; log: {log.name}" if log and log.name else ""
            say(f"{printable(arguments.image)} is mounted on {printable(arguments.mountpoint)}{where}")

    def mounted(ready: Callable[[], None]) -> None:
        """Serve; what is to be kept is written meanwhile, and to its end."""

        def begin() -> None:
            ready()
            os.close(claim)
            # What a first look needs, and a mount that is only read does not wait for.
            threading.Thread(target=importlib.import_module, args=("fusefs.layers.indexer",), daemon=True).start()
            writeback.start()

        try:
            serve(root, mountpoint, options, begin)
        finally:
            if arguments.foreground:
                notify("STOPPING=1", environment)  # what is kept may still have to reach the disk
            writeback.finish()

    if log is None or arguments.foreground:
        if log:
            logging.getLogger().addHandler(log)

        def tell() -> None:
            announce()
            notify("READY=1", environment)

        mounted(tell)
    else:
        in_background(mounted, log)
        announce()


class _Importing:
    """FUSE and its event loop, imported in a thread: that takes 0.2 s.

    It begins when an engine is waited for: earlier it would only hold up what asks the engine.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin, unless that is done."""
        if self._thread is None:
            gc.disable()  # as for the command's own modules
            self._thread = threading.Thread(target=importlib.import_module, args=("fusefs.mount.session",))
            self._thread.start()

    def finish(self) -> None:
        """Wait for the end: the process forks."""
        if self._thread is not None:
            self._thread.join()
            gc.freeze()
            gc.enable()


def _root(arguments: argparse.Namespace, settings: Settings, bytes_read: BytesRead) -> Directory:
    """Return the tree to show."""
    opened = Opened(open_image(arguments.image, settings), settings.tmpdir, settings.progress)
    if arguments.index and not arguments.no_trees:
        opened.index()
    options = ViewOptions(
        uid=os.getuid(),
        gid=os.getgid(),
        trees=not arguments.no_trees,
        transform_symlinks="transform_symlinks" in arguments.options,
        xattrs=mount_xattrs(arguments.image, opened.image.source.place, bytes_read),
    )
    return image_view(opened.image, opened.layers, options)
