"""From an engine to an image: inspected, then kept in the cache or saved now, every digest checked.

The engine is asked once what the image is (inspect) and then for exactly that (save, by image ID).
What it sends is spooled, and indexed and hashed as it passes.
"""

import http.client
import json
import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from fusefs.cache.entry import CacheEntry
from fusefs.content.protocol import Buffer
from fusefs.content.spool import Spool, free_space, megabytes, no_space
from fusefs.errors import EngineError, InvalidImage, NoSpace
from fusefs.image.model import SourcedImage
from fusefs.oci.platform import Platform
from fusefs.oci.transport import Source
from fusefs.progress import Advance
from fusefs.sources.archive.spooled import SavedTar, save
from fusefs.sources.engine.cached import engine_entry, keep_saved
from fusefs.sources.engine.inspected import NONSENSE, Inspected, Target, saved_image
from fusefs.sources.settings import Settings
from fusefs.text import printable

log = logging.getLogger(__name__)

PLATFORM_VERSION = "1.48"
"""The first version of the API whose save knows platforms; earlier ones ignore the word."""
MAX_ANSWER = 16 << 20
"""Bytes that are taken of an answer that is no image."""
_ERROR_TAIL = 1 << 14
"""Bytes at the end of a stream that may hold the engine's error."""
_MAX_WHY = 500
"""Characters of an engine's reason: it may be a page."""
_JSON_ERROR = re.compile(rb'\{\s*"(?:errorDetail|error|message|cause)"')


class Stream(Protocol):
    """What an engine sends."""

    def chunks(self) -> Iterator[Buffer]:
        """Yield the bytes, each buffer valid until the next one; raises one of the engine's `failures`."""


class Engine(Protocol):
    """What imgfs asks of an engine."""

    @property
    def shown(self) -> str:
        """Where it is, for messages."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What a broken connection raises."""

    def picks(self, platform: Platform | None) -> bool:
        """Return whether a save is asked for the *platform*."""

    def inspect(self, name: str) -> Inspected:
        """Return what the engine says of the image *name*."""

    def begin(self, target: Target) -> AbstractContextManager[Stream]:
        """Ask for the image and return when it begins to come; classic engines prepare the whole image before that."""


def engine_image(engine: Engine, source: Source, settings: Settings) -> SourcedImage:
    """Return the image of *source*, every digest checked: kept in the cache, or saved now.

    Raises EngineError, Unavailable, NoSpace, DigestMismatch, InvalidImage or Unsupported.
    """
    target = Target(source, settings.platform, engine.inspect(source.name))
    match engine_entry(target, settings):
        case SourcedImage() as found:
            return found
        case CacheEntry() as entry:
            try:
                return _saved_to_keep(engine, target, settings, entry)
            except NoSpace as error:
                log.info("%s is not kept: %s", printable(source.name), error)
    return _saved(engine, target, settings)


def requested_platform(platform: Platform) -> str:
    """Return *platform* as the API takes it."""
    wanted = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return json.dumps({key: value for key, value in wanted.items() if value})


def refusal(engine: Engine, name: str, why: str) -> EngineError:
    """Return the error for an engine that answers but does not want to."""
    shown = why if len(why) <= _MAX_WHY else f"{why[:_MAX_WHY]}…"
    return EngineError(f"the engine at {engine.shown} refuses {printable(name)}: {printable(shown)}")


def message_of(answer: bytes, status: str) -> str:
    """Return why an engine refuses: its ``{"message": …}``, else its own words, else those of HTTP's *status*."""
    try:
        return str(json.loads(answer)["message"])
    except (RecursionError, *NONSENSE):
        return answer.decode("utf-8", "replace").strip() or status


def unanswered(shown: str, timeout: float | None) -> EngineError:
    """Return the error for the engine at *shown* that takes too long to answer."""
    return EngineError(f"the engine at {shown} did not answer within {timeout:g} s; --timeout waits longer")


def timed_out(error: BaseException) -> bool:
    """Return whether a connection failed because we waited long enough; the system's own timeouts have a number."""
    cause = cause_of(error)
    return isinstance(cause, TimeoutError) and cause.errno is None


def reason(error: BaseException) -> str:
    """Return why a connection failed, in a few words."""
    cause = cause_of(error)
    if isinstance(cause, json.JSONDecodeError):
        return "its answer is no JSON"
    if isinstance(cause, http.client.IncompleteRead):
        return "its answer is cut short or garbled"
    if isinstance(cause, OSError) and cause.strerror:
        return printable(cause.strerror)
    return printable(str(cause)) or type(cause).__name__


def cause_of(error: BaseException) -> BaseException:
    """Return the innermost exception that has something to say: the system's, or our own timeout, if there is one."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and (error.errno is not None or isinstance(error, TimeoutError)):
            break
        # What these were raised for is a detail of the parser.
        if isinstance(error, (json.JSONDecodeError, http.client.IncompleteRead)):
            break
        inner = [arg for arg in (*error.args, getattr(error, "reason", None)) if isinstance(arg, BaseException)]
        deeper = inner[-1] if inner else error.__cause__ or error.__context__
        if deeper is None:
            break
        error = deeper
    return error


def _saved(engine: Engine, target: Target, settings: Settings) -> SourcedImage:
    """Save the image into a spool file."""
    name, need, free = printable(target.name), target.inspected.size, free_space(settings.tmpdir)
    if need > free:
        raise no_space(name, settings.tmpdir, need, free)
    with Spool(settings.tmpdir, name) as spool:
        saved = _save(engine, target, settings, spool)
        return SourcedImage(saved_image(saved, target, only=engine.picks(target.platform)))


def _saved_to_keep(engine: Engine, target: Target, settings: Settings, entry: CacheEntry) -> SourcedImage:
    """Save the image into *entry*, where it is kept once someone has the time; NoSpace if it has no room there."""
    name, need = printable(target.name), target.inspected.size
    only = engine.picks(target.platform)
    try:
        room = entry.room(need)
        if not room:
            raise no_space(name, entry.path, need, room)
        with Spool(entry.path, name, entry.new_file(), room) as spool:
            saved = _save(engine, target, settings, spool)
            image = saved_image(saved, target, only=only)
    except BaseException:
        entry.abandon()
        raise
    entry.later(lambda: keep_saved(entry, saved, target, only=only))
    return SourcedImage(image, entry)


def _save(engine: Engine, target: Target, settings: Settings, spool: Spool) -> SavedTar:
    """Receive the image; EngineError when the engine says in its stream that it failed."""
    progress, size = settings.progress, target.inspected.size
    damage: InvalidImage | None = None
    try:
        progress.waiting_began()
        with progress.waiting(f"the engine prepares {spool.name}"):
            beginning = engine.begin(target)
        with beginning as stream, progress.transfer(f"saving {spool.name}", size) as advance:
            saved = save(_counted(stream, advance), spool, size)
    except InvalidImage as error:
        damage = error
    except engine.failures as error:
        raise EngineError(_broken_off(engine, spool, error, settings.timeout)) from None
    reported = _error_in_stream(spool)
    if reported is not None:
        raise EngineError(f"the engine at {engine.shown} failed to save {spool.name}: {printable(reported)}")
    if damage is not None:
        raise damage
    saved.log_warnings()
    return saved


def _broken_off(engine: Engine, spool: Spool, error: Exception, timeout: float | None) -> str:
    """Return how the engine's stream ended too early."""
    name, after = spool.name, f"after {megabytes(spool.written)}"
    if timed_out(error):
        return f"the engine at {engine.shown} sent nothing of {name} for {timeout:g} s {after}; --timeout waits longer"
    return f"the engine at {engine.shown} stopped sending {name} {after}: {reason(error)}"


def _counted(stream: Stream, advance: Advance) -> Iterator[Buffer]:
    for chunk in stream.chunks():
        yield chunk
        advance(len(chunk))


def _error_in_stream(spool: Spool) -> str | None:
    """Return the error that an engine wrote as JSON at the end of its stream, under HTTP 200."""
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
