"""Archives of the user in the cache: their members, so that they are not scanned at every mount."""

import os
import time
import zlib
from collections.abc import Iterable

from fusefs.cache.entry import CacheEntry
from fusefs.cache.sealed_file import Altered
from fusefs.cache.store import Cache
from fusefs.content.file import OpenFile
from fusefs.errors import ImgfsError, InvalidImage
from fusefs.log import logger
from fusefs.sources.archive.key import archive_key
from fusefs.sources.archive.memberlist import MALFORMED, read_members, written_members
from fusefs.tar.members import Member, MemberTable, scan

log = logger(__name__)


def archive_index(cache: Cache, file: OpenFile, path: str) -> tuple[CacheEntry | None, MemberTable]:
    """Return the cache entry and the member index of the archive in *file*, which lies at *path*.

    The index comes from the cache entry if that is complete, else from a scan.  Without room for an entry there is
    none.
    """
    entry, facts = None, None
    try:
        entry, facts = cache.archive(archive_key(file))
    except OSError as error:  # for example, a full disk
        log.warning("cannot cache %s: %s", file.name, error.strerror)
    if entry is not None and facts is not None:
        try:
            index = read_members(file.name, facts["members"])
            _check_headers(file, index, facts["sums"])
        except (Altered, InvalidImage, *MALFORMED) as error:
            entry.discard(str(error))
        except BaseException:  # the archive cannot be read now; the cache entry may be right
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
            entry.close()
        raise
    finally:
        _log(warnings)
    if entry is not None:
        whole = os.path.abspath(path)  # now: the background process has another current directory
        entry.later(lambda: _complete(entry, file, index, whole, warnings))
    return entry, index


def _complete(entry: CacheEntry, file: OpenFile, index: MemberTable, path: str, warnings: list[str]) -> None:
    try:
        sums = [_sum(file, member) for member in index.members.values()]
        if archive_key(file) != os.path.basename(entry.path):  # the archive changed during the scan
            return
    except (OSError, ImgfsError) as error:
        log.warning("cannot cache %s: %s", file.name, error)
        return
    about = {"path": path, "created_ns": time.time_ns()}
    entry.complete({"about": about, "warnings": warnings, "members": written_members(index), "sums": sums})


def _log(warnings: Iterable[str]) -> None:
    for warning in warnings:
        log.warning("%s", warning)


def _check_headers(file: OpenFile, index: MemberTable, sums: list[int]) -> None:
    for member, expected in zip(index.members.values(), sums, strict=True):
        if _sum(file, member) != expected:
            raise Altered(f"the header at offset {member.header} has changed")


def _sum(file: OpenFile, member: Member) -> int:
    """Return the CRC-32 of the header of *member* with its extension headers."""
    return zlib.crc32(file.read_at(member.header, member.offset - member.header))
