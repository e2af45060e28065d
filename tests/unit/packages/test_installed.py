"""Packages in the databases of a root file system, whatever these contain."""

import struct
import tracemalloc

import pytest

from fusefs.errors import InvalidImage
from fusefs.layers.rootfs import RootfsTree
from fusefs.packages import rpm
from fusefs.packages.database import Package, paragraphs
from fusefs.packages.installed import PackageChange, installed, package_changes
from fusefs.packages.rpm_header import package_in
from tests.conftest import TakeWarnings
from tests.support.changesets import all_indexed, changeset, file, hard_link, symlink
from tests.support.package_databases import TABLE, apk_installed, dpkg_status, rpm_database, rpm_header

RPM = "usr/lib/sysimage/rpm/rpmdb.sqlite"
OLD_RPM = "var/lib/rpm/rpmdb.sqlite"


def _installed(*members: bytes) -> list[str]:
    """Return the packages of a layer, each as ``KIND NAME VERSION ARCHITECTURE``."""
    with all_indexed([changeset(*members)]) as files:
        return [" ".join(package) for package in installed(RootfsTree(files, transform_symlinks=False))]


def test_dpkg_has_packages_that_are_not_removed() -> None:
    status = (
        dpkg_status(("curl", "7.88-1"), ("libc6", "2.36")) + b"\n" + dpkg_status(("gone", "1"), state="config-files")
    )
    assert _installed(file("var/lib/dpkg/status", status)) == ["deb curl 7.88-1 amd64", "deb libc6 2.36 amd64"]


def test_distroless_images_have_a_file_for_each_package() -> None:
    base = b"Package: base\nVersion: 12\nArchitecture: all"
    files = file("var/lib/dpkg/status.d/base", base), file("var/lib/dpkg/status.d/base.md5sums", b"Package: x\n")
    assert _installed(*files) == ["deb base 12 all"]
    assert _installed(file("var/lib/dpkg/status.d", base)) == []


def test_apk_has_its_database_in_one_of_two_places() -> None:
    data = apk_installed(("musl", "1.2.5-r0"), ("busybox", "1.36-r1"))
    expected = ["apk busybox 1.36-r1 x86_64", "apk musl 1.2.5-r0 x86_64"]
    assert _installed(file("lib/apk/db/installed", data)) == expected
    assert _installed(file("usr/lib/apk/db/installed", data), symlink("lib", "usr/lib")) == expected


def test_rpm_has_headers_in_a_database_of_sqlite() -> None:
    data = rpm_database(rpm_header("bash", "5.1", "2.el9"), rpm_header("shadow", "4.9", "1", epoch=2))
    expected = ["rpm bash 5.1-2.el9 x86_64", "rpm shadow 2:4.9-1 x86_64"]
    assert _installed(file(RPM, data)) == _installed(file(OLD_RPM, data)) == expected
    assert _installed(file(RPM, data), symlink("var/lib/rpm", "../../usr/lib/sysimage/rpm")) == expected
    many = rpm_database(*(rpm_header(f"p{number:06}", "1", "1") for number in range(5000)))
    assert len(_installed(file(RPM, many))) == 5000


def test_what_is_not_read_of_rpm_is_told(take_warnings: TakeWarnings) -> None:
    assert _installed(file("var/lib/rpm/Packages", b"x")) == []
    assert _installed(file(RPM, rpm_database()), file(f"{RPM}-wal", b"x")) == []
    assert take_warnings() == [
        "/var/lib/rpm/Packages is a database of an older rpm, which is not read",
        f"/{RPM} has a write-ahead log, which is not read: packages may be missing",
    ]


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS blob FROM n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "file is not a database"),
        (b"no database" * 100, "file is not a database"),
        (rpm_database()[:3000], "database disk image is malformed"),
        (rpm_database(statements=[f"CREATE VIEW Packages AS {ENDLESS}"]), "it has no table of packages"),
        (rpm_database(statements=["CREATE VIRTUAL TABLE Packages USING fts5(blob)"]), "it has no table of packages"),
        (rpm_database(statements=["CREATE TABLE Other (blob)", "CREATE TEMP TABLE Packages (blob)"]), "no table"),
        (rpm_database(b"short"), "a header is too short"),
        (rpm_database(struct.pack(">II", 1 << 31, 0) + bytes(100)), "a header is longer than its bytes"),
        (rpm_database(statements=[TABLE, "INSERT INTO Packages (blob) VALUES ('text')"]), "a header is not of bytes"),
        (
            rpm_database(
                statements=[
                    "CREATE TABLE Packages (x, blob AS (hex(zeroblob(30000000))))",
                    "INSERT INTO Packages (x) VALUES (1)",
                ]
            ),
            "its table of packages is not one of rpm",
        ),
    ],
)
def test_a_hostile_database_of_rpm_is_one_error(data: bytes, why: str) -> None:
    with pytest.raises(InvalidImage, match=f"^/{RPM} is damaged: .*{why}"):
        _installed(file(RPM, data))


def test_sqlite_works_for_a_limited_time_and_returns_no_more_than_the_file_has() -> None:
    tables = [TABLE, *(f"CREATE TABLE t{number} (a)" for number in range(10))]
    # All rows of the table are on one page: it says so of every page.
    data = bytearray(rpm_database(*(rpm_header(f"p{number}", "1", "1") for number in range(2000)), statements=tables))
    page = int.from_bytes(data[16:18])
    interior = [at for at in range(0, len(data), page) if data[at] == 5]
    (root,) = interior
    count = int.from_bytes(data[root + 3 : root + 5])
    cells = [int.from_bytes(data[root + 12 + 2 * number : root + 14 + 2 * number]) for number in range(count)]
    for cell in cells:
        data[root + cell : root + cell + 4] = data[root + cells[0] : root + cells[0] + 4]
    assert len(_installed(file(RPM, bytes(data)))) > 0
    for cell in cells:
        data[root + cell : root + cell + 4] = (root // page + 1).to_bytes(4)
    with pytest.raises(InvalidImage, match="is damaged"):
        _installed(file(RPM, bytes(data)))


@pytest.mark.parametrize(
    "data",
    [
        rpm_database(rpm_header("a", "1", "1")),
        rpm_database(statements=[f"CREATE TABLE t{number} (a)" for number in range(50)]),  # its schema is read first
    ],
)
def test_a_database_of_rpm_has_a_limited_time(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm, "_MAX_SECONDS", 0, raising=False)
    with pytest.raises(InvalidImage, match=f"^/{RPM} takes more than 0 seconds to read$"):
        _installed(file(RPM, data))


def test_large_texts_are_refused() -> None:
    with pytest.raises(InvalidImage, match=r"^/var/lib/dpkg/status has 67108865 bytes, a list of packages at most"):
        _installed(file("var/lib/dpkg/status", b"\n" * ((64 << 20) + 1)))
    assert _installed(file("var/lib/dpkg/status", b"Package: " + b"x" * 1000 + b"\nVersion: 1\n")) == []
    assert _installed(file("var/lib/dpkg/status", b"Package: \xff\x1b\nStatus:\n\n\n:\nVersion\n")) == [
        "deb \udcff\x1b  "
    ]


def test_the_files_of_a_folder_of_dpkg_have_a_limit_together() -> None:
    half = b"Package: a\n" + b"\n" * (32 << 20)
    files = [file(f"var/lib/dpkg/status.d/{name}", half) for name in "ab"]
    with pytest.raises(InvalidImage, match=r"^/var/lib/dpkg/status.d has more than 67108864 bytes of lists"):
        _installed(*files)
    assert _installed(files[0]) == ["deb a  "]


def test_a_file_of_a_folder_of_dpkg_is_read_once() -> None:
    first = "var/lib/dpkg/status.d/a"
    links = hard_link("var/lib/dpkg/status.d/b", first), symlink("var/lib/dpkg/status.d/c", "a")
    assert _installed(file(first, b"Package: a\n"), *links) == ["deb a  "]


def test_only_the_wanted_fields_are_held() -> None:
    text = b"Package: a\n" + b"".join(b"%d: x\n" % number for number in range(1000)) + b" Package: b\n\t\nVersion:1\n"
    assert [*paragraphs(text, (b"Package", b"Version"))] == [{b"Package": b"a"}, {b"Version": b"1"}]


def test_headers_of_rpm_are_read_within_their_bytes() -> None:
    entry = struct.pack(">4I", 1000, 6, 2, 1)
    assert package_in(struct.pack(">II", 1, 3) + entry + b"abc") == Package("rpm", "c", "", "")
    assert package_in(struct.pack(">II", 1, 2) + entry + b"ab") is None
    assert package_in(struct.pack(">II", 1, 3) + struct.pack(">4I", 1000, 4, 0, 1) + b"abc") is None
    assert package_in(struct.pack(">II", 1, 3) + struct.pack(">4I", 1003, 4, 0, 1) + b"abc") is None


def test_of_a_long_word_of_rpm_only_the_beginning_is_read() -> None:
    text = b"n" * (8 << 20)  # many entries of a header may be of these same bytes
    header = struct.pack(">II", 1, len(text)) + struct.pack(">4I", 1000, 6, 0, 1) + text
    tracemalloc.start()
    try:
        assert package_in(header) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    longest = b"n" * 256
    header = struct.pack(">II", 1, 257) + struct.pack(">4I", 1000, 6, 0, 1) + longest + b"\0"
    assert package_in(header) == Package("rpm", longest.decode(), "", "")


def test_packages_differ_by_their_versions() -> None:
    def deb(name: str, version: str, architecture: str = "amd64") -> Package:
        return Package("deb", name, version, architecture)

    old = [deb("a", "1"), deb("b", "1"), deb("gone", "1"), deb("same", "1"), deb("two", "1"), deb("two", "1", "i386")]
    new = [
        deb("a", "2"),
        deb("b", "1", "arm64"),
        deb("new", "1"),
        deb("same", "1"),
        deb("two", "2"),
        Package("rpm", "a", "1", ""),
    ]
    changes = list(package_changes(old, new))
    assert changes == [
        PackageChange("deb", "a", ("1",), ("2",)),
        PackageChange("rpm", "a", (), ("1",)),
        PackageChange("deb", "gone", ("1",), ()),
        PackageChange("deb", "new", (), ("1",)),
        PackageChange("deb", "two", ("1 (amd64)", "1 (i386)"), ("2 (amd64)",)),
    ]
    assert [change.change for change in changes] == ["changed", "added", "removed", "added", "changed"]
