"""The connection to a registry, begun before the command is imported."""

import argparse
from collections.abc import Mapping
from contextlib import suppress

from fusefs.errors import ImgfsError
from fusefs.oci.transport import REGISTRY


def connect_ahead(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Begin to connect to the registry that the command asks in any case: for the image of a tag."""
    image = getattr(arguments, "image", "")
    if not image.startswith(REGISTRY.prefix) or "@" in image or arguments.offline:
        return
    if arguments.command == "mount" and (arguments.fake or arguments.all):  # opens no image, or many
        return
    from fusefs.oci.reference import registry_reference  # noqa: PLC0415 - other images need none of this
    from fusefs.sources.registry import ahead  # noqa: PLC0415

    with suppress(ImgfsError):  # the command finds out
        reference = registry_reference(image.removeprefix(REGISTRY.prefix).partition(":/")[0])
        ahead.connect_ahead(reference, environment, timeout=arguments.timeout, insecure=arguments.insecure)
