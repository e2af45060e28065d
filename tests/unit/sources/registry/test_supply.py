"""The bytes of a blob that another process has received."""

import os
from pathlib import Path

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
    os.write(own[0], DATA)
    owner.write_part(own[0], [(0, len(DATA))], verified=True)
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
    os.close(own[0])
    owner.close()
