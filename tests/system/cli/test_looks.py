"""inspect, ls, cat and diff: an image looked at by the real command, without a mount."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from fusefs.cli.opening import split_path
from tests.support.builders import CREATED, LAYERS, Archive, image_config, sha256
from tests.support.changesets import changeset, file
from tests.support.engines import RealEngine
from tests.support.hostile_image import BASE, CONFIG, HOSTILE, RUN, UPPER
from tests.support.layouts import Layout
from tests.support.looks import document, imgfs, printed, refused
from tests.support.mounts import COMMAND, Bench, Finished
from tests.support.real_image import NGINX, OTHER
from tests.support.terminals import Terminal

pytestmark = pytest.mark.usefixtures("own_cache")


def test_inspect_says_what_the_image_says(image: Path) -> None:
    lines = printed("inspect", image)
    facts = dict(line.split(maxsplit=1) for line in lines[: lines.index("")] if not line.startswith(" "))
    assert facts["Name"] == str(image)
    assert facts["ID"] == sha256(CONFIG)
    assert (facts["Platform"], facts["Created"], facts["Author"]) == ("linux/amd64", CREATED, "me")
    assert facts["Entrypoint"] == '["/e", "a b"]'
    assert facts["Command"] == '["é"]'
    assert facts["Environment"] == "A=b"
    assert facts["Ports"] == "80/tcp"
    assert facts["Shell"] == '["/bin/ash", "-c"]'
    assert facts["Healthcheck"] == '["CMD", "x"], interval 30 s, 3 retries'
    assert facts["Size"].endswith(" in 2 layers")
    header, *rows = lines[lines.index("") + 1 :]
    assert re.split(r"  +", header) == ["#", "SIZE", "STORED", "SHARE", "DIFF ID", "CREATED BY"]
    assert [row.split()[0] for row in rows] == ["0", "-", "1"]
    assert sha256(BASE) in rows[0]
    assert rows[0].endswith("  ADD base /")
    assert "#####" in rows[0]
    assert " empty " in rows[1]
    assert rows[2].endswith("  RUN rm /etc/gone")


def test_inspect_has_stable_keys(image: Path) -> None:
    found = document("inspect", "--json", image)
    assert list(found) == [
        *("name", "tag", "id", "digest", "mediaType", "platform", "created", "author", "size", "user", "workingDir"),
        *("entrypoint", "cmd", "env", "exposedPorts", "volumes", "labels", "stopSignal", "layers", "history"),
        *("generated", "repoDigests", "shell", "onBuild", "healthcheck", "referrers"),
        "referrersComplete",
    ]
    assert (found["id"], found["platform"], found["tag"]) == (sha256(CONFIG), "linux/amd64", "1")
    assert (found["env"], found["labels"]) == (RUN["Env"], {HOSTILE: HOSTILE})
    assert [layer["diffId"] for layer in found["layers"]] == [sha256(BASE), sha256(UPPER)]
    assert [layer["createdBy"] for layer in found["layers"]] == ["ADD base /", "RUN rm /etc/gone"]
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1, abs=0.001)
    assert found["size"] == sum(layer["size"] for layer in found["layers"])
    assert {layer["compression"] for layer in found["layers"]} <= {None, "gzip"}
    assert list(found["layers"][0]) == [
        *("number", "size", "share", "digest", "diffId", "mediaType", "compression", "stored", "createdBy", "plainSize")
    ]
    assert [(step["emptyLayer"], step["layer"]) for step in found["history"]] == [(False, 0), (True, None), (False, 1)]
    assert found["history"][0] == {
        "created": CREATED,
        "createdBy": "ADD base /",
        "author": "",
        "comment": "",
        "emptyLayer": False,
        "layer": 0,
    }


def test_inspect_says_the_same_as_the_documents_that_skopeo_would_show(image: Path, tmp_path: Path) -> None:
    layout = Layout()
    layout.list(layout.image([BASE, UPPER], "zstd"), "1").write(str(tmp_path / "layout"))
    found = document("inspect", "--json", f"oci:{tmp_path}/layout:1")
    assert found["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert [layer["compression"] for layer in found["layers"]] == ["zstd", "zstd"]
    assert document("inspect", "--json", f"docker-archive:{image}:@0")["id"] == sha256(CONFIG)


def test_an_image_without_layers_or_history_is_inspected(tmp_path: Path) -> None:
    path = Archive(layers=[]).write(tmp_path / "x.tar")
    assert "Size         0 B in 0 layers" in printed("inspect", path)
    assert document("inspect", "--json", path)["layers"] == []
    path = Archive().write(tmp_path / "x.tar")
    assert [line.split()[-1] for line in printed("inspect", path)[-4:]] == ["-"] * 4
    assert {layer["createdBy"] for layer in document("inspect", "--json", path)["layers"]} == {None}


def test_a_terminal_gets_colours_and_lines_that_fit(imgfs: Bench) -> None:
    image = Archive(layers=[BASE, UPPER], config=CONFIG).write(imgfs.folder / "x.tar")
    imgfs.environment |= {"TERM": "xterm"}
    shown = []
    for colour in ({}, {"NO_COLOR": "1"}):
        imgfs.environment |= colour
        terminal = Terminal(imgfs, "inspect", image)
        assert terminal.end() == 0
        shown.append(terminal.seen)
    assert "\033[1mName" in shown[0]
    assert "\033[32m█" in shown[0]
    assert re.sub(r"\033\[[0-9;]*m", "", shown[0]) == shown[1]
    table = shown[1].split("\r\n\r\n")[1].splitlines()
    assert max(map(len, table)) <= 120
    assert sha256(BASE)[7:19] in table[1]
    assert sha256(BASE)[7:20] not in table[1]
    assert shown[1].replace("\r\n", "").isprintable()


STEPS = (
    "/bin/sh -c #(nop) ADD file:" + "5" * 64 + " in / ",
    "/bin/sh -c #(nop)  ENV A=b",
    "ENV B=c # buildkit",
    "RUN |1 V=1 /bin/sh -c apt-get  update # buildkit",
    'CMD ["x"]',
)


@pytest.mark.parametrize("columns", [120, 80, 40])
def test_inspect_fits_a_terminal(imgfs: Bench, columns: int) -> None:
    history = [{"created_by": step, "empty_layer": "ENV" in step or "CMD" in step} for step in STEPS]
    run = {"Env": ["PATH=" + "/usr/local/bin:" * 6], "Labels": {"x\x1b": "\u202e" * 300}}
    config = image_config([BASE, UPPER], history=history, config=run, created="2020-01-01T00:00:00Z")
    image = Archive(layers=[BASE, UPPER], config=config).write(imgfs.folder / "x.tar")
    terminal = Terminal(imgfs, "inspect", image, columns=columns)
    assert terminal.end() == 0
    lines = terminal.seen.splitlines()
    assert max(map(len, lines)) <= columns
    assert f"ID           {sha256(config)[7:19]}" in lines
    assert re.search(r"Created      [0-9]+ years ago", terminal.seen)
    assert "3 steps: ENV, CMD" not in terminal.seen  # a layer lies between
    assert [line.split(maxsplit=2)[2] for line in lines if " 2 steps: " in line or "CMD" in line] == [
        *(["2 steps: ENV"] if columns < 100 else ["-             2 steps: ENV"]),
        *(['CMD ["x"]'] if columns < 100 else ['-             CMD ["x"]']),
    ]
    assert "RUN apt-get update" in terminal.seen
    assert ("█" in terminal.seen) is (columns >= 60)
    assert not re.search(r"nop|buildkit|\|1|MEDIA", terminal.seen)
    whole = Terminal(imgfs, "inspect", "--no-trunc", image, columns=columns)
    assert whole.end() == 0
    assert sha256(config) in whole.seen
    assert f"ADD file:{'5' * 64} in /" in whole.seen


def test_ls_lists_names_as_ls_does(image: Path) -> None:
    shown = ["a", "absolute", "config", "etc", "mine", "null", "odd", "pipe", r"\xff\x1b[31m"]
    assert printed("ls", image) == printed("ls", f"{image}:/") == shown
    assert printed("ls", "-A", image) == [".dir", ".hidden", *shown]
    assert printed("ls", "-a", image) == [".", "..", ".dir", ".hidden", *shown]
    assert printed("ls", f"{image}:/etc") == ["b", "group", "lower", "motd", "passwd"]
    assert printed("ls", f"{image}:/config/") == printed("ls", f"{image}:/config") == printed("ls", f"{image}:/etc")
    assert printed("ls", f"{image}:/etc/motd") == ["/etc/motd"]
    assert printed("ls", "-d", f"{image}:/etc") == ["/etc"]


def test_ls_and_cat_take_an_image_and_paths(image: Path) -> None:
    assert printed("ls", image, "/etc", "mine") == ["/etc:", "b", "group", "lower", "motd", "passwd", "/mine"]
    assert printed("cat", image, "/etc/motd", "--layer", "1", "etc/motd") == ["new", "new"]
    assert imgfs("cat", image, "/etc/motd", "/no").out == ""
    shown = f"{image} /etc/motd /etc/passwd"
    why = f"give IMAGE:/PATH or IMAGE PATH…, not both: {shown}"
    assert refused("cat", f"{image}:/etc/motd", "/etc/passwd") == (2, why)


def test_ls_sorts(image: Path) -> None:
    by_size = ["passwd", "group", "b", "motd", "lower"]
    assert printed("ls", "-1S", image, "/etc") == by_size
    assert printed("ls", "-Sr", image, "/etc") == by_size[::-1]
    assert printed("ls", "-t", image)[0] == "odd"
    assert printed("ls", "-tr", image)[-1] == "odd"
    assert [os.path.basename(one["path"]) for one in document("ls", "--json", "-S", image, "/etc")] == by_size


def test_ls_l_has_the_columns_of_ls(image: Path) -> None:
    rows = {row[-1]: row[:-1] for row in (line.split(maxsplit=7) for line in printed("ls", "-lA", image))}
    assert rows["mine"] == ["-rw-r-----", "2", "www", "staff", "1", "2017-07-14", "02:40"]
    assert rows["absolute -> /etc/motd"][0] == "lrwxrwxrwx"
    assert rows["etc"][0] == "drwxr-xr-x"
    assert rows["a"][:5] == ["-rw-r--r--", "2", "root", "root", "6"]
    (null,) = (line for line in printed("ls", "-l", image) if line.endswith(" null"))
    assert re.match(r"crw-rw-rw-  1  root +root +1, 3  1970-01-01 00:00 +null$", null)
    (odd,) = (line for line in printed("ls", "-l", image) if line.endswith(" odd"))
    assert re.match(r"-rw-r--r--  1  \\x1b\[31m +4000000000 +0  10{18}  odd$", odd)
    assert printed("ls", "-ln", f"{image}:/mine") == ["-rw-r-----  2  33  50  1  2017-07-14 02:40  /mine"]
    assert printed("ls", "-l", f"{image}:/config") == ["lrwxrwxrwx  1  root  root  3  1970-01-01 00:00  /config -> etc"]
    assert " 1 B " in printed("ls", "-lh", f"{image}:/mine")[0]


def test_ls_goes_into_directories(image: Path) -> None:
    assert printed("ls", "-R", f"{image}:/.dir") == ["/.dir:", "in"]
    listed = printed("ls", "-RA", image)
    assert [line for line in listed if line.endswith(":")] == ["/:", "/.dir:", "/etc:"]
    assert [line for line in printed("ls", "-R", image) if line.endswith(":")] == ["/:", "/etc:"]


def test_ls_shows_one_layer_with_its_whiteouts(image: Path) -> None:
    assert printed("ls", "-A", "--layer", "1", f"{image}:/etc") == [".wh.gone", "motd"]
    assert refused("ls", "--layer", "2", image) == (4, f"{image} has 2 layers, numbered from 0; there is no layer 2")
    assert refused("ls", "--layer", "-1", image)[0] == 2


def test_ls_for_programs(image: Path) -> None:
    (mine,) = document("ls", "--json", f"{image}:/mine")
    assert mine == {
        "path": "/mine",
        "type": "file",
        "mode": "0640",
        "nlink": 2,
        "uid": 33,
        "gid": 50,
        "size": 1,
        "mtime": "2017-07-14T02:40:00Z",
    }
    found = {os.fsencode(one["path"]): one for one in document("ls", "--json", "-A", image)}
    assert found[b"/\xff\x1b[31m"]["size"] == len(b"odd\x1b[31m\xff\x07\n")
    assert found[b"/absolute"]["target"] == "/etc/motd"
    assert found[b"/null"]["device"] == [1, 3]
    assert (found[b"/pipe"]["type"], found[b"/odd"]["mtime"]) == ("fifo", None)
    assert "/etc/motd" in [one["path"] for one in document("ls", "--json", "-R", image)]


def test_cat_gives_the_bytes_as_they_are(image: Path) -> None:
    for path, data in (("/etc/motd", b"new\n"), ("/absolute", b"new\n"), ("/config/lower", b"m"), ("/odd", b"")):
        assert imgfs("cat", f"{image}:{path}") == Finished(0, data.decode(), "")
    name = os.fsencode(f"{image}:/") + b"\xff\x1b[31m"
    done = subprocess.run([COMMAND, "cat", name], capture_output=True, check=True)
    assert done.stdout == b"odd\x1b[31m\xff\x07\n"
    assert imgfs("cat", "--layer", "0", f"{image}:/etc/motd").out == "old\n"


def test_a_terminal_gets_no_control_character_of_a_file(imgfs: Bench) -> None:
    text = "e\t\x1b[31mred\x07\x9b\x7f\u202e\n".encode() + b"\xff\n"
    image = Archive(layers=[changeset(file("x", text))]).write(imgfs.folder / "x.tar")
    terminal = Terminal(imgfs, "cat", f"{image}:/x")
    assert terminal.end() == 0
    assert re.sub(r" {2,}|\t", "<tab>", terminal.seen) == "e<tab>" + r"\x1b[31mred\x07\x9b\x7f\u202e" + "\r\n\\xff\r\n"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc", "{image}: /etc is a directory, not a file"),
        ("/null", "{image}: /null is a character device, not a file"),
        ("/no", "{image} has no /no: No such file or directory"),
        ("/etc/motd/x", "{image} has no /etc/motd/x: Not a directory"),
        ("/\x1b[31m", r"{image} has no /\x1b[31m: No such file or directory"),
    ],
)
def test_cat_says_why_there_is_nothing(image: Path, path: str, why: str) -> None:
    assert refused("cat", f"{image}:{path}") == (4, why.format(image=image))


def test_a_path_is_asked_for_where_there_has_to_be_one(image: Path) -> None:
    assert refused("cat", image) == (2, f"PATH is missing; use imgfs cat {image}:/PATH")
    assert refused("which", image) == (2, f"PATH is missing; use imgfs which {image} PATH")


def test_an_image_may_come_through_a_pipe(image: Path) -> None:
    assert printed("cat", "-:/etc/motd", stdin=image.read_bytes()) == ["new"]


def test_diff_lists_what_was_added_deleted_and_changed(image: Path, tmp_path: Path) -> None:
    other = Archive(layers=[BASE, changeset(file("etc/motd", b"newer\n"), file("opt/x\x1b", b"12"))])
    other.write(tmp_path / "other.tar")
    whole = f"{image}:/", f"{tmp_path}/other.tar:/"  # of whole images, the configuration is compared, too
    *rows, empty, summary = [line.split(maxsplit=3) for line in printed("diff", *whole)]
    assert (empty, summary) == ([], ["3", "added,", "1", "deleted, 1 changed, +4 B"])
    assert rows == [
        ["A", "-", "1", "/etc/gone"],
        ["D", "1", "-", "/etc/lower"],
        ["C", "4", "6", "/etc/motd  (content)"],
        ["A", "-", "-", "/opt/"],
        ["A", "-", "2", r"/opt/x\x1b"],
    ]
    assert printed("diff", image, image) == []
    assert len(printed("diff", f"{image}:/etc", f"{tmp_path}/other.tar:/etc")) == 3 + 2
    found = document("diff", "--json", *whole)["files"]
    assert found[2] == {
        "path": "/etc/motd",
        "change": "changed",
        "what": ["content"],
        "before": {"type": "file", "size": 4, "mode": "0644", "uid": 0, "gid": 0},
        "after": {"type": "file", "size": 6, "mode": "0644", "uid": 0, "gid": 0},
    }
    assert [one["change"] for one in found] == ["added", "removed", "changed", "added", "added"]


@pytest.mark.parametrize(
    ("argument", "image", "path"),
    [
        ("nginx", "nginx", None),
        ("nginx:/etc", "nginx", b"/etc"),
        ("nginx:1.27", "nginx:1.27", None),
        ("nginx:1.27:/", "nginx:1.27", b"/"),
        ("localhost:5000/nginx", "localhost:5000/nginx", None),
        ("localhost:5000/a/b:1:/etc/x:/y", "localhost:5000/a/b:1", b"/etc/x:/y"),
        ("name@sha256:00:/x", "name@sha256:00", b"/x"),
        ("docker-daemon:nginx:1:/x", "docker-daemon:nginx:1", b"/x"),
        ("docker-archive:/a/b.tar", "docker-archive:/a/b.tar", None),
        ("docker-archive:/a/b.tar:/etc", "docker-archive:/a/b.tar", b"/etc"),
        ("docker-archive:b.tar:n:1:/etc", "docker-archive:b.tar:n:1", b"/etc"),
        ("docker-archive:b.tar:@0:/etc", "docker-archive:b.tar:@0", b"/etc"),
        ("oci:/dir", "oci:/dir", None),
        ("oci:/dir:/etc", "oci:/dir", b"/etc"),
        ("oci:dir:ref:/etc", "oci:dir:ref", b"/etc"),
        ("oci-archive:/x:/y", "oci-archive:/x", b"/y"),
        ("./x.tar:/\udcff", "./x.tar", b"/\xff"),
        ("/x.tar:/y", "/x.tar", b"/y"),
        ("-:/etc", "-", b"/etc"),
        ("https://host/x", "https://host/x", None),
        ("https://host:80/x.tar:/etc", "https://host:80/x.tar", b"/etc"),
        ("docker-archive:https://host/x.tar:a:1:/etc", "docker-archive:https://host/x.tar:a:1", b"/etc"),
        ("ftp://host/x", "ftp://host/x", None),
        ("docker://http://host/x:1", "docker://http://host/x:1", None),
        ("/x.tar://etc", "/x.tar", b"//etc"),
    ],
)
def test_the_path_in_an_image_begins_at_the_first_colon_and_slash(
    argument: str, image: str, path: bytes | None
) -> None:
    found = split_path(argument)
    assert found == (image, path) or (argument == "/x.tar://etc" and found == (argument, None))


def test_a_full_disk_behind_the_output_is_an_error(image: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([COMMAND, "ls", image], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "imgfs: cannot write standard output: No space left on device\n"
    assert done.returncode == 8


def test_looks_leave_no_file_behind_and_need_no_fuse(image: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from fusefs.cli import main; main(sys.argv[1:]); "
        "print({'pyfuse3', 'trio', 'docker', 'urllib3', 'ssl'} & set(sys.modules))"
    )
    for words in (["ls", image], ["inspect", image], ["cat", f"{image}:/odd"], ["which", image, "/"], ["list"]):
        command = [os.path.join(os.path.dirname(COMMAND), "python"), "-c", code, *map(str, words)]
        environment = os.environ | {"IMGFS_TMPDIR": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.splitlines()[-1] == "set()"
    assert os.listdir(tmp_path) == []


def test_images_of_real_engines_are_looked_at(engine: RealEngine) -> None:
    on = ("-q", "--host", engine.host)
    found = document("inspect", "--json", *on, NGINX)
    said = engine.inspect(NGINX)
    assert found["id"].removeprefix("sha256:") == said["Id"].removeprefix("sha256:")
    assert [layer["diffId"] for layer in found["layers"]] == said["RootFS"]["Layers"]
    assert (found["cmd"], found["labels"]) == (["nginx"], said["Config"]["Labels"])
    assert "GREETING=hello" in found["env"]
    assert imgfs("cat", *on, f"{NGINX}:/again").out == "the same\n"
    which = document("which", "--json", *on, NGINX, "/noise")
    assert "noise" in which["createdBy"]
    changed = {one["path"]: one["change"] for one in document("diff", "--json", *on, NGINX, OTHER)["files"]}
    assert changed == {"/again": "removed", "/noise": "removed"}


def test_a_layer_of_nothing_has_no_share(tmp_path: Path) -> None:
    path = Archive(layers=LAYERS).write(tmp_path / "x.tar")
    assert [layer["number"] for layer in document("inspect", "--json", path)["layers"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("command", ["inspect", "ls", "cat", "diff", "which"])
def test_each_look_takes_the_options_that_say_where_an_image_is(image: Path, command: str) -> None:
    words = ["--tmpdir", str(image.parent), "--verify", "--platform", "linux/amd64", "-q"]
    asked = [f"{image}:/odd"] if command in ("cat", "which") else [str(image)] * (2 if command == "diff" else 1)
    assert imgfs(command, *words, *asked).status == 0
    assert refused(command, "--platform", "linux/", *asked)[0] == 2
    assert refused(command, "--host", "a", "--context", "b", *(["nginx:/x"] * len(asked)))[0] == 2
