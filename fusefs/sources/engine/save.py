"""An image of an engine: inspected, then taken from the cache or saved, every digest checked.

The engine describes the image (inspect) and then sends exactly that one (save, by image ID).  The stream is spooled,
and indexed and hashed as it arrives.
"""

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from fusefs.cache.entry import CacheEntry
from fusefs.content.protocol import Buffer
from fusefs.content.spool import Spool, free_space, megabytes, no_space
from fusefs.errors import EngineError, InvalidImage, NoSpace, Unavailable
from fusefs.image.model import SourcedImage
from fusefs.log import logger
from fusefs.oci.platform import Platform, suitability
from fusefs.oci.transport import Source
from fusefs.progress import Advance
from fusefs.sources.archive.spooled import SpooledTar
from fusefs.sources.engine.answers import platform_hint
from fusefs.sources.engine.cached import cached_or_entry, complete_entry, is_cached
from fusefs.sources.engine.checked import checked_image
from fusefs.sources.engine.inspected import Inspected, Target
from fusefs.sources.reasons import reason, timed_out
from fusefs.sources.settings import Settings
from fusefs.text import printable

if TYPE_CHECKING:
    from fusefs.image.inspection import Inspection

log = logger(__name__)

_ONE_PLATFORM = frozenset({"aufs", "devicemapper", "overlay", "overlay2", "vfs"})
"""Storage drivers of engines that have an image for one platform alone."""
_ERROR_TAIL = 1 << 14
"""Bytes at the end of a stream that are searched for the engine's error."""
_JSON_ERROR = re.compile(rb'\{\s*"(?:errorDetail|error|message|cause)"')


class Stream(Protocol):
    """The image that an engine sends."""

    def chunks(self) -> Iterator[Buffer]:
        """Yield the bytes; each buffer is valid until the next one.  Raises one of the engine's `failures`."""


class Engine(Protocol):
    """The requests of imgfs to an engine."""

    @property
    def shown(self) -> str:
        """The address in messages."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """The exceptions of a broken connection."""

    def picks(self, platform: Platform | None) -> bool:
        """Return whether this engine can save the *platform* alone."""

    def inspect(self, name: str) -> Inspected:
        """Return the engine's description of the image *name*."""

    def history(self, target: Target) -> list[Any] | None:
        """Return the history of the image, the newest step first; None if the engine states none."""

    def begin(self, target: Target) -> AbstractContextManager[Stream]:
        """Ask for the image and return when it begins to arrive; classic engines prepare all of it first."""


def engine_image(
    engine: Engine, source: Source, settings: Settings, inspected: Inspected | None = None
) -> SourcedImage:
    """Return the image of *source*, from the cache or saved now, every digest checked.

    *inspected* is the engine's description of it, if it was asked for already.
    Raises EngineError, Unavailable, NoSpace, DigestMismatch, InvalidImage or Unsupported.
    """
    target = _target(engine, source, settings, inspected)
    match cached_or_entry(target, settings):
        case SourcedImage() as found:
            return found
        case CacheEntry() as entry:
            try:
                return _saved_into_cache(engine, target, settings, entry)
            except NoSpace as error:
                log.info("cannot cache %s: %s", printable(source.name), error)
    return _saved(engine, target, settings)


def engine_inspection(engine: Engine, source: Source, settings: Settings) -> "Inspection | None":
    """Return what the engine alone says of the image; None if the image must be opened: it is cached, or to be checked.

    None also if the user asks for a platform that the engine does not describe.  Raises EngineError or Unavailable.
    """
    target = _target(engine, source, settings)
    platform, storage = target.platform, target.inspected.storage
    if settings.verify or (platform is not None and storage not in _ONE_PLATFORM) or is_cached(target, settings):
        return None

    from fusefs.sources.engine.description import described  # noqa: PLC0415 - a mount does not need it

    history = engine.history(target)
    return None if history is None else described(target, history)


def _target(engine: Engine, source: Source, settings: Settings, inspected: Inspected | None = None) -> Target:
    """Return the image that the user asks for; Unavailable if the engine has it for another platform alone."""
    target = Target(source, settings.platform, inspected or engine.inspect(source.name))
    wanted, inspected = target.platform, target.inspected
    only = inspected.platform if inspected.storage in _ONE_PLATFORM else None
    if wanted is not None and only is not None and suitability(only, wanted, exact=True) is None:
        raise Unavailable(f"{printable(target.name)} has no image for {wanted}; it is for {only}")
    return target


def _saved(engine: Engine, target: Target, settings: Settings) -> SourcedImage:
    """Save the image into a spool file in the spool directory."""
    name, need, free = printable(target.name), target.inspected.size, free_space(settings.tmpdir)
    if need > free:
        raise no_space(name, settings.tmpdir, need, free)
    with Spool(settings.tmpdir, name) as spool:
        tar = _save(engine, target, settings, spool)
        return SourcedImage(checked_image(tar, target, only=engine.picks(target.platform)))


def _saved_into_cache(engine: Engine, target: Target, settings: Settings, entry: CacheEntry) -> SourcedImage:
    """Save the image into *entry*, which is completed in the background; NoSpace if it has no room there."""
    name, need = printable(target.name), target.inspected.size
    only = engine.picks(target.platform)
    try:
        room = entry.room(need)
        if not room:
            raise no_space(name, entry.path, need, room)
        with Spool(entry.path, name, entry.new_file(), room) as spool:
            tar = _save(engine, target, settings, spool)
            image = checked_image(tar, target, only=only)
    except BaseException:
        entry.abandon()
        entry.close()
        raise
    entry.later(lambda: complete_entry(entry, tar, target, only=only))
    return SourcedImage(image, entry)


def _save(engine: Engine, target: Target, settings: Settings, spool: Spool) -> SpooledTar:
    """Receive the image; EngineError if the engine reports a failure inside the stream."""
    from fusefs.sources.archive.spooling import spool_tar  # noqa: PLC0415 - cached images are not received

    progress, size = settings.progress, target.inspected.size
    damage: InvalidImage | None = None
    try:
        progress.waiting_began()
        with progress.waiting(f"the engine prepares {spool.name}"):
            beginning = engine.begin(target)
        with beginning as stream, progress.transfer(f"saving {spool.name}", size) as advance:
            tar = spool_tar(_counted(stream, advance), spool, size)
    except InvalidImage as error:
        damage = error
    except engine.failures as error:
        raise EngineError(_broken_off(engine, spool, error, settings.timeout)) from None
    reported = _error_in_stream(spool)
    if reported is not None:
        hint = platform_hint(target)
        raise EngineError(f"the engine at {engine.shown} failed to save {spool.name}: {printable(reported)}{hint}")
    if damage is not None:
        raise damage
    tar.log_warnings()
    return tar


def _broken_off(engine: Engine, spool: Spool, error: Exception, timeout: float | None) -> str:
    """Return how the engine's stream broke off."""
    name, after = spool.name, f"after {megabytes(spool.written)}"
    if timed_out(error):
        return f"the engine at {engine.shown} sent nothing of {name} for {timeout:g} s {after}; --timeout waits longer"
    return f"the engine at {engine.shown} stopped sending {name} {after}: {reason(error)}"


def _counted(stream: Stream, advance: Advance) -> Iterator[Buffer]:
    for chunk in stream.chunks():
        yield chunk
        advance(len(chunk))


def _error_in_stream(spool: Spool) -> str | None:
    """Return the error that an engine wrote as JSON at the end of its stream, despite HTTP status 200."""
    tail = bytes(spool.read_at(max(0, spool.written - _ERROR_TAIL), _ERROR_TAIL))
    for match in _JSON_ERROR.finditer(tail):
        try:
            document = json.loads(tail[match.start() :])
        except (ValueError, RecursionError):
            continue
        for key in ("error", "message", "cause"):
            if isinstance(document.get(key), str):
                return str(document[key])
    return None
