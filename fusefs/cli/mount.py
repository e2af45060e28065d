"""imgfs mount."""

import argparse
import importlib
import logging
import os
import sys
import threading
from collections.abc import Mapping

from fusefs.cli.logs import open_log, stderr_handler
from fusefs.cli.mountoptions import libfuse_flags, number_option
from fusefs.cli.terminal import progress_on
from fusefs.errors import UsageError, printable
from fusefs.image import Image
from fusefs.layers import Layers
from fusefs.mountpoint import check_mountpoint
from fusefs.platforms import Platform
from fusefs.sources import open_image
from fusefs.sources.settings import Settings
from fusefs.tree import Directory
from fusefs.view import ViewOptions, image_view

_TMPDIR = "/var/tmp"  # noqa: S108 - files there are created unlinked; /tmp is often in memory

_NUMBERS = {"uid": 10, "gid": 10, "umask": 8}
"""Options that put a number in the place of the image's, and its base."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image, mount it, and return when it is usable or, in the foreground, unmounted."""
    level = logging.ERROR if arguments.quiet else logging.INFO if arguments.verbose else logging.WARNING
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler(level)], force=True)
    flags = libfuse_flags(arguments.options)
    overrides = {name: number_option(arguments.options, name, base) for name, base in _NUMBERS.items()}
    mountpoint = check_mountpoint(arguments.mountpoint)
    log = None if arguments.foreground and not arguments.log_file else open_log(arguments.log_file, environment)
    settings = _settings(arguments, environment)

    # FUSE and its event loop take 0.2 s to import: done while the engine prepares the image.
    importing = threading.Thread(target=importlib.import_module, args=("fusefs.mount",))
    importing.start()
    try:
        root = _root(arguments, settings)
    finally:
        importing.join()
    from fusefs.mount import MountOptions, in_background, serve  # noqa: PLC0415 - see above
    from fusefs.operations import Overrides  # noqa: PLC0415

    options = MountOptions(arguments.image, flags, Overrides(**overrides), (settings.tmpdir,))

    def announce() -> None:
        if not arguments.quiet:
            where = f"; log: {log.name}" if log and log.name else ""
            text = f"{printable(arguments.image)} is mounted on {printable(arguments.mountpoint)}{where}"
            print(f"imgfs: {text}", file=sys.stderr, flush=True)

    if log is None or arguments.foreground:
        if log:
            logging.getLogger().addHandler(log)
        serve(root, mountpoint, options, announce)
    else:
        in_background(lambda ready: serve(root, mountpoint, options, ready), log)
        announce()


def _settings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    try:
        platform = None if arguments.platform is None else Platform.parse(arguments.platform)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Settings(
        host=arguments.host,
        context=arguments.context,
        # Absolute: the process in the background works in the root directory.
        tmpdir=os.path.abspath(arguments.tmpdir or environment.get("IMGFS_TMPDIR") or _TMPDIR),
        verify=arguments.verify,
        platform=platform,
        environment=environment,
        progress=progress_on(sys.stderr, quiet=arguments.quiet),
    )


def _root(arguments: argparse.Namespace, settings: Settings) -> Directory:
    """Return the tree to show."""
    image = open_image(arguments.image, settings)
    layers = Layers(image, settings.tmpdir)
    if arguments.index and not arguments.no_trees:
        _index(image, layers, settings)
    options = ViewOptions(
        uid=os.getuid(),
        gid=os.getgid(),
        trees=not arguments.no_trees,
        transform_symlinks="transform_symlinks" in arguments.options,
    )
    return image_view(image, layers, options)


def _index(image: Image, layers: Layers, settings: Settings) -> None:
    """Index all layers before there is a mount."""
    total = sum(layer.descriptor.size for layer in image.layers)
    with settings.progress.transfer(f"indexing {printable(image.name)}", total) as advance:
        layers.all_files(lambda layer: advance(layer.descriptor.size))
