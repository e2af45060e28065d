"""Opens the image of a one-shot command in the same way as `imgfs mount` does."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from fusefs.cache.writeback import Writeback
from fusefs.cli.output.messages import log_to_stderr
from fusefs.cli.settings import settings_of
from fusefs.content.pieces import FetchFailed
from fusefs.errors import Unavailable, UsageError
from fusefs.image.inspection import Inspection
from fusefs.image.opened import Opened
from fusefs.oci.transport import REGISTRY, transport_of, url_start
from fusefs.sources import describe_image, open_image
from fusefs.sources.settings import Settings
from fusefs.text import printable, quoted


def split_path(argument: str) -> tuple[str, bytes | None]:
    """Split ``IMAGE[:/PATH]`` into the image and the path in it, None if there is no path.

    The path begins at the first ``:/`` after the transport.  A reference contains no ``:/``: a port, a tag or a
    digest follows its colons.
    """
    transport = transport_of(argument)
    url = url_start(argument)
    is_name = url is None and (transport is None or transport is REGISTRY)
    start = len(transport.prefix) if transport else 0
    if url is not None:
        start = argument.index("://", url) + len("://")
    colon = argument.find(":/", start)
    if colon < 0 or (is_name and argument.startswith("://", colon)):  # a URL: `parse_image` reports it
        return argument, None
    return argument[:colon], os.fsencode(argument[colon + 1 :])


def image_and_paths(image: str, paths: Sequence[str]) -> tuple[str, list[bytes]]:
    """Return the image and the paths in it that a command line names: ``IMAGE:/PATH``, or ``IMAGE PATH…``.

    A path begins at the root directory, with a slash or without one.  No path: an empty list.
    """
    if paths:
        name, path = split_path(image)
        if path is not None and not os.path.exists(image):
            shown, rest = quoted(name), " ".join(map(quoted, (os.fsdecode(path), *paths)))
            raise UsageError(f"give IMAGE:/PATH or IMAGE PATH…, not both: {shown} {rest}")
        return image, [os.fsencode(path if path.startswith("/") else f"/{path}") for path in paths]
    name, path = split_path(image)
    return name, [] if path is None else [path]


class Opener:
    """Opens the images of a command, each according to the options."""

    def __init__(self, settings: Settings, *, strict: bool) -> None:
        self._settings = settings
        self._strict = strict
        self.names: list[str] = []
        """Of the images, for messages."""

    def __call__(self, name: str) -> Opened:
        """Open the image *name*."""
        self.names.append(printable(name))
        settings = self._settings
        return Opened(open_image(name, settings), settings.tmpdir, settings.progress, strict=self._strict)

    def described(self, name: str) -> Inspection | None:
        """Return what an engine says of the image *name*; None if it has to be opened."""
        return describe_image(name, self._settings)


@contextmanager
def opening(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Iterator[Opener]:
    """Give what opens an image according to the options; messages go to stderr.

    An OSError in the block becomes Unavailable, with the names of the opened images.
    """
    log_to_stderr(quiet=arguments.quiet, verbose=arguments.verbose)
    writeback = Writeback()
    opener = Opener(settings_of(arguments, environment, writeback), strict=arguments.strict)
    try:
        yield opener
    except FetchFailed as error:
        raise error.error from None
    except OSError as error:
        raise Unavailable(f"cannot read {' or '.join(opener.names)}: {error.strerror}") from None
    finally:
        writeback.finish()
