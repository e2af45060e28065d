"""imgfs cache: what it lists, what it removes, where it is; and sizes as people write them."""

import json
import os
import pwd
import re
import sys
from pathlib import Path

import pytest

from fusefs.cli.parsing.program import parse_arguments
from fusefs.errors import UsageError
from fusefs.sources.caching import cache_folder
from tests.support.builders import Archive, sha256
from tests.support.fake_engine import fake_engine, json_answer
from tests.support.mounts import COMMAND, Bench, Finished
from tests.support.processes import until

TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
LOCAL_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}"
SIZE = r"[1-9][0-9.]* k?B"


def _mount_both(imgfs: Bench) -> tuple[Path, Path]:
    """Mount an engine's image, and unmount it; and an archive.  Returns the mountpoint and the archive."""
    archive = Archive().write(imgfs.folder / "image\x1b.tar")
    with fake_engine(socket=imgfs.folder / "engine.sock") as engine:
        engine.script.inspect = json_answer(
            engine.script.inspected(
                RepoTags=["a:1", "b\x1b[31m:2"], GraphDriver={"Name": "overlay2"}, Os="linux", Architecture="amd64"
            )
        )
        first = imgfs.mount("a:1", "-H", engine.host, at=imgfs.mountpoint("first"))
        assert imgfs.run("umount", first).status == 0
        until(lambda: not imgfs.processes(), "all processes end")
    mountpoint = imgfs.mountpoint()
    assert imgfs.run("mount", "--log-file", imgfs.log, archive, mountpoint).status == 0
    until(lambda: list(imgfs.cache.glob("files/*/index")), "the index is kept")
    return mountpoint, archive


def test_what_is_kept_is_listed_for_people_and_for_programs(imgfs: Bench) -> None:
    _, archive = _mount_both(imgfs)
    lines = imgfs.run("cache", "list", "--wide").out.splitlines()
    identity = sha256(Archive().config_data)
    host = f"unix://{imgfs.folder}/engine.sock"
    assert lines[0].split() == ["ID", "PLATFORM", "SIZE", "LAST", "USED", "IN", "USE", "ENGINE", "IMAGE"]
    assert re.fullmatch(rf"- +- +{SIZE}  {LOCAL_TIME}  yes +- +.*/image\\x1b\.tar", lines[1])
    engine = rf"{identity[7:19]}  linux/amd64 +{SIZE}  {LOCAL_TIME}  no +{host} +a:1, b\\x1b\[31m:2"
    assert re.fullmatch(engine, lines[2])
    total = rf"2 entries, {SIZE}, of at most 10\.7 GB"
    assert (len(lines), bool(re.fullmatch(total, lines[3]))) == (4, True)
    lines = imgfs.run("cache", "list").out.splitlines()
    assert lines[0].split() == ["ID", "SIZE", "USED", "IN", "USE", "ENGINE", "IMAGE"]
    assert re.fullmatch(rf"{identity[7:19]} +{SIZE}  (?:now|[0-9]+ s ago) +no +{host} +a:1, b\\x1b\[31m:2", lines[2])
    of_archive, of_engine = json.loads(imgfs.run("cache", "list", "--json").out)
    assert (of_archive["path"], of_archive["inUse"]) == (str(archive), True)
    for one in (of_archive, of_engine):
        assert re.fullmatch(TIME, one.pop("created"))
        assert re.fullmatch(TIME, one.pop("used"))
        assert one.pop("size") > 0
        assert one.pop("key")
    assert of_engine == {
        "names": ["a:1", "b\x1b[31m:2"], "id": identity, "platform": "linux/amd64", "storage": "overlay2",
        "path": None, "mediaType": None, "inUse": False, "usable": True, "engine": host, "part": None,
    }  # fmt: skip
    assert "\x1b" not in imgfs.run("cache", "list").out + imgfs.run("cache", "list", "--json").out


def test_all_that_is_not_in_use_can_be_removed(imgfs: Bench) -> None:
    mountpoint, _ = _mount_both(imgfs)
    in_use, spare = rf"kept 1 entry, {SIZE}: in use\n", rf"kept 1 entry, {SIZE}: within the limit of 10\.7 GB; "
    done = imgfs.run("cache", "prune")
    assert re.fullmatch(rf"freed 0 B\n{in_use}{spare}--all removes them\n", done.out)
    would = rf"would remove a:1, b\\x1b\[31m:2 \({SIZE}\)\nwould free {SIZE}\n{in_use}"
    for words in (["--all"], ["--cache-size", "0"]):
        assert re.fullmatch(would, imgfs.run("cache", "prune", "--dry-run", *words).out)
    assert len(json.loads(imgfs.run("cache", "list", "--json").out)) == 2
    assert re.fullmatch(rf"freed {SIZE}\n{in_use}", imgfs.run("cache", "prune", "--all").out)
    assert [one["inUse"] for one in json.loads(imgfs.run("cache", "list", "--json").out)] == [True]
    assert imgfs.run("umount", mountpoint).status == 0
    until(lambda: not imgfs.processes(), "all processes end")
    assert imgfs.run("cache", "prune", "--cache-size", "0").status == 0
    assert json.loads(imgfs.run("cache", "list", "--json").out) == []
    assert os.listdir(imgfs.cache / "saved") == os.listdir(imgfs.cache / "files") == []


def test_one_image_can_be_removed(imgfs: Bench) -> None:
    mountpoint, archive = _mount_both(imgfs)
    identity = sha256(Archive().config_data)[7:]
    missing = "imgfs: nothing is cached of {}; imgfs cache list lists what is\n"
    for name in ("a", "a:2", identity[:3], "./other.tar", "docker://a:1"):
        assert imgfs.run("cache", "rm", name) == Finished(4, "", missing.format(name))
    why = "a mount or a command uses it; imgfs list lists the mounts"
    kept = f"imgfs: kept {imgfs.folder}/image\\x1b.tar: {why}\n"
    assert imgfs.run("cache", "rm", archive) == Finished(9, "freed 0 B\n", kept)
    assert re.fullmatch(rf"freed {SIZE}\n", imgfs.run("cache", "rm", "a:1").out)
    assert [one["path"] for one in json.loads(imgfs.run("cache", "list", "--json").out)] == [str(archive)]
    assert imgfs.run("umount", mountpoint).status == 0
    until(lambda: not imgfs.processes(), "all processes end")
    assert re.fullmatch(rf"freed {SIZE}\n", imgfs.run("cache", "rm", f"./{archive.name}").out)
    assert imgfs.run("cache", "rm").status == 2


def test_an_archive_is_listed_by_its_whole_path(imgfs: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    Archive().write(imgfs.folder / "image.tar")
    monkeypatch.chdir(imgfs.folder)
    imgfs.mount("./image.tar")
    until(lambda: list(imgfs.cache.glob("files/*/index")), "the index is kept")
    (listed,) = json.loads(imgfs.run("cache", "list", "--json").out)
    assert listed["path"] == str(imgfs.folder / "image.tar")


def test_a_cache_that_is_not_there_is_empty_and_stays_away(imgfs: Bench) -> None:
    assert imgfs.run("cache", "list").out.splitlines()[1:] == ["0 entries, 0 B, of at most 10.7 GB"]
    assert imgfs.run("cache", "list", "--json") == Finished(0, "[]\n", "")
    assert imgfs.run("cache", "prune", "--all") == Finished(0, "freed 0 B\n", "")
    assert imgfs.run("cache", "path") == Finished(0, f"{imgfs.cache}\n", "")
    assert imgfs.run("cache", "path", "--cache-dir", "x") == Finished(0, f"{imgfs.folder}/x\n", "")
    assert not imgfs.cache.exists()


def test_a_directory_that_is_no_cache_is_left_alone(imgfs: Bench) -> None:
    precious = imgfs.folder / "home" / "saved"
    precious.mkdir()
    (precious / "x").touch()
    for words in (["list"], ["prune", "--all"]):
        done = imgfs.run("cache", *words, "--cache-dir", imgfs.folder / "home")
        assert (done.status, done.err.count("\n")) == (8, 1)
    assert os.listdir(precious) == ["x"]


def test_without_a_name_it_is_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache_folder(None, {"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == ("/var/cache/imgfs", False)
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert cache_folder(None, {"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == ("/c/imgfs", False)
    assert cache_folder(None, {"HOME": "/h", "XDG_CACHE_HOME": "c"}) == ("/h/.cache/imgfs", False)
    assert cache_folder(None, {"HOME": "/h", "IMGFS_CACHE_DIR": ""}) == ("/h/.cache/imgfs", False)
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert cache_folder(None, {}) == (f"{home}/.cache/imgfs", False)
    assert cache_folder(None, {"HOME": "/h", "IMGFS_CACHE_DIR": "/i"}) == ("/i", True)
    assert cache_folder("/n", {"HOME": "/h", "IMGFS_CACHE_DIR": "/i"}) == ("/n", True)
    assert cache_folder("n", {}) == (f"{os.getcwd()}/n", True)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("1000", 1000), ("12B", 12), ("500M", 500_000_000), ("500MB", 500_000_000), ("10G", 10**10),
        ("10GiB", 10 << 30), ("10gi", 10 << 30), ("1k", 1000), ("2TiB", 2 << 40), (" 7 ", 7),
    ],
)  # fmt: skip
def test_a_size_is_one_as_people_write_it(text: str, size: int) -> None:
    assert parse_arguments(["cache", "prune", "--cache-size", text]).cache_size == size


@pytest.mark.parametrize("text", ["", "-1", "G", "1.5G", "10 XB", "1e9", "10iB", "\x1b"])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size; use one such as 500M, 10GiB or 1000000"):
        parse_arguments(["mount", "x", "/mnt", f"--cache-size={text}"])


@pytest.mark.parametrize("words", [["cache", "clean"], ["cache", "list", "--all"], ["cache", "path", "x"]])
def test_what_is_no_action_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_arguments(words)


def test_its_imports_are_light(imgfs: Bench) -> None:
    imgfs.command = (sys.executable, "-X", "importtime", COMMAND)
    done = imgfs.run("cache", "path")
    assert done.status == 0
    imported = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert {"trio", "pyfuse3", "docker", "requests", "http.client", "json"} & imported == {"json"}


def test_one_that_cannot_be_read_is_said_in_one_line(imgfs: Bench) -> None:
    (imgfs.folder / "file").touch()
    for folder, why in (
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
        ("x" * 300, "File name too long"),
    ):
        for words in (["list"], ["prune", "--all"]):
            done = imgfs.run("cache", *words, "--cache-dir", imgfs.folder / folder)
            assert (done.status, done.err.count("\n")) == (8, 1)
            assert f": {why}; choose" in done.err


@pytest.mark.parametrize(
    "words", [["cache", "list", "--cache-dir"], ["ls", "x.tar", "--cache-dir"], ["ls", "x.tar", "--tmpdir"]]
)
def test_a_relative_directory_needs_the_current_one(imgfs: Bench, words: list[str]) -> None:
    imgfs.command = ["sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$0" "$@"', *imgfs.command]
    archive = Archive().write(imgfs.folder / "x.tar")
    done = imgfs.run(*(archive if word == "x.tar" else word for word in words), "rel")
    assert done == Finished(2, "", "imgfs: rel is relative, and the current directory is gone\n")
