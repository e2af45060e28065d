"""which: the layers that concern a path, told by the real command."""

import json
from pathlib import Path

import pytest

from tests.support.builders import Archive, image_config, sha256
from tests.support.changesets import About, changeset, file, folder, whiteout
from tests.support.hostile_image import UPPER
from tests.support.looks import document, imgfs, printed, refused
from tests.support.mounts import Bench, Finished
from tests.support.terminals import Terminal

pytestmark = pytest.mark.usefixtures("own_cache")


def test_which_says_the_layers_and_what_they_did(image: Path) -> None:
    assert printed("which", image, "etc/motd") == [
        "/etc/motd",
        "  layer 0 of 2  added              4 B  ADD base /",
        "  layer 1 of 2  changed (content)  4 B  RUN rm /etc/gone",
    ]
    assert printed("which", image, "/config/passwd")[:1] == ["/etc/passwd"]
    assert len(printed("which", f"{image}:/etc/passwd")) == 2
    # The name is the upper layer's, though it is a link to a file of the lower one.
    assert printed("which", image, "/etc/lower")[1:] == ["  layer 1 of 2  added  0 B  RUN rm /etc/gone"]


def test_which_says_what_a_layer_changed(tmp_path: Path) -> None:
    layers = [
        changeset(file("x", b"1", About(mtime_ns=1))),
        changeset(file("x", b"1", About(mode=0o600, uid=7, mtime_ns=1))),
        changeset(file("x", b"1", About(mode=0o600, uid=7, mtime_ns=2))),
        changeset(folder("x")),
    ]
    image = Archive(layers=layers, config=image_config(layers)).write(tmp_path / "image.tar")
    found = document("which", "--json", image, "/x")
    assert [one["what"] for one in found["history"]] == [[], ["mode", "owner"], ["time"], ["type"]]
    assert found["deleted"] is False


def test_which_tells_the_history_of_what_is_gone(image: Path) -> None:
    for path in ("/etc/gone", "/config/gone"):
        done = imgfs("which", image, path)
        shown = f"imgfs cat --layer 0 {image}:/etc/gone"
        assert done == Finished(
            4,
            "/etc/gone\n  layer 0 of 2  added    1 B  ADD base /\n  layer 1 of 2  removed    -  RUN rm /etc/gone\n",
            f"imgfs: {image} has no /etc/gone: layer 1 removed it; {shown} shows it\n",
        )
        assert imgfs(*shown.split()[1:]).status == 0
    done = imgfs("which", "--json", image, "/etc/gone")
    found = json.loads(done.out)
    assert (done.status, found["path"], found["deleted"], found["layer"], found["type"]) == (
        *(4, "/etc/gone", True, None, None),
    )
    assert [(one["layer"], one["change"], one["size"]) for one in found["history"]] == [
        (0, "added", 1),
        (1, "removed", None),
    ]
    assert refused("which", image, "/no/x") == (4, f"{image} has no /no/x: No such file or directory")


def test_which_names_no_layer_for_a_directory_that_none_lists(tmp_path: Path) -> None:
    layers = [
        changeset(file("usr/bin/a"), folder("gone")),
        changeset(whiteout("gone"), file("usr/lib/b")),
        changeset(file("gone/c")),
    ]
    image = Archive(layers=layers, config=image_config(layers)).write(tmp_path / "image.tar")
    for path, deeds in (("/usr", []), ("/gone", ["added", "removed"]), ("/", [])):
        assert printed("which", image, path) == [path, "  implicit directory (not listed by any layer)"]
        found = document("which", "--json", image, path)
        assert (found["layer"], found["diffId"], found["createdBy"]) == (None, None, None)
        assert [one["change"] for one in found["history"]] == deeds


def test_which_for_programs(image: Path) -> None:
    found = document("which", "--json", image, "/etc/motd")
    assert (found["path"], found["type"], found["size"]) == ("/etc/motd", "file", 4)
    assert (found["layer"], found["diffId"], found["createdBy"]) == (1, sha256(UPPER), "RUN rm /etc/gone")
    assert [(one["layer"], one["change"], one["size"]) for one in found["history"]] == [
        (0, "added", 4),
        (1, "changed", 4),
    ]


def test_which_fits_a_narrow_terminal(imgfs: Bench) -> None:
    layers = [changeset(file("x", b"1")), changeset(file("x", b"12", About(mode=0o600, uid=7)))]
    steps = [{"created_by": "ADD x /"}, {"created_by": "RUN " + "long " * 20}]
    image = Archive(layers=layers, config=image_config(layers, history=steps)).write(imgfs.folder / "image.tar")
    imgfs.environment |= {"NO_COLOR": "1"}
    terminal = Terminal(imgfs, "which", image, "/x", columns=40)
    assert terminal.end() == 0
    assert terminal.seen.splitlines() == [
        "/x",
        "  layer 0 of 2  added    1 B",
        "    ADD x /",
        "  layer 1 of 2  changed  2 B",
        "    content, mode, owner",
        "    RUN long long long long long long l…",
    ]
