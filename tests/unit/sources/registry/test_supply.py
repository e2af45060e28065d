"""The bytes of a blob that another process has received."""

import os
from collections.abc import Callable
from pathlib import Path

from fusefs.cache.part import Fetching
from fusefs.cache.store import Cache
from fusefs.oci.digest import Digest
from fusefs.oci.documents import OCI_LAYER, Descriptor
from fusefs.sources.registry.entry import BlobEntry
from fusefs.sources.registry.supply import BlobSupply

DATA = bytes(range(256)) * 100
BLOB = Descriptor(OCI_LAYER, len(DATA), Digest.of([DATA]))


def test_what_another_process_has_verified_is_used_only_if_it_has_the_size_of_the_descriptor(tmp_path: Path) -> None:
    owner = BlobEntry(Cache(str(tmp_path / "cache")), BLOB, "docker://registry/app")
    own = owner.own_part()
    assert own is not None
    os.write(own.descriptor, DATA)
    own.tell(Fetching.VERIFIED)
    found = []
    for size in (len(DATA), len(DATA) - 1, len(DATA) + 1):
        descriptor = BLOB._replace(size=size)
        entry = BlobEntry(Cache(str(tmp_path / "cache")), descriptor, "docker://registry/app")
        file = BlobSupply(descriptor, "app", None, entry, str(tmp_path)).awaited()
        found.append(file is not None and bytes(file.read_at(0, 1 << 20)) == DATA)
        if file is not None:
            file.close()
        entry.close()
    assert found == [True, False, False]
    os.close(own.descriptor)
    own.close()
    owner.close()


def test_a_file_that_is_closed_before_it_is_cached_is_not_cached(tmp_path: Path) -> None:
    later: list[Callable[[], None]] = []
    entry = BlobEntry(Cache(str(tmp_path / "cache"), later=later.append), BLOB, "docker://registry/app")
    supply = BlobSupply(BLOB, "app", None, entry, str(tmp_path))
    rooms = [supply.room(cached=True) for _ in range(9)]
    for room in (rooms[0], rooms[-1]):  # one that others see, and one that is too much
        assert room is not None
        os.write(room.file.descriptor, DATA)
        room.keep()
        number = room.file.descriptor
        room.file.close()
        other = entry.new_file()
        os.write(other, bytes(len(DATA)))
        if other != number:
            os.dup2(other, number)  # as descriptors are used again
        for work in later:
            work()
        later.clear()
        assert supply.stored() is None
        os.close(other)
        if other != number:
            os.close(number)
    for room in filter(None, rooms):
        room.file.close()
    entry.close()
