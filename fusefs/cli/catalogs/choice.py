"""The catalog that a command line asks for."""

import argparse
import os

from fusefs.cli.catalogs.engine import EngineProvider
from fusefs.cli.catalogs.folder import FolderProvider
from fusefs.cli.catalogs.saves import Saves
from fusefs.errors import UsageError
from fusefs.mount.catalog.at_once import ListedAtOnce
from fusefs.mount.catalog.catalog import Catalog
from fusefs.mount.catalog.provider import Provider
from fusefs.mount.status import BytesRead, image_xattrs, process_xattrs
from fusefs.mount.view import ViewOptions
from fusefs.oci.transport import DOCKER_DAEMON, REGISTRY
from fusefs.sources.settings import Settings
from fusefs.text import printable

MAX_SAVES = 2
IDLE = 600.0
"""Seconds."""


def _provider(arguments: argparse.Namespace, settings: Settings, saves: Saves) -> Provider:
    """Return the provider that the IMAGE argument asks for, after its first answer."""
    image = arguments.image
    if image.startswith(REGISTRY.prefix):
        from fusefs.cli.catalogs.registry import RegistryProvider  # noqa: PLC0415 - no other catalog needs urllib3

        registry = RegistryProvider(image, settings, arguments.filter, saves)
        with settings.progress.waiting(f"asking {registry.place}"):
            registry.begin()
        return registry
    lister = _lister(arguments, settings, saves)
    with settings.progress.waiting(f"asking {lister.place}"):
        return ListedAtOnce(lister, lister.listing())


def _lister(arguments: argparse.Namespace, settings: Settings, saves: Saves) -> EngineProvider | FolderProvider:
    image = arguments.image
    if image == DOCKER_DAEMON.prefix:
        return EngineProvider(settings, arguments.filter, saves)
    if image.startswith(("/", "./", "../")) or image in (".", ".."):
        return FolderProvider(image, settings, arguments.filter, saves)
    raise UsageError(
        f"--all takes a folder (./{printable(image)}), a registry (docker://{printable(image)}) "
        f"or nothing for the images of an engine, not {printable(image)}"
    )


class ChosenCatalog:
    """A catalog before its mount: listed once, so that errors are those of the command."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings) -> None:
        """Choose by the IMAGE argument; raises UsageError, or the error of the first listing."""
        self._arguments = arguments
        saves = Saves(MAX_SAVES if arguments.max_saves is None else arguments.max_saves)
        self._provider = _provider(arguments, settings, saves)
        self.place = self._provider.place

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
        return Catalog(self._provider, options, IDLE if arguments.idle is None else arguments.idle)
