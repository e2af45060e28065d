"""imgfs mount: an image as a read-only directory."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from fusefs.cli.imports import BackgroundImport
from fusefs.cli.mounting import Mounting
from fusefs.cli.output.messages import log_to_stderr
from fusefs.cli.parsing.mount_options import EROFS
from fusefs.errors import ImgfsError, UsageError
from fusefs.log import begin_to_log
from fusefs.oci.transport import REGISTRY, transport_of
from fusefs.text import printable

_OF_REGISTRIES = "fusefs.layers.indexer", "fusefs.layers.topdown", "fusefs.chunked.formats"
"""Modules that the first access to a layer needs.  A registry takes its time to answer; other sources wait for nothing
that is worth it."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Mount the image; with ``fake``, only check the options and the mountpoint."""
    log_to_stderr(quiet=arguments.quiet, verbose=arguments.verbose)
    mount_image(arguments, environment)


def mount_image(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Mount the image, as `run`; after an error, nothing is left of a mountpoint that was made for this mount."""
    _check_subdir(arguments.subdir, arguments.options)
    mounting = Mounting(arguments, environment)
    if arguments.fake:
        return
    try:
        _mount(mounting)
    except BaseException:
        mounting.release()
        mounting.remove_made()
        raise


def _mount(mounting: Mounting) -> None:
    """Mount, and return when the mount is usable or, in the foreground, unmounted."""
    arguments = mounting.arguments
    log = mounting.open_log() if arguments.log_file else None
    is_remote = transport_of(arguments.image) is REGISTRY
    if is_remote and not (arguments.all or arguments.offline):
        _connect_ahead(arguments, mounting.environment)
    from fusefs.cli.kept_mounts import kept_mount  # noqa: PLC0415 - a registry should be asked before
    from fusefs.cli.settings import settings_of  # noqa: PLC0415

    # It begins when a source is waited for: earlier it would only delay that, and cached metadata need no FUSE.
    importing = BackgroundImport("fusefs.mount.session", *(_OF_REGISTRIES if is_remote else ()))
    begin = _nothing if arguments.driver == EROFS else partial(_begin_import, importing)
    settings = settings_of(arguments, mounting.environment, mounting.writeback, begin)
    kept = kept_mount(arguments, settings, mounting.flags)
    if kept.root is not None:
        mounting.contents = kept.contents
        mounting.mount_by_kernel(kept.root, log)
        return
    from fusefs.cli.image_mounts import ImageMount  # noqa: PLC0415 - takes longer than mounting what is cached

    image = ImageMount(mounting, settings, importing, kept)
    if arguments.all:
        image.mount_all(log)
    else:
        image.mount(log)


def _connect_ahead(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Begin to connect to the registry, which is asked in any case for the image of a tag."""
    from fusefs.oci.reference import registry_reference  # noqa: PLC0415 - other images need none of this
    from fusefs.sources.registry.ahead import connect_ahead  # noqa: PLC0415

    with suppress(ImgfsError):  # opening the image finds out
        reference = registry_reference(arguments.image.removeprefix(REGISTRY.prefix))
        if not reference.digest:
            connect_ahead(reference, environment, timeout=arguments.timeout, insecure=arguments.insecure)


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
    begin_to_log()  # FUSE may log
    importing.begin()
