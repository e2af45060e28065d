"""Which image the IMAGE argument names, without opening it: for what is cached of a whole image."""

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from fusefs.cache.store import FILES, SAVED
from fusefs.oci.transport import DOCKER_ARCHIVE, DOCKER_DAEMON, Source
from fusefs.sources.argument import STDIN, EngineImage, FileImage, parse_image
from fusefs.sources.settings import Settings
from fusefs.text import printable

if TYPE_CHECKING:
    from fusefs.content.watched import WatchedFile
    from fusefs.sources.engine.unix import Asked


class Identity:
    """An image that is in an engine, or in a file of its own."""

    def __init__(
        self,
        kind: str,
        key: str,
        facts: tuple[object, ...],
        file: "WatchedFile | None" = None,
        asked: "Asked | None" = None,
    ) -> None:
        self.kind = kind
        self.key = key
        """The kind and the key of its cache entry."""
        self.facts = facts
        """What the source tells of the image besides: values whose repr is the same each time."""
        self.file = file
        """The open file."""
        self.asked = asked
        """The engine with its answer."""


def identify(argument: str, settings: Settings) -> Identity | None:
    """Return the identity of the image that *argument* names; None if only opening it tells.

    Raises UsageError and EngineError as opening it does.
    """
    match parse_image(argument):
        case EngineImage(text):
            return _in_engine(text, settings)
        case FileImage() as asked if asked.path != STDIN:
            with suppress(OSError):
                return _in_file(asked, argument)
    return None


def _in_engine(name: str, settings: Settings) -> Identity | None:
    from fusefs.sources.engine.advice import advising  # noqa: PLC0415 - files need no engine
    from fusefs.sources.engine.endpoint import find_endpoint  # noqa: PLC0415
    from fusefs.sources.engine.inspected import Target, engine_key  # noqa: PLC0415
    from fusefs.sources.engine.question import NoPlainAnswer  # noqa: PLC0415
    from fusefs.sources.engine.unix import Asked, UnixEngine  # noqa: PLC0415

    endpoint = find_endpoint(settings.host, settings.context, settings.environment)
    source = Source(name, DOCKER_DAEMON, endpoint.host, name)
    with suppress(NoPlainAnswer), advising(endpoint, name):
        engine = UnixEngine(endpoint, settings.timeout)
        inspected = engine.inspect(name)
        key = engine_key(Target(source, settings.platform, inspected))
        facts = endpoint.host, *inspected._replace(answer={}, size=0)
        return Identity(SAVED, key, facts, asked=Asked(engine, endpoint, source, inspected))
    return None


def _in_file(asked: FileImage, argument: str) -> Identity | None:
    from fusefs.content.watched import WatchedFile  # noqa: PLC0415 - engines need no file
    from fusefs.sources.archive.key import archive_key  # noqa: PLC0415

    status = os.stat(asked.path)
    if not stat.S_ISREG(status.st_mode):
        return None
    descriptor = os.open(asked.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    file = WatchedFile(descriptor, printable(asked.path))
    place = asked.source(argument, asked.transport or DOCKER_ARCHIVE).place
    return Identity(FILES, archive_key(file), (place,), file)
