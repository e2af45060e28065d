"""The catalog that a command line asks for."""

import argparse
import os
from typing import TYPE_CHECKING

from fusefs.cli.catalogs.engine import EngineProvider
from fusefs.cli.catalogs.folder import FolderProvider
from fusefs.cli.catalogs.saves import Saves
from fusefs.errors import UsageError
from fusefs.mount.catalog.catalog import Catalog
from fusefs.mount.status import BytesRead, image_xattrs, process_xattrs
from fusefs.mount.view import ViewOptions
from fusefs.oci.transport import DOCKER_DAEMON
from fusefs.sources.settings import Settings
from fusefs.text import printable

if TYPE_CHECKING:
    from fusefs.mount.catalog.provider import Listing

MAX_SAVES = 2
IDLE = 600.0
"""Seconds."""


def _provider(arguments: argparse.Namespace, settings: Settings, saves: Saves) -> EngineProvider | FolderProvider:
    image = arguments.image
    if image == DOCKER_DAEMON.prefix:
        return EngineProvider(settings, arguments.filter, saves)
    if image.startswith(("/", "./", "../")) or image in (".", ".."):
        return FolderProvider(image, settings, arguments.filter, saves)
    raise UsageError(
        f"--all takes a folder (./{printable(image)}), or nothing for the images of an engine, not {printable(image)}"
    )


class ChosenCatalog:
    """A catalog before its mount: listed once, so that errors are those of the command."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings) -> None:
        """Choose by the IMAGE argument; raises UsageError, or the error of the first listing."""
        self._arguments = arguments
        saves = Saves(MAX_SAVES if arguments.max_saves is None else arguments.max_saves)
        provider = _provider(arguments, settings, saves)
        self._provider = provider
        self.place = provider.place
        with settings.progress.waiting(f"asking {self.place}"):
            self._listing: Listing = provider.listing()

    def catalog(self, bytes_read: BytesRead) -> Catalog:
        """Return the catalog for the process that serves it."""
        arguments = self._arguments
        xattrs = (*image_xattrs(arguments.image, self.place), *process_xattrs(bytes_read))
        options = ViewOptions(
            uid=os.getuid(),
            gid=os.getgid(),
            trees=not arguments.no_trees,
            transform_symlinks="transform_symlinks" in arguments.options,
            xattrs=xattrs,
        )
        return Catalog(self._provider, self._listing, options, IDLE if arguments.idle is None else arguments.idle)
