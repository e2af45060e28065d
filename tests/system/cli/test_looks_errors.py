"""Looks at images in which something is wrong, and looks that are not wanted to the end."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Archive, image_config, two_images
from tests.support.changesets import changeset, file
from tests.support.layouts import Layout
from tests.support.looks import document, imgfs, printed, refused
from tests.support.mounts import COMMAND


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep nothing of these images where the user's are kept."""
    monkeypatch.setenv("IMGFS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("words", [["ls"], ["cat"], ["which"], ["diff", "./x.tar"]])
def test_what_is_wrong_with_an_image_is_said_in_one_line(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "x.tar").write_bytes(Archive().data())
    for name, code in (("./no.tar", 4), ("X", 2), ("ftp://a/b", 2)):
        asked = f"{name}:/x" if name == "./no.tar" and words != ["which"] else name
        assert refused(*words, asked, *(["/x"] if words == ["which"] else []), cwd=tmp_path)[0] == code


def test_an_image_that_is_not_in_an_archive_is_one_line_and_how_to_name_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(two_images())
    listed = "@0 (a:1); @1 (b:1, b:2)"
    assert refused("ls", "docker-archive:x.tar:c", cwd=tmp_path) == (4, f"x.tar has no image c; there are {listed}")
    why = f"standard input holds 2 images; choose with docker-archive:-:REF or :@INDEX from {listed}"
    assert refused("ls", "-", stdin=two_images()) == (4, why)
    assert printed("inspect", "docker-archive:-:@1", stdin=two_images())[0].endswith(" docker-archive:-:@1")


def test_a_damaged_layer_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    layers = [b"no tar at all" * 100]
    path = Archive(layers=layers, config=image_config(layers)).write(tmp_path / "x.tar")
    for words in (["ls", path], ["cat", f"{path}:/x"], ["which", path, "x"], ["diff", path, path]):
        assert refused(*words)[0] == 5
    assert len(document("inspect", "--json", path)["layers"]) == 1


def test_an_archive_that_ends_early_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    big = changeset(file("x", os.urandom(100_000)))
    data = Archive(layers=[big], config=image_config([big])).data()
    (tmp_path / "x.tar").write_bytes(data[: data.index(big) + 50_000])
    assert refused("cat", f"{tmp_path}/x.tar:/x")[0] == 5


def test_a_layer_that_is_not_stored_leaves_inspect(tmp_path: Path) -> None:
    layout = Layout()
    foreign = {"urls": ["https://example.org/x"]}
    data = changeset(file("x"))
    stored = layout.blob("layer", data) | foreign
    stored["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    config = layout.blob("config", image_config([data]))
    layout.list(layout.image([data], config=config, stored=[stored]), "1").remove(stored)
    layout.write(str(tmp_path / "layout"))
    done = imgfs("inspect", "-q", f"oci:{tmp_path}/layout")
    assert (done.status, "(not stored)" in done.out) == (0, True)
    status, why = refused("ls", "-q", f"oci:{tmp_path}/layout")
    assert (status, why) == (
        4,
        f"oci:{tmp_path}/layout has no root file system: layer 0 is not stored",
    )


def test_who_reads_half_of_it_ends_it_quietly(tmp_path: Path) -> None:
    data = changeset(*(file(f"{number:0100d}") for number in range(3000)))
    path = Archive(layers=[data]).write(tmp_path / "x.tar")
    for words in (["ls", path], ["ls", "--json", path], ["cat", f"{path}:/{0:0100d}"], ["inspect", path]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run([COMMAND, *map(str, words)], stdout=write, stderr=subprocess.PIPE, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (0 if words[0] == "cat" else 141, b"")


def test_ctrl_c_ends_a_look(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    process = subprocess.Popen([COMMAND, "ls", tmp_path / "fifo"], stderr=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)  # it waits for a writer, however long
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=20)[1], process.returncode) == ("imgfs: interrupted\n", 130)
