"""Mounts of an engine's image that is kept: saved once, whoever comes, whatever is killed or altered."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.cache.sealed_file import SEAL, read_document, stated, write_document
from fusefs.private import open_private
from tests.support.builders import LAYERS, Archive, compressed, image_config, layer, sha256
from tests.support.fake_engine import Answer, Engine, default_engine, fake_engine, json_answer
from tests.support.mounts import COMMAND, Bench, Finished, tree
from tests.support.processes import mounts_at, until
from tests.support.terminals import Terminal

BIG = layer({"big": random.Random(5).randbytes(6 << 20), "d/small": b"1"})
SMALL = Archive()
LARGE = Archive(layers=(*LAYERS, BIG))


@pytest.fixture(name="engine")
def engine_on_a_socket(imgfs: Bench) -> Iterator[Engine]:
    """An honest engine."""
    with default_engine(imgfs) as engine:
        yield engine


def saves(engine: Engine) -> int:
    """Return how often the engine was asked to save."""
    return sum(path.endswith("/get") for path in engine.asked)


def kept(imgfs: Bench) -> list[str]:
    """Return the kinds of files in the cache's entries, by name."""
    return sorted({path.name for path in imgfs.cache.glob("saved/*/*")})


def until_kept(imgfs: Bench) -> Path:
    """Wait until the one entry is complete, and return it."""
    (index,) = until(lambda: list(imgfs.cache.glob("saved/*/index")), "the image is kept")
    return index.parent


def unmount(imgfs: Bench, mountpoint: Path) -> None:
    """Unmount, and wait until nothing runs any more."""
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    until(lambda: not imgfs.processes(), "all processes end")


def noisy(imgfs: Bench, *options: str | Path) -> str:
    """Mount ``img``, of which something is said besides, and return that; ends with nothing mounted."""
    mountpoint = imgfs.mountpoint(f"noisy{len(os.listdir(imgfs.folder))}")
    done = imgfs.run("mount", "--log-file", imgfs.log, *options, "img", mountpoint)
    assert (done.status, done.out) == (0, "")
    *said, last = done.err.splitlines()
    assert last.startswith("imgfs: mounted img on ")
    assert tree(mountpoint)["config"] == SMALL.config_data
    unmount(imgfs, mountpoint)
    return "\n".join(said)


def test_an_image_is_saved_once_and_mounted_again_without_another_request(imgfs: Bench, engine: Engine) -> None:
    mountpoint = imgfs.mount("img")
    first = tree(mountpoint)
    unmount(imgfs, mountpoint)
    assert kept(imgfs)[-2:] == ["index", "tar"]
    engine.asked.clear()
    imgfs.mount("img", at=mountpoint)
    assert tree(mountpoint) == first
    assert engine.asked == ["/images/img/json"]
    assert imgfs.made_files(mountpoint) == []


def test_a_kept_image_needs_no_sdk(imgfs: Bench, engine: Engine) -> None:
    unmount(imgfs, imgfs.mount("img"))
    imgfs.command = (sys.executable, "-X", "importtime", COMMAND)
    done = imgfs.run("mount", "--log-file", imgfs.log, "img", imgfs.folder / "mnt")
    assert (done.status, saves(engine)) == (0, 1)
    imported = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert {"docker", "requests", "urllib3", "pyfuse3"} & imported == {"pyfuse3"}


def test_an_engine_elsewhere_is_asked_through_the_sdk(imgfs: Bench) -> None:
    with fake_engine() as engine:  # on tcp
        mountpoint = imgfs.mount("img", "-H", engine.host)
        first = tree(mountpoint)
        unmount(imgfs, mountpoint)
        engine.asked.clear()
        imgfs.mount("img", "-H", engine.host, at=mountpoint)
        assert tree(mountpoint) == first
        assert engine.asked == ["/version", "/v1.41/images/img/json"]


def test_an_image_that_is_unmounted_at_once_is_kept_all_the_same(imgfs: Bench, engine: Engine) -> None:
    engine.script.archive = LARGE
    unmount(imgfs, imgfs.mount("img"))
    assert kept(imgfs) == ["index", "tar"]
    with imgfs.foreground("img", at=imgfs.mountpoint("other")) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert saves(engine) == 1


def test_in_the_foreground_it_is_kept_while_it_is_mounted(imgfs: Bench, engine: Engine) -> None:
    with imgfs.foreground("img") as process:
        until_kept(imgfs)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert saves(engine) == 1


def test_two_mounts_at_the_same_time_save_once(imgfs: Bench, engine: Engine) -> None:
    engine.script.archive = LARGE
    gate = threading.Event()
    engine.script.save = Answer(parts=[LARGE.data()], gate=gate)
    points = [imgfs.mountpoint(f"mnt{number}") for number in range(3)]
    first = imgfs.start("mount", "-q", "--log-file", imgfs.log, "img", points[0])
    until(lambda: saves(engine), "the image is asked for")
    second = imgfs.start("mount", "-q", "--log-file", imgfs.log, "img", points[1])
    imgfs.environment["TERM"] = "xterm"  # where nobody waits ten seconds for a line
    third = Terminal(imgfs, "mount", "--driver", "fuse", "--log-file", imgfs.log, "img", points[2])
    third.sees(r"\rimgfs: another imgfs saves img … 1 s\x1b")
    gate.set()
    assert (first.wait(20), second.wait(20), third.end()) == (0, 0, 0)
    assert saves(engine) == 1
    trees = [tree(point) for point in points]
    assert trees[0] == trees[1] == trees[2]
    (entry,) = (imgfs.cache / "saved").iterdir()
    (tar,) = entry.glob("tar")
    # Once more for a file that all of them have open.
    users = {os.stat(f"/proc/{imgfs.serving(point)}/fd/{number}").st_ino
             for point in points for number in os.listdir(f"/proc/{imgfs.serving(point)}/fd")}  # fmt: skip
    assert tar.stat().st_ino in users


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_who_waits_for_a_save_that_is_killed_saves_itself(imgfs: Bench, engine: Engine, number: int) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[SMALL.data()], gate=gate)
    first = imgfs.start("mount", "-q", "--log-file", imgfs.log, "img", imgfs.mountpoint("mnt0"))
    until(lambda: saves(engine) == 1, "the image is asked for")
    mountpoint = imgfs.mountpoint("mnt1")
    second = imgfs.start("mount", "-q", "--log-file", imgfs.log, "img", mountpoint)
    until(lambda: engine.asked[-1] == "/images/img/json", "the other asks")
    first.send_signal(number)
    first.wait(10)
    until(lambda: saves(engine) == 2, "the other saves")
    gate.set()
    assert (*second.communicate(timeout=10), second.returncode) == ("", "", 0)
    assert tree(mountpoint)["config"] == SMALL.config_data
    unmount(imgfs, mountpoint)
    assert kept(imgfs)[-2:] == ["index", "tar"]


def _killed(imgfs: Bench, process: "subprocess.Popen[str]", mountpoint: Path) -> None:
    """Kill all that runs, and remove what the kernel still shows."""
    for pid in imgfs.processes():
        os.kill(pid, signal.SIGKILL)
    process.wait(10)
    until(lambda: not imgfs.processes(), "all processes end")
    for mount in mounts_at(mountpoint):
        subprocess.run(["umount", "-l", mount.path], check=True)


@pytest.mark.parametrize("seed", range(12))
def test_a_kill_at_any_moment_leaves_nothing_that_counts(imgfs: Bench, engine: Engine, seed: int) -> None:
    engine.script.archive = LARGE
    mountpoint = imgfs.mountpoint()
    process = imgfs.start("mount", "-q", "--log-file", imgfs.log, "img", mountpoint)
    moment = random.Random(seed).random() * 0.1
    if seed % 3 == 0:  # while it is saved
        until(lambda: saves(engine), "the image is asked for")
    elif seed % 3 == 1:  # while it is linked
        assert process.wait(20) == 0
    else:  # while what is made of a layer is kept
        assert process.wait(20) == 0
        os.listdir(mountpoint / "rootfs")
    threading.Event().wait(moment)
    _killed(imgfs, process, mountpoint)
    before = saves(engine)
    was_kept = "index" in kept(imgfs)
    imgfs.mount("img", at=mountpoint)
    assert tree(mountpoint)["rootfs/d/small"] == b"1"
    unmount(imgfs, mountpoint)
    assert saves(engine) == before + (0 if was_kept else 1)
    names = {re.sub(r"^[0-9a-f]{64}-[0-9]+", "", name) for name in kept(imgfs)}
    assert names == {"index", "tar", ".layer", ".layer.seal"}
    assert imgfs.run("cache", "prune").out.startswith("freed 0 B\nkept ")


def _touch(path: Path) -> None:
    os.utime(path)


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"?")


def _cut(path: Path) -> None:
    os.truncate(path, 1000)


@pytest.mark.parametrize("alter", [_touch, _overwrite, _cut])
@pytest.mark.parametrize("name", ["tar", "index"])
def test_a_kept_image_that_was_altered_is_dropped_with_a_word_and_saved_anew(
    imgfs: Bench, engine: Engine, name: str, alter: object
) -> None:
    unmount(imgfs, imgfs.mount("img"))
    entry = until_kept(imgfs)
    assert callable(alter)
    alter(entry / name)
    said = noisy(imgfs)
    if (name, alter) == ("index", _touch):  # its times are when it was used
        assert (said, saves(engine)) == ("", 1)
    else:
        assert said == f"imgfs: warning: {entry}: dropped: {name} was altered"
        assert saves(engine) == 2
    assert noisy(imgfs) == ""


def test_one_of_another_version_is_made_anew(imgfs: Bench, engine: Engine) -> None:
    unmount(imgfs, imgfs.mount("img"))
    entry = until_kept(imgfs)
    (entry / "index").write_bytes(b"imgfs cache 0 ")
    assert noisy(imgfs) == f"imgfs: warning: {entry}: dropped: index was written by another version of imgfs"
    assert saves(engine) == 2


def _rewritten(entry: Path, **changes: object) -> None:
    """Write the index of *entry* anew, with *changes* and a checksum that is right."""
    directory = open_private(str(entry))
    facts = read_document(directory, "index")
    assert facts is not None
    (entry / "index").unlink()
    write_document(directory, "index", facts | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"members": []}, {"members": [[]]}, {"members": None}, {"members": [["x"] * 7]}, {"digests": {}, "members": {}},
        {"digests": {str(n * 512): sha256(b"") for n in range(1000)}}, {"digests": {"x": 1}}, {"digests": 7},
    ],
)  # fmt: skip
def test_an_index_that_lies_is_found_out_by_the_digests_or_its_form(
    imgfs: Bench, engine: Engine, changes: dict[str, object]
) -> None:
    unmount(imgfs, imgfs.mount("img"))
    entry = until_kept(imgfs)
    _rewritten(entry, **changes)
    said = noisy(imgfs)
    assert said.startswith(f"imgfs: warning: {entry}: dropped: ")
    assert said.count("\n") == 0
    assert saves(engine) == 2


def test_what_the_engine_says_now_is_what_counts(imgfs: Bench, engine: Engine) -> None:
    unmount(imgfs, imgfs.mount("img"))
    engine.script.archive = LARGE  # the same name, another image
    mountpoint = imgfs.mount("img", at=imgfs.folder / "mnt")
    assert tree(mountpoint)["config"] == LARGE.config_data
    unmount(imgfs, mountpoint)
    assert saves(engine) == 2
    engine.script.inspect = json_answer({"message": "No such image"}, 404)
    done = imgfs.run("mount", "img", mountpoint)
    assert (done.status, done.err.startswith("imgfs: no image img in the engine")) == (4, True)


def test_another_storage_of_the_engine_is_another_entry(imgfs: Bench, engine: Engine) -> None:
    for storage in ("overlay2", "overlayfs", "overlay2"):
        engine.script.inspect = json_answer(engine.script.inspected(GraphDriver={"Name": storage}, RepoTags=["img:1"]))
        unmount(imgfs, imgfs.mount("img:1", at=imgfs.folder / "mnt" if (imgfs.folder / "mnt").exists() else None))
    assert saves(engine) == 2
    listed = json.loads(imgfs.run("cache", "list", "--json").out)
    assert sorted((one["storage"], one["names"]) for one in listed) == [
        ("overlay2", ["img:1"]),
        ("overlayfs", ["img:1"]),
    ]


def test_without_a_cache_nothing_is_kept(imgfs: Bench, engine: Engine) -> None:
    for number in range(2):
        mountpoint = imgfs.mount("img", "--no-cache", at=imgfs.mountpoint(f"mnt{number}"))
        assert len(imgfs.made_files(mountpoint)) == 1
        assert imgfs.made_files(mountpoint)[0].startswith(str(imgfs.spool))
    assert not imgfs.cache.exists()
    assert saves(engine) == 2


def test_options_and_the_environment_say_where_it_is(imgfs: Bench, engine: Engine) -> None:
    unmount(imgfs, imgfs.mount("img", "--cache-dir", imgfs.folder / "named"))
    unmount(imgfs, imgfs.mount("img", "-o", f"cache_dir={imgfs.folder}/word", at=imgfs.folder / "mnt"))
    assert [(imgfs.folder / name / "saved").exists() for name in ("named", "word", "cache")] == [True, True, False]
    assert saves(engine) == 2


def test_a_named_cache_that_cannot_be_used_is_an_error(imgfs: Bench, engine: Engine) -> None:
    shared = imgfs.folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    hint = "choose another directory with --cache-dir, or --no-cache"
    why = f"cannot use the cache {shared}: other users may write there; {hint}"
    for options in (("--cache-dir", shared), ()):
        imgfs.environment["IMGFS_CACHE_DIR"] = str(shared)
        mountpoint = imgfs.mountpoint(f"mnt{len(options)}")
        assert imgfs.run("mount", *options, "img", mountpoint) == Finished(8, "", f"imgfs: {why}\n")
    assert engine.asked == []


def test_an_image_over_the_limit_is_spooled(imgfs: Bench, engine: Engine) -> None:
    engine.script.archive = LARGE
    for number, size in enumerate([100, 20_000_000]):  # what the engine says: far too little, and too much
        engine.script.inspect = json_answer(engine.script.inspected(Size=size))
        mountpoint = imgfs.mount("img", "--cache-size", "5M", at=imgfs.mountpoint(f"mnt{number}"))
        assert [os.path.dirname(path) for path in imgfs.made_files(mountpoint)] == [str(imgfs.spool)]
        assert tree(mountpoint)["config"] == LARGE.config_data
        unmount(imgfs, mountpoint)
        assert kept(imgfs) == []
        assert os.listdir(imgfs.cache / "saved") == []


def test_an_image_in_use_outlives_all_others(imgfs: Bench, engine: Engine) -> None:
    used = imgfs.mount("img")
    until_kept(imgfs)
    images = [Archive(layers=(*LAYERS, layer({str(n): random.Random(n).randbytes(2 << 20)}))) for n in range(4)]
    mountpoint = imgfs.mountpoint("other")
    for image in images:
        engine.script.archive = image
        imgfs.mount("img", "--cache-size", "5M", at=mountpoint)
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: len(imgfs.processes()) == 1, "the process ends")
    listed = json.loads(imgfs.run("cache", "list", "--json").out)
    assert [one["id"] for one in listed if one["inUse"]] == [sha256(SMALL.config_data)]
    assert [one["id"] for one in listed][:2] == [sha256(image.config_data) for image in images[:1:-1]]
    assert len(listed) == 3
    assert tree(used)["config"] == SMALL.config_data


def _sealed(path: Path) -> None:
    """Let the kept file *path*, which was altered, be one that is as it was kept."""
    directory = open_private(str(path.parent))
    seal = path.name + SEAL
    facts = read_document(directory, seal)
    assert facts is not None
    os.unlink(seal, dir_fd=directory)
    with path.open("rb") as file:
        write_document(directory, seal, facts | {"file": stated(file.fileno())})


def test_a_look_into_a_kept_layer_starts_no_child_and_makes_nothing(imgfs: Bench, engine: Engine) -> None:
    engine.script.archive = Archive(layers=(*LAYERS, layer({"big": bytes(17 << 20), "after": b"x"})))
    mountpoint = imgfs.mount("img")
    first = tree(mountpoint)
    unmount(imgfs, mountpoint)
    (index,) = (path for path in imgfs.cache.glob("saved/*/*.layer") if b"after" in path.read_bytes())
    index.write_bytes(index.read_bytes().replace(b"after", b"kept!"))
    _sealed(index)
    imgfs.mount("img", at=mountpoint)
    assert os.listdir(mountpoint / "rootfs")
    assert imgfs.made_files(mountpoint) == []
    assert tree(mountpoint) == {name.replace("/after", "/kept!"): data for name, data in first.items()}


def test_a_kept_layer_that_was_altered_is_indexed_anew(imgfs: Bench, engine: Engine) -> None:  # noqa: ARG001
    mountpoint = imgfs.mount("img")
    first = tree(mountpoint)
    unmount(imgfs, mountpoint)
    indexes = list(imgfs.cache.glob("saved/*/*.layer"))
    _cut(indexes[0])
    _overwrite(indexes[1])
    imgfs.mount("img", at=mountpoint)
    imgfs.log_is_quiet = False
    assert tree(mountpoint) == first
    lines = [line.partition("]: ")[2] for line in imgfs.log.read_text().splitlines()]
    assert sorted(lines) == sorted(
        f"WARNING: {path.parent}: dropped {path.name}: {path.name} was altered" for path in indexes[:2]
    )
    unmount(imgfs, mountpoint)
    assert sorted(imgfs.cache.glob("saved/*/*.layer")) == sorted(indexes)


def test_the_plain_tar_of_a_compressed_layer_is_kept(imgfs: Bench, engine: Engine) -> None:
    plain = layer({"x": b"1" * 1000})
    engine.script.archive = Archive(layers=[compressed(plain, "gzip")], config=image_config([plain]))
    mountpoint = imgfs.mount("img")
    assert (mountpoint / ".uncompressed" / "0" / "tar").read_bytes() == plain
    unmount(imgfs, mountpoint)
    (tar,) = imgfs.cache.glob("saved/*/*?.tar")
    assert tar.read_bytes() == plain
    imgfs.mount("img", at=mountpoint)
    assert (mountpoint / "rootfs" / "x").read_bytes() == b"1" * 1000
    assert (mountpoint / ".uncompressed" / "0" / "tar").read_bytes() == plain
    folder = Path(f"/proc/{imgfs.serving(mountpoint)}/fd")
    assert str(tar) in [os.readlink(entry) for entry in folder.iterdir()]
