"""Engine images in the cache: the tar, its members and its digests.

Every mount compares the cached digests with the engine's answer to inspect, as for an image that was just received.
"""

import time
from contextlib import AbstractContextManager

from fusefs.cache.entry import TAR, CacheEntry
from fusefs.cache.sealed_file import Altered, Facts, open_sealed
from fusefs.content.file import OpenFile
from fusefs.errors import ImgfsError
from fusefs.image.model import Image, SourcedImage
from fusefs.log import logger
from fusefs.oci.digest import Digest
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.sources.archive.memberlist import MALFORMED, read_members, written_members
from fusefs.sources.archive.spooled import SpooledTar
from fusefs.sources.engine.checked import checked_image
from fusefs.sources.engine.inspected import Target, engine_key
from fusefs.sources.settings import Settings
from fusefs.text import printable

log = logger(__name__)


def cached_or_entry(target: Target, settings: Settings) -> SourcedImage | CacheEntry | None:
    """Return the cached image; if it is not cached, an exclusive cache entry to fill; None without a cache.

    Also None if the cached image cannot be read now: its entry stays for the next mount.  Waits while another process
    receives the same image.
    """
    cache = settings.cache()
    if cache is None:
        return None

    def waiting() -> AbstractContextManager[None]:
        # Another thread may import from here on, and this process may yet have to receive the image.
        import fusefs.sources.archive.spooling  # noqa: F401, PLC0415

        settings.progress.waiting_began()
        return settings.progress.waiting(f"another imgfs saves {printable(target.name)}")

    while True:
        try:
            entry, facts = cache.saved(engine_key(target), waiting)
        except OSError as error:  # for example, a full disk
            log.warning("cannot cache %s: %s", printable(target.name), error.strerror or error)
            return None
        if facts is None:
            return entry
        try:
            return SourcedImage(_cached_image(entry, facts, target), entry)
        except OSError as error:  # may be temporary (a disk error, too many open files): the entry may be intact
            log.warning("cannot read %s from the cache: %s", printable(target.name), error.strerror or error)
            entry.close()
            return None
        except (Altered, ImgfsError, *MALFORMED) as error:
            entry.discard(str(error))
            entry.close()


def is_cached(target: Target, settings: Settings) -> bool:
    """Return whether the image seems to be cached; `cached_or_entry` finds out whether that can be read."""
    cache = settings.cache()
    return cache is not None and cache.has_saved(engine_key(target))


def complete_entry(entry: CacheEntry, tar: SpooledTar, target: Target, *, only: bool) -> None:
    """Complete *entry* with *tar*, which is in a file without other data and whose digests were checked."""
    inspected = target.inspected
    facts: Facts = {
        "about": {
            "names": list(inspected.tags) or [target.name],
            "id": str(inspected.image_id),
            "platform": str(target.platform or inspected.platform or ""),
            "storage": inspected.storage,
            "engine": target.source.place,
            "created_ns": time.time_ns(),
        },
        "only": only,
        "warnings": tar.warnings,
        "members": written_members(tar.blobs.index),
        "digests": {str(offset): str(digest) for offset, digest in tar.digests.items()},
    }
    entry.complete(facts, tar.blobs.tar.descriptor)


def _cached_image(entry: CacheEntry, facts: Facts, target: Target) -> Image:
    file = OpenFile(open_sealed(entry.directory, TAR, facts), printable(target.name))
    try:
        index = read_members(file.name, facts["members"])
        digests = {int(offset): Digest.parse(text) for offset, text in facts["digests"].items()}
        tar = SpooledTar(TarBlobs(file, index), digests, facts["warnings"])
        image = checked_image(tar, target, only=facts["only"])
    except BaseException:
        file.close()
        raise
    tar.log_warnings()
    return image
