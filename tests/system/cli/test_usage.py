"""du, find and waste: sizes, files and hidden files of an image, by the real command."""

import re
from pathlib import Path

import pytest

from tests.support.builders import Archive, image_config
from tests.support.changesets import About, changeset, file, folder, hard_link, opaque, symlink, whiteout
from tests.support.engines import RealEngine
from tests.support.looks import document, imgfs, printed, refused
from tests.support.mounts import Bench
from tests.support.readme import REPOSITORY, blocks, session
from tests.support.real_image import NGINX
from tests.support.terminals import Terminal

HOSTILE = "x\x1b[31m\u202e"
SHOWN = r"x\x1b[31m\u202e"
LAYERS = [
    changeset(
        folder("etc"),
        file("etc/conf", b"c" * 1000),
        file("etc/same", b"s" * 300),
        hard_link("etc/name", "etc/same"),
        folder("old"),
        file("old/key.pem", b"k" * 5000),
        symlink("link", "etc"),
        file(HOSTILE, b"h" * 7),
    ),
    changeset(file("etc/conf", b"d" * 900), file("etc/same", b"s" * 300, About(mode=0o600)), whiteout("old")),
    changeset(folder("var"), file("var/new", b"n" * 20)),
    changeset(folder("var"), opaque("var"), file("var/more", b"m" * 30)),
]
STEPS = ["ADD base /", "RUN rm -r /old", "COPY new /var", "COPY more /var"]


@pytest.fixture(name="image", scope="module")
def archive_with_waste(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image in which each kind of waste occurs."""
    config = image_config(LAYERS, history=[{"created_by": step} for step in STEPS])
    return Archive(LAYERS, config=config).write(tmp_path_factory.mktemp("image") / "image.tar")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep nothing of these images where the user's are kept."""
    monkeypatch.setenv("IMGFS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def test_du_adds_up_what_is_below_each_directory(image: Path) -> None:
    rows = [line.split(maxsplit=1) for line in printed("du", image)]
    assert rows == [["1500", "/etc"], ["30", "/var"], ["1537", "/"]]
    assert printed("du", "-h", "-d", "0", image) == ["      1.5 kB  /"]
    assert printed("du", "-s", image, "/etc", "/var") == ["        1500  /etc", "          30  /var"]
    assert [line.split()[-1] for line in printed("du", "-a", image)] == [
        *("/etc/conf", "/etc/name", "/etc/same", "/etc", "/link", "/var/more", "/var", f"/{SHOWN}", "/"),
    ]
    assert printed("du", f"{image}:/link") == ["        1500  /etc"]
    assert printed("du", image, "/etc/conf") == ["         900  /etc/conf"]
    # What an earlier path includes is not counted again, as in du(1).
    assert printed("du", "-s", image, "/etc/conf", "/etc", "etc/../etc", "/var", "/") == [
        *("         900  /etc/conf", "         600  /etc", "          30  /var", "           7  /"),
    ]
    # In one layer, a file with two names counts once.
    assert printed("du", "--layer", "0", image, "/etc") == ["        1300  /etc"]
    assert refused("du", image, "/no")[0] == 4
    assert refused("du", "-d", "-1", image)[0] == 2


def test_du_says_in_which_layers_files_are(image: Path) -> None:
    assert printed("du", "--layers", image) == [
        "/:",
        "SIZE  FILES  LAYER  CREATED BY",
        " 307      3      0  ADD base /",
        "1200      2      1  RUN rm -r /old",
        "  30      1      3  COPY more /var",
        "1537      6    all  -",
    ]
    tables = printed("du", "--layers", "-d", "1", image)
    assert [line for line in tables if line.endswith(":") or not line] == ["/etc:", "", "/var:", "", "/:"]
    assert printed("du", "--layers", "-a", image, "/var")[0] == "/var/more:"
    assert printed("du", "--layers", "-s", image) == printed("du", "--layers", image)
    assert document("du", "--json", "-s", image, "/etc") == [
        {
            "path": "/etc",
            "type": "directory",
            "size": 1500,
            "files": 3,
            "layers": [{"layer": 0, "size": 300, "files": 1}, {"layer": 1, "size": 1200, "files": 2}],
        }
    ]
    (only,) = document("du", "--json", "-s", "--layer", "3", image)
    assert only["layers"] == [{"layer": 3, "size": 30, "files": 2}]  # with the whiteout


def test_find_lists_what_passes_all_tests(image: Path) -> None:
    assert printed("find", image, "-name", "c*") == ["layer 1            900  /etc/conf"]
    assert printed("find", image, "/etc", "-type", "f", "-size", "+1", "-print") == ["/etc/conf"]
    assert printed("find", "-print", "-size", "-301c", "-type", "f,l", image) == [
        *("/link", f"/{SHOWN}", "/etc/name", "/etc/same", "/var/more"),
    ]
    assert printed("find", image, "-type", "d") == [
        *(f"layer {layer}              -  {path}" for layer, path in (("-", "/"), (0, "/etc/"), (3, "/var/"))),
    ]
    assert printed("find", image, "-name", f"*{HOSTILE[1:]}", "-print") == [f"/{SHOWN}"]
    for words in (["-size", "x"], ["-size", "1x"], ["-type", "z"], ["-type", ""]):
        assert refused("find", image, *words)[0] == 2
    assert refused("find", image, "/no")[0] == 4


def test_find_lists_what_layers_had(image: Path) -> None:
    assert printed("find", image, "--deleted", "-type", "f") == [
        "layer 0           5000  /old/key.pem  (deleted by layer 1)",
        "layer 2             20  /var/new  (deleted by layer 3)",
    ]
    assert printed("find", image, "--all-layers", "-name", "conf") == [
        "layer 0           1000  /etc/conf  (replaced by layer 1)",
        "layer 1            900  /etc/conf",
    ]
    assert printed("find", image, "/old", "--layer", "0", "-print") == ["/old", "/old/key.pem"]
    found = document("find", "--json", image, "--deleted", "-name", "*.pem")
    assert [(one["path"], one["layer"], one["deletedBy"], one["replacedBy"]) for one in found] == [
        ("/old/key.pem", 0, 1, None)
    ]
    assert refused("find", image, "/no", "--all-layers") == (4, f"no layer of {image} has /no")
    assert refused("find", image, "--layer", "9")[0] == 4


def test_find_knows_the_patterns_of_find(tmp_path: Path) -> None:
    layer = changeset(*(file(name, b"") for name in ("a*", "-x", "ab", "\u00e4", "[x", "\\x")))
    path = Archive([layer]).write(tmp_path / "a.tar")
    assert printed("find", path, "-print", "-name", r"a\*") == ["/a*"]
    assert printed("find", path, "-print", "-name", "a[^b]") == ["/a*"]
    assert printed("find", path, "-print", "-name", "?") == ["/\u00e4"]
    assert printed("find", path, "-print", "-name", r"\[?") == ["/[x"]
    assert printed("find", path, "-print", "-name", r"\\?") == ["/\\x"]
    assert printed("find", path, "-print", "-name", "-x") == printed("find", "-name", "-x", "-print", path) == ["/-x"]
    assert printed("find", "-name", "--json", path) == []
    assert refused("find", path, "-name")[0] == 2


def test_waste_says_what_nobody_sees_and_why(image: Path) -> None:
    # The name etc/name needs the bytes of etc/same.
    assert printed("waste", image) == [
        "Wasted      6.0 kB of 7.6 kB (79.7%)",
        "Efficiency  89.6%",
        "",
        "LAYER  WASTED   HIDES  CREATED BY",
        "    0  6.0 kB     0 B  ADD base /",
        "    1     0 B  6.0 kB  RUN rm -r /old",
        "    2    20 B     0 B  COPY new /var",
        "    3     0 B    20 B  COPY more /var",
        "",
        "WASTED  LAYER  WHY                     PATH",
        "5.0 kB      0  deleted by layer 1      /old/key.pem",
        "1.0 kB      0  overwritten by layer 1  /etc/conf",
        "  20 B      2  deleted by layer 3      /var/new",
    ]
    found = document("waste", "--json", image)
    assert (found["size"], found["wasted"]) == (7557, 6020)
    assert [(one["layer"], one["wasted"], one["hides"]) for one in found["layers"]] == [
        *((0, 6000, 0), (1, 0, 6000), (2, 20, 0), (3, 0, 20)),
    ]
    assert found["files"][0] == {"path": "/old/key.pem", "layer": 0, "size": 5000, "by": 1, "how": "deleted"}


def test_waste_counts_efficiency_as_dive_does(image: Path, tmp_path: Path) -> None:
    # conf: 900 of 1900; same: 300 of 600; name, a hard link: 0; key.pem: 5000; /old, of which the whiteout has the size
    # of all in it: 5000; x: 7; new: 20; more: 30.
    least, every = 900 + 300 + 5000 + 5000 + 7 + 20 + 30, 1900 + 600 + 5000 + 5000 + 7 + 20 + 30
    assert document("waste", "--json", image)["efficiency"] == pytest.approx(least / every, abs=1e-6)
    layers = [changeset(file("a", b"1" * 10), file("b", b"2" * 30)), changeset(whiteout("a"))]
    deleted = Archive(layers, config=image_config(layers)).write(tmp_path / "deleted.tar")
    assert document("waste", "--json", deleted)["efficiency"] == 0.75  # a file's whiteout has no size
    layers = [changeset(file("a", b"1"))] * 2
    same = Archive(layers, config=image_config(layers)).write(tmp_path / "same.tar")
    found = document("waste", "--json", same)
    assert (found["efficiency"], [one["how"] for one in found["files"]]) == (0.5, ["repeated"])


def test_waste_above_a_limit_has_an_exit_code_of_its_own(image: Path) -> None:
    for limit, status in (("6020", 0), ("6019", 11), ("1M", 0), ("80%", 0), ("79%", 11), ("0%", 11)):
        done = imgfs("waste", "--fail-above", limit, image)
        assert (done.status, bool(done.err)) == (status, status != 0)
        assert done.out.startswith("Wasted ")
    assert done.err == f"imgfs: {image} wastes 6.0 kB (79.7%), more than 0%\n"
    for limit in ("x", "-1", "5 %", "1e3%"):
        assert refused("waste", f"--fail-above={limit}", image)[0] == 2


def _app(path: Path) -> Path:
    """Write the image of the reference's session."""
    layers = [
        changeset(folder("etc"), file("etc/app.conf", b"threads=2\n"), file("bin", b"b" * 40_000_000)),
        changeset(file("tmp/app.tar", b"a" * 21_000_000)),
        changeset(file("opt/app", b"o" * 20_000_000), whiteout("tmp/app.tar")),
        changeset(folder("etc"), file("etc/app.conf", b"threads=16\n", About(mode=0o600))),
    ]
    steps = [
        {"created_by": "/bin/sh -c #(nop) ADD base.tar / "},
        {"created_by": "/bin/sh -c #(nop) ENV A=b", "empty_layer": True},
        {"created_by": "WORKDIR /", "empty_layer": True},
        {"created_by": "COPY app.tar /tmp # buildkit"},
        {"created_by": "RUN /bin/sh -c tar -xf /tmp/app.tar -C /opt && rm /tmp/app.tar # buildkit"},
        {"created_by": "COPY --chmod=600 app.conf /etc # buildkit"},
        {"created_by": 'CMD ["/opt/app"]', "empty_layer": True},
    ]
    run = {"Env": ["A=b"], "Cmd": ["/opt/app"]}
    config = image_config(layers, history=steps, config=run, created="2020-02-02T02:02:02Z")
    return Archive(layers, config=config).write(path)


def test_the_reference_shows_what_a_terminal_of_80_columns_shows(imgfs: Bench) -> None:
    _app(imgfs.folder / "app.tar")
    (shown,) = (block for block in blocks(REPOSITORY / "docs" / "reference.md") if block.runner == "test_usage.py")
    steps = session(shown.text)
    assert [step.command.split()[1] for step in steps] == ["inspect", "which", "du", "find", "waste"]
    imgfs.command = ("sh", "-c", 'cd "$0"; exec "$@"', str(imgfs.folder), *imgfs.command)
    for step in steps:
        terminal = Terminal(imgfs, *step.command.split()[1:], "--progress", "none", columns=80)
        assert terminal.end() == 0
        assert _undated(terminal.seen.replace("\r", "")) == _undated(step.output)


def _undated(text: str) -> str:
    return re.sub(r"[0-9]+ years ago", "N years ago", text)


def test_sizes_leave_room_for_paths_on_a_narrow_terminal(imgfs: Bench, image: Path) -> None:
    imgfs.environment |= {"NO_COLOR": "1"}
    lines = {
        ("du", "-s", image): "  1.5 kB  /",
        ("find", "-name", "conf", image): "layer 1      900 B  /etc/conf",
        ("diff", f"{image}:/etc/same", f"{image}:/etc/conf"): (
            "C    300 B    900 B  /etc/conf  (content, mode 0600 → 0644)"
        ),
    }
    for words, line in lines.items():
        terminal = Terminal(imgfs, *words, columns=40)
        assert terminal.end() == 0
        assert terminal.seen.splitlines()[0] == line


def test_tables_fit_a_terminal(imgfs: Bench) -> None:
    layers = [changeset(file("d" * 90, b"1" * 100)), changeset(whiteout("d" * 90))]
    config = image_config(layers, history=[{"created_by": "RUN " + "x" * 90}] * 2)
    image = Archive(layers, config=config).write(imgfs.folder / "x.tar")
    commands: tuple[list[str | Path], ...] = (["waste", image], ["du", "--layers", "--layer", "0", image])
    for words in commands:
        for columns in (120, 80, 60):
            terminal = Terminal(imgfs, *words, columns=columns)
            assert terminal.end() == 0
            assert max(map(len, terminal.seen.splitlines())) <= columns


def test_an_image_of_an_engine(docker_engine: RealEngine) -> None:
    on = ("-H", docker_engine.host, "-q")
    (top,) = document("du", "--json", "-s", *on, NGINX)
    links = sum(one["size"] for one in document("find", "--json", *on, NGINX, "-type", "l"))  # the engine counts these
    assert top["size"] == docker_engine.inspect(NGINX)["Size"] - 9 - links  # /again is there twice
    found = document("waste", "--json", *on, NGINX)
    assert [(one["path"], one["size"], one["how"]) for one in found["files"]] == [("/again", 9, "repeated")]
    assert printed("find", *on, NGINX, "-name", "noise", "-print") == ["/noise"]
