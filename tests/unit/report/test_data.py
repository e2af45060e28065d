"""The data of the page, of images that are opened."""

from contextlib import closing
from pathlib import Path

from fusefs.image.model import SourcedImage
from fusefs.image.opened import Opened
from fusefs.progress import Silent
from fusefs.report.data import difference_data
from tests.support.changesets import changeset, file
from tests.support.package_databases import dpkg_status
from tests.support.remote_content import remote_image

RPM = "usr/lib/sysimage/rpm/rpmdb.sqlite"
DPKG = file("var/lib/dpkg/status", dpkg_status(("a", "1")))


def test_a_damaged_database_of_packages_leaves_everything_else(tmp_path: Path) -> None:
    def opened(*members: bytes) -> Opened:
        return Opened(SourcedImage(remote_image([changeset(*members)])), str(tmp_path), Silent())

    with closing(opened(DPKG)) as old, closing(opened(file(RPM, b"x" * 5000), file("new", b"12"))) as new:
        found = difference_data(old, new)
        assert (found["packages"], found["whyNoPackages"]) == ([], f"/{RPM} is damaged: file is not a database")
        assert found["counts"] == {"added": [2, 5002], "removed": [1, len(dpkg_status(("a", "1")))], "changed": [0, 0]}
    with closing(opened(DPKG)) as old, closing(opened()) as new:
        found = difference_data(old, new)
        assert (found["packages"], found["whyNoPackages"]) == ([["a", "1", "–"]], None)
