"""Mounting again without opening the image: what a kernel mount was made of is recorded beside its metadata.

The record stands for the image, whose documents and trees need not be read: it names the files of the mount, all in
one cache entry but the archive itself, and the bytes that must be found in them.  Its name is a hash of all that the
view depends on: the options, what the source tells of the image, and the code of imgfs.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fusefs import __version__
from fusefs.errors import ImgfsError, NoSpace
from fusefs.log import logger
from fusefs.mount.kernel.attach import WrongContents, check_contents
from fusefs.mount.kernel.erofs import mount_erofs

if TYPE_CHECKING:
    from fusefs.content.watched import WatchedFile
    from fusefs.image.model import LayerCache

log = logger(__name__)

_ENDING = ".mount"
_MAX_SIZE = 4 << 20
_CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The package."""


Known = Sequence[tuple[bytes, bytes]]
"""Paths, and the bytes with which these files begin."""


class RecordedMount(NamedTuple):
    """The parts of a kernel mount."""

    metadata: str
    """The name of the metadata in the cache entry."""
    devices: Sequence[str | None]
    """The names of the devices in the cache entry, None for the archive of the user."""
    known: Known
    contents: str
    """What a message says of the image: ``5 layers, 393 MB``."""


def record_name(facts: Sequence[object]) -> str:
    """Return the name of the record of a mount that depends on *facts*, whose repr is the same each time."""
    return hashlib.sha256(repr((*facts, *_installed())).encode("utf-8", "surrogateescape")).hexdigest() + _ENDING


def _installed() -> Iterator[tuple[str, int, int]]:
    """Yield what changes whenever another imgfs is installed, or a module of this one is edited where it is."""
    record = os.path.join(os.path.dirname(_CODE), f"imgfs-{__version__}.dist-info", "RECORD")
    try:
        about = os.stat(record)  # written by each installation, with a digest of each module
    except OSError:
        yield from _code(_CODE)
    else:
        yield record, about.st_ino, about.st_mtime_ns


def _code(folder: str) -> Iterator[tuple[str, int, int]]:
    """Yield the name, size and mtime of each module below *folder*."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                about = entry.stat(follow_symlinks=False)
                yield entry.name, about.st_size, about.st_mtime_ns
            elif entry.name != "__pycache__" and entry.is_dir(follow_symlinks=False):
                yield from _code(entry.path)


def add_record(
    cache: "LayerCache", name: str, metadata: str, devices: Sequence[int | None], about: tuple[Known, str]
) -> None:
    """Cache the record *name* of a mount of the cached file *metadata*, unless a device is not cached.

    *devices* are open files, None for the archive of the user; *about* are the last two fields of `RecordedMount`.
    """
    names = [None if device is None else cache.name_of(device) for device in devices]
    if any(found is None and device is not None for found, device in zip(names, devices, strict=True)):
        return
    known, contents = about
    document = metadata, names, [[part.decode("latin-1") for part in pair] for pair in known], contents
    try:
        with open(cache.new_file(), "wb") as file:
            file.write(json.dumps(document).encode())
            if file.tell() <= _MAX_SIZE:
                file.flush()
                cache.add(name, file.fileno())
    except (NoSpace, OSError) as error:
        log.info("cannot cache how it was mounted: %s", error)


def mounted_again(
    cache: "LayerCache", name: str, archive: "WatchedFile | None", source: str, flags: Sequence[str]
) -> tuple[int, str] | None:
    """Mount what the record *name* in *cache* says; return a descriptor of the mount's root, and its contents.

    *archive* is the open archive of the user.  *source* and *flags* are those of `mount_erofs`.  The mount is attached
    nowhere.  None if there is no such record, or if it does not fit: opening the image explains why.
    """
    record = _read(cache, name)
    if record is None:
        return None
    with contextlib.ExitStack() as stack:
        opened: list[int] = []
        for file in (record.metadata, *record.devices):
            descriptor = _snapshot(archive, stack.callback) if file is None else cache.open_cached(file)
            if descriptor is None:
                return None
            if file is not None:
                stack.callback(os.close, descriptor)
            opened.append(descriptor)
        try:
            mount = mount_erofs(opened[0], opened[1:], source, flags)
        except ImgfsError as error:
            log.debug("%s: %s", name, error)
            return None
    try:
        check_contents(mount, record.known)
    except WrongContents as error:
        os.close(mount)
        cache.drop(name, str(error))
        return None
    except BaseException:
        os.close(mount)
        raise
    return mount, record.contents


def _snapshot(archive: "WatchedFile | None", at_end: Callable[[Callable[[], None]], Any]) -> int | None:
    """Return the descriptor of a snapshot of *archive*, closed *at_end*; None if none can be made."""
    if archive is None:
        return None
    from fusefs.mount.kernel.snapshot import Snapshot  # noqa: PLC0415 - images of engines need none

    try:
        snapshot = Snapshot(archive)
        at_end(snapshot.close)
        return snapshot.take()
    except ImgfsError:
        return None


def _read(cache: "LayerCache", name: str) -> RecordedMount | None:
    file = cache.open_cached(name)
    if file is None:
        return None
    with open(file, "rb") as stream:
        data = stream.read(_MAX_SIZE)
    try:
        metadata, devices, pairs, contents = json.loads(data)
        known = [(path.encode("latin-1"), first.encode("latin-1")) for path, first in pairs]
    except (ValueError, TypeError, AttributeError, RecursionError):
        cache.drop(name, "it is damaged")
        return None
    return RecordedMount(metadata, devices, known, contents)
