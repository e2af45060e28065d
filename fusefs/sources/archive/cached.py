"""What the cache knows of an archive that a user names: its members, so that it is not scanned at every mount."""

import logging
import os
import time
import zlib
from collections.abc import Iterable

from fusefs.cache.entry import CacheEntry
from fusefs.cache.sealed_file import Altered
from fusefs.cache.store import Cache
from fusefs.content.file import OpenFile
from fusefs.errors import ImgfsError, InvalidImage
from fusefs.sources.archive.memberlist import MALFORMED, read_members, written_members
from fusefs.tar.members import Member, MemberTable, scan

log = logging.getLogger(__name__)


def archive_key(file: OpenFile) -> str:
    """Return what changes whenever a file does: a rewrite that sets the time anew still changes its ctime."""
    found = os.fstat(file.descriptor)
    parts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return "-".join(f"{part:x}" for part in parts)


def archive_index(cache: Cache, file: OpenFile, path: str) -> tuple[CacheEntry | None, MemberTable]:
    """Return the entry of the archive in *file*, which is called *path*, and its index, kept or made now.

    There is no entry where none can be made.
    """
    entry, facts = None, None
    try:
        entry, facts = cache.archive(archive_key(file))
    except OSError as error:  # a full disk, say
        log.warning("nothing of %s is kept: %s", file.name, error.strerror)
    if entry is not None and facts is not None:
        try:
            index = read_members(file.name, facts["members"])
            _check_headers(file, index, facts["sums"])
        except (Altered, InvalidImage, *MALFORMED) as error:
            entry.discard(str(error))
        except BaseException:  # the archive cannot be read, now: what is kept of it may be right
            entry.close()
            raise
        else:
            _log(facts["warnings"])
            return entry, index
    warnings: list[str] = []
    try:
        index = MemberTable.of(file.name, scan(file, warnings.append))
    except BaseException:
        if entry is not None:
            entry.abandon()
        raise
    finally:
        _log(warnings)
    if entry is not None:
        whole = os.path.abspath(path)  # now: in the background the current directory is another
        entry.later(lambda: _keep_archive(entry, file, index, whole, warnings))
    return entry, index


def _keep_archive(entry: CacheEntry, file: OpenFile, index: MemberTable, path: str, warnings: list[str]) -> None:
    try:
        sums = [_sum(file, member) for member in index.members.values()]
        if archive_key(file) != os.path.basename(entry.path):  # it changed meanwhile
            return
    except (OSError, ImgfsError) as error:
        log.warning("nothing of %s is kept: %s", file.name, error)
        return
    about = {"path": path, "created_ns": time.time_ns()}
    entry.complete({"about": about, "warnings": warnings, "members": written_members(index), "sums": sums})


def _log(warnings: Iterable[str]) -> None:
    for warning in warnings:
        log.warning("%s", warning)


def _check_headers(file: OpenFile, index: MemberTable, sums: list[int]) -> None:
    for member, expected in zip(index.members.values(), sums, strict=True):
        if _sum(file, member) != expected:
            raise Altered(f"the header at offset {member.header} is another one")


def _sum(file: OpenFile, member: Member) -> int:
    """Return a checksum of the header of *member*, with all that extends it."""
    return zlib.crc32(file.read_at(member.header, member.offset - member.header))
