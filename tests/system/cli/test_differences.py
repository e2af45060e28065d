"""imgfs diff by the real command: files, lines, directories, configuration, packages, layers."""

from pathlib import Path

import pytest

from tests.support.builders import Archive, image_config
from tests.support.changesets import About, changeset, device, file, folder, symlink, whiteout
from tests.support.looks import document, imgfs, printed, refused
from tests.support.mounts import Bench, Finished
from tests.support.package_databases import dpkg_status, rpm_database, rpm_header
from tests.support.readme import REPOSITORY, blocks, session
from tests.support.terminals import Terminal

pytestmark = pytest.mark.usefixtures("own_cache")

STATUS, RPM = "var/lib/dpkg/status", "var/lib/rpm/rpmdb.sqlite"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
BASE = changeset(
    folder("etc"), file("etc/app", b"a\nb\n"), file("etc/gone", b"x\n"), file("etc/mode", b"m"),
    symlink("etc/link", "a"), device("etc/null", "c", 1, 3), file("etc/was", b"w"), file("etc/bin", b"\0"),
    file(STATUS, dpkg_status(("curl", "7"), ("nginx", "1.26"))), file(RPM, rpm_database(rpm_header("bash", "5", "1"))),
)  # fmt: skip
UPPER = changeset(
    folder("etc"), file("etc/app", b"a\n\x1b[31mB\n"), whiteout("etc/gone"), symlink("etc/link", "b\x1b"),
    file("etc/mode", b"m", About(mode=0o600, uid=33, gid=50, xattrs={b"user.a": b"1"})),
    device("etc/null", "c", 1, 5), symlink("etc/was", "w"), file("etc/bin", b"\1"), file("opt/x\x1b", b"new"),
    file(STATUS, dpkg_status(("nginx", "1.27"), ("new", "1"))), file(RPM, rpm_database(rpm_header("bash", "6", "1"))),
)  # fmt: skip
STEPS = [{"created_by": "ADD base /"}, {"created_by": "RUN /bin/sh -c change things # buildkit"}]
FILES = [
    "C            4            9  /etc/app  (content)",
    "C            1            1  /etc/bin  (content)",
    "D            2            -  /etc/gone",
    r"C            1            2  /etc/link  (target a → b\x1b)",
    "C            1            1  /etc/mode  (mode 0644 → 0600, owner 0:0 → 33:50, xattrs)",
    "C            -            -  /etc/null  (device 1:3 → 1:5)",
    "C            1            1  /etc/was  (type file → symlink)",
    "A            -            -  /opt/",
    r"A            -            3  /opt/x\x1b",
]


@pytest.fixture(name="images", scope="module")
def two_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("images")
    old = image_config(
        [BASE], history=STEPS[:1],
        config={"Env": ["A=b", "GONE=1", f"PATH={PATH}"], "Cmd": ["x"], "User": "www", "Labels": {"x": "y"}},
    )  # fmt: skip
    run = {
        "Env": ["A=c", f"PATH={PATH}:/opt"], "Cmd": ["x", "-y"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}},
        "Labels": {"x": "y\x1b"}, "WorkingDir": "/w", "Healthcheck": {"Test": ["CMD", "x"], "Retries": 3},
        "Entrypoint": ["/e"], "StopSignal": "SIGQUIT",
    }  # fmt: skip
    new = image_config([BASE, UPPER], history=STEPS, config=run)
    return (
        Archive([BASE], config=old).write(folder / "old.tar"),
        Archive([BASE, UPPER], config=new).write(folder / "new.tar"),
    )


def test_files_are_told_with_what_they_were_and_are(images: tuple[Path, Path]) -> None:
    old, new = images
    lines = printed("diff", f"{old}:/", f"{new}:/")
    assert [line for line in lines[:-2] if "/var" not in line] == FILES
    assert lines[-2:] == ["", "2 added, 1 deleted, 8 changed, +4 B"]
    assert printed("diff", new, new) == []
    times = printed("diff", "--times", f"{old}:/etc/mode", f"{new}:/etc/mode")
    assert times == [FILES[4], "", "1 changed, 0 B"]


def test_the_configuration_of_whole_images_is_compared(images: tuple[Path, Path]) -> None:
    old, new = images
    assert printed("diff", *images, "--config") == [
        'A Entrypoint  ["/e"]',
        'C Command  ["x"] → ["x", "-y"]',
        'A Healthcheck  {"test": ["CMD", "x"], "retries": 3}',
        "A Directory  /w",
        "D User  www",
        "A Stop signal  SIGQUIT",
        "C Environment  A  b → c",
        "D Environment  GONE  1",
        f"C Environment  PATH  {PATH} → {PATH}:/opt",
        "A Port  80/tcp",
        "A Volume  /v",
        r"C Label  x  y → y\x1b",
    ]
    assert printed("diff", *images)[:12] == printed("diff", *images, "--config")
    assert printed("diff", *images, "--stat")[:13] == [*printed("diff", *images, "--config"), ""]
    assert printed("diff", f"{old}:/etc", f"{new}:/etc")[0] == FILES[0]
    assert printed("diff", f"{old}:/etc", f"{new}:/etc", "--config")[0].startswith("A Entrypoint")


def test_lines_of_text_that_differ(images: tuple[Path, Path]) -> None:
    old, new = images
    done = imgfs("diff", "-u", f"{old}:/etc", f"{new}:/etc")
    assert done.out.splitlines()[:12] == [
        *(FILES[0], "--- a/etc/app", "+++ b/etc/app", "@@ -1,2 +1,2 @@", " a", "-b", "+\x1b[31mB"),
        *(FILES[1], "Binary files a/etc/bin and b/etc/bin differ"),
        *(FILES[2], "--- a/etc/gone", "+++ /dev/null"),
    ]
    added = imgfs("diff", "-u", "--layer", "1", f"{new}:/opt").out
    assert added.splitlines()[-6:] == [
        *('+++ "b/opt/x\\033"', "@@ -0,0 +1 @@", "+new", "\\ No newline at end of file", "", "2 added, +3 B"),
    ]


def test_a_terminal_gets_lines_without_control_characters(imgfs: Bench) -> None:
    layers = [changeset(file("x", b"1\t\x1b[31m\xff\n"))]
    image = Archive(layers).write(imgfs.folder / "x.tar")
    imgfs.environment |= {"NO_COLOR": "1"}
    terminal = Terminal(imgfs, "diff", "-u", "--layer", "0", image, columns=40)
    assert terminal.end() == 0
    assert terminal.seen.replace("\r", "").replace("\t", " " * 6).splitlines() == [
        *("layer 0 of 1", "", "A        -      9 B  /x", "--- /dev/null", "+++ b/x", "@@ -0,0 +1 @@"),
        *(r"+1      \x1b[31m\xff", "", "1 added, +9 B"),
    ]


def test_directories_are_counted(images: tuple[Path, Path]) -> None:
    old, new = images
    assert printed("diff", "--stat", f"{old}:/", f"{new}:/") == [
        "ADDED  DELETED  CHANGED  SIZE  DIRECTORY",
        "    1                     0 B  /",
        "             1        6  +2 B  /etc/",
        "    1                    +3 B  /opt/",
        "                      2  -1 B  /var/lib/",
        "",
        "2 added, 1 deleted, 8 changed, +4 B",
    ]
    assert [line.split()[-1] for line in printed("diff", "--stat", "-d", "3", f"{old}:/var", f"{new}:/var")[1:-2]] == [
        *("/var/lib/dpkg/", "/var/lib/rpm/"),
    ]
    found = document("diff", "--stat", "--json", f"{old}:/etc", f"{new}:/etc")
    assert (found["files"], found["directories"]) == (
        None,
        [{"path": "/etc", "added": 0, "removed": 1, "changed": 6, "size": 2}],
    )


def test_packages_are_compared(images: tuple[Path, Path], tmp_path: Path) -> None:
    assert printed("diff", "--packages", *images) == [
        "   PACKAGE  BEFORE  AFTER",
        "C  bash     5-1     6-1",
        "D  curl     7       -",
        "A  new      -       1",
        "C  nginx    1.26    1.27",
    ]
    assert printed("diff", "--packages", "--layer", "1", images[1])[2:] == printed("diff", "--packages", *images)
    plain = Archive([changeset(file("x"))]).write(tmp_path / "plain.tar")
    done = imgfs("diff", "--packages", plain, plain)
    assert done == Finished(0, "", "imgfs: warning: there are no packages of dpkg, apk or rpm to compare\n")
    broken = Archive([changeset(file(RPM, b"x" * 5000))]).write(tmp_path / "broken.tar")
    assert refused("diff", "--packages", plain, broken) == (5, f"/{RPM} is damaged: file is not a database")


def test_a_layer_is_compared_with_those_below_it(images: tuple[Path, Path]) -> None:
    lines = printed("diff", "--layer", "1", images[1])
    assert lines[:2] == ["layer 1 of 2  RUN change things", ""]
    assert [line for line in lines[2:-2] if "/var" not in line] == FILES
    base = printed("diff", "--layer", "0", images[1])
    assert (base[0], {line[0] for line in base[2:-2]}) == ("layer 0 of 2  ADD base /", {"A"})
    assert printed("diff", "--layer", "0", f"{images[1]}:/etc/app")[2:] == [
        *("A            -            4  /etc/app", "", "1 added, +4 B"),
    ]
    assert refused("diff", "--layer", "2", images[1])[0] == 4


def test_the_exit_code_tells_whether_there_are_differences(images: tuple[Path, Path]) -> None:
    old, new = images
    for words, status in (
        ([old, new], 1), ([old, old], 0), ([new, "--layer", "1"], 1), ([old, new, "--config"], 1),
        ([old, old, "--config"], 0), ([old, new, "--packages"], 1), ([old, new, "--stat"], 1),
        ([old, new, "--json"], 1), ([old, old, "--json"], 0), ([f"{old}:/usr/..", f"{old}:/"], 4),
    ):  # fmt: skip
        assert imgfs("diff", "--exit-code", *words).status == status, words
    assert imgfs("diff", old, new).status == 0


def test_json_has_a_key_for_each_part(images: tuple[Path, Path]) -> None:
    old, new = images
    whole = document("diff", "--json", *images)
    assert [*whole] == ["config", "packages", "files", "directories", "summary"]
    assert (whole["packages"], whole["directories"]) == (None, None)
    assert whole["summary"] == {"added": 2, "removed": 1, "changed": 8, "size": 4}
    assert whole["config"][1] == {
        "property": "cmd", "name": None, "change": "changed", "before": ["x"], "after": ["x", "-y"],
    }  # fmt: skip
    assert whole["config"][6] == {
        "property": "env", "name": "A", "change": "changed", "before": "b", "after": "c",
    }  # fmt: skip
    parts = document("diff", "--json", "--packages", *images)
    assert (parts["config"], parts["files"], parts["summary"]) == (None, None, None)
    assert parts["packages"][0] == {
        "type": "rpm", "name": "bash", "change": "changed", "before": ["5-1"], "after": ["6-1"],
    }  # fmt: skip
    lines = document("diff", "--json", "-u", f"{old}:/etc", f"{new}:/etc")
    assert lines["config"] is None
    assert [one["diff"] for one in lines["files"][:2]] == [
        "--- a/etc/app\n+++ b/etc/app\n@@ -1,2 +1,2 @@\n a\n-b\n+\x1b[31mB\n",
        "Binary files a/etc/bin and b/etc/bin differ\n",
    ]
    assert document("diff", "--json", old, old) == {
        "config": [], "packages": None, "files": [], "directories": None,
        "summary": {"added": 0, "removed": 0, "changed": 0, "size": 0},
    }  # fmt: skip
    layer = document("diff", "--json", "--layer", "0", f"{new}:/etc/app")
    assert (layer["config"], [one["path"] for one in layer["files"]]) == (None, ["/etc/app"])


def test_what_cannot_be_compared_is_a_usage_error(images: tuple[Path, Path]) -> None:
    old, new = images
    for words in (
        [old], [old, new, "--layer", "0"], [old, "--layer", "0", "--config"], [old, new, "-u", "--stat"],
        [old, new, "-d", "1"], [old, new, old], [old, "--layer", "-1"],
    ):  # fmt: skip
        assert refused("diff", *words)[0] == 2, words


def _app(folder: Path) -> None:
    """Write the images of the reference's session."""
    old = changeset(
        file("etc/app.conf", b"debug=no\nthreads=2\n"), file("opt/app", b"\0" * 40_000), file("opt/old", b"old\n"),
        file(STATUS, dpkg_status(("curl", "7.88.1"), ("openssl", "3.0.15"))),
    )  # fmt: skip
    new = changeset(
        file("etc/app.conf", b"debug=no\nthreads=16\n", About(mode=0o600)), file("opt/app", b"\0" * 41_000),
        whiteout("opt/old"), file(STATUS, dpkg_status(("libcurl", "7.88.1"), ("openssl", "3.0.16"))),
    )  # fmt: skip
    for name, layers, version in (("old", [old], "1.0"), ("new", [old, new], "1.1")):
        run = {"Env": [f"VERSION={version}"], "Cmd": ["/opt/app"] + ["-v"] * (name == "new")}
        Archive(layers, config=image_config(layers, config=run)).write(folder / f"{name}.tar")


def test_the_reference_shows_what_a_terminal_of_80_columns_shows(imgfs: Bench) -> None:
    _app(imgfs.folder)
    runner, page = "test_differences.py", REPOSITORY / "docs" / "reference.md"
    (shown,) = (block for block in blocks(page) if block.runner == runner)
    imgfs.command = ("sh", "-c", 'cd "$0"; exec "$@"', str(imgfs.folder), *imgfs.command)
    for step in session(shown.text):
        terminal = Terminal(imgfs, *step.command.split()[1:], "--progress", "none", columns=80)
        assert terminal.end() == 0
        assert terminal.seen.replace("\r", "") == step.output
