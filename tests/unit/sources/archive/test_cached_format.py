"""The format of the documents in the cache, which versions of imgfs share."""

import os
from pathlib import Path

from fusefs.cache.sealed_file import FORMAT, read_document
from fusefs.cache.store import Cache
from fusefs.content.file import OpenFile
from fusefs.private import open_private
from fusefs.sources.archive.cached import archive_index
from fusefs.sources.archive.key import archive_key
from tests.support.builders import Archive


def test_a_document_with_other_fields_takes_another_format_and_other_folders(tmp_path: Path) -> None:
    archive = Archive().write(tmp_path / "image.tar")
    file = OpenFile(os.open(archive, os.O_RDONLY), "image.tar")
    entry, index = archive_index(Cache(str(tmp_path / "cache")), file, str(archive))
    assert entry is not None
    entry.close()
    directory = open_private(f"{tmp_path}/cache/files/{archive_key(file)}")
    document = read_document(directory, "index")
    assert document is not None
    assert len(document["members"]) == len(document["sums"]) == len(index.members)
    shape = {name: type(value) for name, value in document.items()}
    fields = [type(value) for value in document["members"][0]]
    assert (FORMAT, shape, fields) == (
        1,
        {"about": dict, "warnings": list, "members": list, "sums": list},
        [str, str, str, int, int, int, bool],
    )
    os.close(directory)
    file.close()
