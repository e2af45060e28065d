"""Kernel mounts whose files are all cached: made again without opening the image."""

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusefs.cli.parsing.mount_options import FUSE
from fusefs.mount.kernel.record import mounted_again, record_name
from fusefs.mount.privileges import may_mount
from fusefs.oci.platform import Platform
from fusefs.sources.argument import public_name
from fusefs.sources.identity import identify
from fusefs.sources.settings import Settings

if TYPE_CHECKING:
    from fusefs.sources.engine.unix import Asked

_WITHOUT_INFLUENCE = frozenset(
    {"mountpoint", "foreground", "quiet", "verbose", "progress", "log_file", "as_helper", "driver"}
)
"""Options on which no view depends.  All others count, whether or not a view depends on them."""


class KeptMount:
    """What is known of a mount before the image is opened."""

    def __init__(
        self, record: str = "", asked: "Asked | None" = None, root: int | None = None, contents: str = ""
    ) -> None:
        self.record = record
        """The name of its record, empty if none is kept."""
        self.asked = asked
        """The engine, if it was asked."""
        self.root = root
        """A descriptor of the root of the mount, attached nowhere; None if the image has to be opened."""
        self.contents = contents
        """What a message says of the image."""


def kept_mount(arguments: argparse.Namespace, settings: Settings, flags: Sequence[str]) -> KeptMount:
    """Return the mount that the arguments ask for, if all its files are cached."""
    never = arguments.all or arguments.verify or arguments.driver == FUSE or not may_mount()
    cache = None if never else settings.cache()
    identity = None if cache is None else identify(arguments.image, settings)
    if cache is None or identity is None:
        return KeptMount()
    options = sorted((name, value) for name, value in vars(arguments).items() if name not in _WITHOUT_INFLUENCE)
    # One archive may hold images for several platforms.
    depends = options, os.getuid(), os.getgid(), str(settings.platform or Platform.of_host()), identity.facts
    try:
        record = record_name(depends)
        found = cache.complete(identity.kind, identity.key)
    except OSError:
        return KeptMount("", identity.asked)
    if found is None:
        return KeptMount(record, identity.asked)
    entry, facts = found
    if facts.get("warnings"):  # opening the image shows them
        entry.close()
        return KeptMount("", identity.asked)
    mounted = mounted_again(entry, record, identity.file, public_name(arguments.image), flags)
    if mounted is None:
        entry.close()
        return KeptMount(record, identity.asked)
    return KeptMount(record, identity.asked, *mounted)
