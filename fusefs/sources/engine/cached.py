"""Engine images in the cache: each a saved tar of its own, its members, and what was hashed of it.

The digests are compared with what the engine says at every mount, as if the image had just been saved.
"""

import hashlib
import json
import logging
import time
from contextlib import AbstractContextManager

from fusefs.cache.entry import TAR, CacheEntry
from fusefs.cache.sealed_file import Altered, Facts, open_sealed
from fusefs.content.file import OpenFile
from fusefs.errors import ImgfsError
from fusefs.image.model import Image, SourcedImage
from fusefs.oci.digest import Digest
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.sources.archive.memberlist import MALFORMED, read_members, written_members
from fusefs.sources.archive.spooled import SavedTar
from fusefs.sources.engine.inspected import Target, saved_image
from fusefs.sources.settings import Settings
from fusefs.text import printable

log = logging.getLogger(__name__)


def engine_entry(target: Target, settings: Settings) -> SourcedImage | CacheEntry | None:
    """Return the image if it is kept; the entry to keep it in, ours alone, if it is not; None without a cache.

    None, too, if it is kept and cannot be read now: it stays for the next time.  Waits while another process saves the
    same image.
    """
    cache = settings.cache()
    if cache is None:
        return None

    def waiting() -> AbstractContextManager[None]:
        settings.progress.waiting_began()
        return settings.progress.waiting(f"another imgfs saves {printable(target.name)}")

    while True:
        try:
            entry, facts = cache.saved(_engine_key(target), waiting)
        except OSError as error:  # a full disk, say
            log.warning("%s is not kept: %s", printable(target.name), error.strerror or error)
            return None
        if facts is None:
            return entry
        try:
            return SourcedImage(_kept_image(entry, facts, target), entry)
        except OSError as error:  # of this moment, as a disk that fails or too many open files: the image may be whole
            log.warning("what is kept of %s cannot be read: %s", printable(target.name), error.strerror or error)
            entry.close()
            return None
        except (Altered, ImgfsError, *MALFORMED) as error:
            entry.discard(str(error))
            entry.close()


def keep_saved(entry: CacheEntry, saved: SavedTar, target: Target, *, only: bool) -> None:
    """Make *entry* count: *saved* is a file of its own, whole and checked."""
    inspected = target.inspected
    facts: Facts = {
        "about": {
            "names": list(inspected.tags) or [target.name],
            "id": str(inspected.image_id),
            "platform": str(target.platform or inspected.platform or ""),
            "storage": inspected.storage,
            "created_ns": time.time_ns(),
        },
        "only": only,
        "warnings": saved.warnings,
        "members": written_members(saved.blobs.index),
        "digests": {str(offset): str(digest) for offset, digest in saved.digests.items()},
    }
    entry.complete(facts, saved.blobs.tar.descriptor)


def _kept_image(entry: CacheEntry, facts: Facts, target: Target) -> Image:
    file = OpenFile(open_sealed(entry.directory, TAR, facts), printable(target.name))
    try:
        index = read_members(file.name, facts["members"])
        digests = {int(offset): Digest.parse(text) for offset, text in facts["digests"].items()}
        saved = SavedTar(TarBlobs(file, index), digests, facts["warnings"])
        image = saved_image(saved, target, only=facts["only"])
    except BaseException:
        file.close()
        raise
    saved.log_warnings()
    return image


def _engine_key(target: Target) -> str:
    inspected = target.inspected
    parts = [str(inspected.image_id), str(target.platform or ""), str(inspected.platform or ""), inspected.storage]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
