"""What goes wrong with an engine, and what imgfs says of it; and that nothing is left then."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.builders import BLOCK, END, LAYERS, Archive, archive_of, layer, member, sha256
from tests.support.fake_engine import Answer, Engine, Script, default_engine, fake_engine, json_answer
from tests.support.file_systems import tmpfs
from tests.support.mounts import Bench, Finished, mounted_below, tree
from tests.support.processes import until

BIG = layer({"big": bytes(range(256)) * 16384})
DATA = Archive().data()
BIG_DATA = Archive(layers=(*LAYERS, BIG)).data()
ERROR = b'{"message":"disk on fire"}'
CONFIG_ID = sha256(Archive().config_data)

SPOOLED = ("--no-cache", "--tmpdir")
"""What is not kept is written there."""


@pytest.fixture(name="engine")
def engine_on_a_socket(imgfs: Bench) -> Iterator[Engine]:
    """An honest engine until the test says otherwise."""
    with default_engine(imgfs) as engine:
        yield engine


def _fails(imgfs: Bench, status: int, message: str, *options: str | Path) -> None:
    """Assert that mounting ``img`` ends so, and leaves nothing."""
    done = imgfs.run("mount", "--log-file", imgfs.log, *options, "img", imgfs.mountpoint())
    assert done == Finished(status, "", f"imgfs: {message}\n")
    assert not imgfs.log.exists() or imgfs.log.read_bytes() == b""
    imgfs.nothing_left()


def test_an_honest_engine_is_asked_for_exactly_one_image(imgfs: Bench, engine: Engine) -> None:
    mountpoint = imgfs.mount("img")
    assert tree(mountpoint)["config"] == Archive().config_data
    assert engine.asked == ["/images/img/json", f"/v1.41/images/{CONFIG_ID}/get"]


def test_no_connection_to_the_engine_is_kept(imgfs: Bench, engine: Engine) -> None:
    imgfs.mount("img")
    until(lambda: engine.connections == 0, "all connections are closed")


def test_a_bare_name_means_latest_and_docker_daemon_the_same(imgfs: Bench, engine: Engine) -> None:
    for number, image in enumerate(["img:latest", "docker-daemon:img:latest", CONFIG_ID, CONFIG_ID[7:19]]):
        imgfs.mount(image, at=imgfs.mountpoint(f"mnt{number}"))
    names = [re.sub(r"^(?:/v1.41)?/images/(.*)/json$", r"\1", path) for path in engine.asked if path.endswith("/json")]
    assert names == ["img:latest", "img:latest", CONFIG_ID, CONFIG_ID[7:19]]


def test_tcp_and_http_work_too(imgfs: Bench) -> None:
    with fake_engine() as engine:
        for number, host in enumerate([engine.host, engine.host.replace("tcp", "http"), engine.host[6:]]):
            mountpoint = imgfs.mount("img", "-H", host, at=imgfs.mountpoint(f"mnt{number}"))
            assert tree(mountpoint)["config"] == Archive().config_data


UNREACHABLE = (
    "; start docker, or name another engine with --host or --context; docker://img asks the registry, without an engine"
)


def test_an_engine_that_is_not_there(imgfs: Bench) -> None:
    host = f"unix://{imgfs.folder}/no.sock"
    _fails(imgfs, 3, f"cannot reach an engine at {host}: No such file or directory{UNREACHABLE}", "-H", host)


def test_an_engine_that_refuses_connections(imgfs: Bench) -> None:
    with fake_engine() as engine:
        host = engine.host
    _fails(imgfs, 3, f"cannot reach an engine at {host}: Connection refused{UNREACHABLE}", "-H", host)


def test_an_engine_whose_socket_is_a_file(imgfs: Bench) -> None:
    (imgfs.folder / "file").touch()
    host = f"unix://{imgfs.folder}/file"
    _fails(imgfs, 3, f"cannot reach an engine at {host}: Connection refused{UNREACHABLE}", "-H", host)


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (Answer(), "its answer is not JSON"),
        (Answer(parts=[b"<html>welcome"]), "its answer is not JSON"),
        (json_answer([]), "it states no API version"),
        (json_answer({}), "it states no API version"),
        (json_answer({"ApiVersion": 1}), "it states no API version"),
        (json_answer({"message": "no"}, 500), "it answers with the status 500"),
        (json_answer({"message": "gone"}, 404), "it answers with the status 404"),
    ],
)
def test_what_is_no_engine_is_said_to_be_none(imgfs: Bench, engine: Engine, version: Answer, why: str) -> None:
    engine.script.version = version
    _fails(imgfs, 3, f"no Docker API at {engine.host}: {why}")


def test_an_engine_whose_first_answer_is_cut(imgfs: Bench, engine: Engine) -> None:
    engine.script.version = Answer(cut=True)
    cut = "its answer is cut short or garbled"
    _fails(imgfs, 3, f"cannot reach an engine at {engine.host}: {cut}{UNREACHABLE}")


def test_no_such_image(imgfs: Bench, engine: Engine) -> None:
    engine.script.inspect = json_answer({"message": "No such image: img:latest"}, 404)
    _fails(
        imgfs, 4, f"no image img in the engine at {engine.host}; docker pull img fetches it, docker://img needs no pull"
    )


def test_an_engine_that_refuses_to_inspect(imgfs: Bench, engine: Engine) -> None:
    engine.script.inspect = json_answer({"message": "not today"}, 500)
    _fails(imgfs, 3, f"the engine at {engine.host} refuses img: not today")


NONSENSE: dict[str, object] = {
    "a list": [],
    "null": None,
    "a string": "x",
    "nothing in it": {},
    "no ID": Script().inspected(Id=None),
    "a malformed ID": Script().inspected(Id="sha256:xyz"),
    "a size in words": Script().inspected(Size="big"),
    "no size": Script().inspected(Size=None),
    "no root": Script().inspected(RootFS=None),
    "layers that are a number": Script().inspected(RootFS={"Layers": 7}),
    "layers that are numbers": Script().inspected(RootFS={"Layers": [7]}),
    "malformed layers": Script().inspected(RootFS={"Layers": ["sha256:7"]}),
}


@pytest.mark.parametrize("document", NONSENSE.values(), ids=NONSENSE.keys())
def test_an_engine_that_describes_the_image_in_nonsense(imgfs: Bench, engine: Engine, document: object) -> None:
    engine.script.inspect = json_answer(document)
    done = imgfs.run("mount", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    said = f"the engine at {engine.host} describes img in a way that imgfs does not understand: "
    assert done.err.startswith(f"imgfs: {said}")
    imgfs.nothing_left()


@pytest.mark.parametrize("body", [b"", b"{", b"<html>"])
def test_an_engine_whose_description_is_no_json(imgfs: Bench, engine: Engine, body: bytes) -> None:
    engine.script.inspect = Answer(parts=[body])
    done = imgfs.run("mount", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert engine.host in done.err
    imgfs.nothing_left()


def _in_the_middle_of(data: bytes) -> int:
    """Return an offset in the middle of the biggest layer's data."""
    return data.index(BIG) + len(BIG) // 2


SAYS_AN_ERROR: Mapping[str, list[bytes]] = {
    "instead of the tar": [ERROR],
    "after the first member": [DATA[: BLOCK * 3], ERROR],
    "at the end of a member": [DATA[: DATA.index(member("manifest.json", Archive().manifest_data()))], ERROR],
    "in the middle of data": [BIG_DATA[: _in_the_middle_of(BIG_DATA)], ERROR],
    "at an odd offset": [BIG_DATA[: _in_the_middle_of(BIG_DATA) + 77], ERROR],
    "in the middle of a header": [DATA[: BLOCK // 2], ERROR],
    "after the end of the archive": [DATA, ERROR],
    "between the two blocks of the end": [DATA[:-BLOCK], ERROR],
    "with a line break": [DATA[: -len(END)], ERROR + b"\r\n"],
    "with its details": [DATA[: -len(END)], b'{"errorDetail":{"message":"x"},"error":"disk on fire"}'],
    "in two chunks": [DATA[: -len(END)], ERROR[:9], ERROR[9:]],
    "as podman has it": [DATA[: -len(END)], b'{"cause":"x","message":"disk on fire","response":500}\n'],
}


@pytest.mark.parametrize("parts", SAYS_AN_ERROR.values(), ids=SAYS_AN_ERROR.keys())
def test_an_error_that_comes_under_status_200_is_shown(imgfs: Bench, engine: Engine, parts: list[bytes]) -> None:
    engine.script.archive = Archive(layers=(*LAYERS, BIG)) if len(parts[0]) > len(DATA) else Archive()
    engine.script.save = Answer(parts=parts)
    _fails(imgfs, 3, f"the engine at {engine.host} failed to save img: disk on fire")


def test_an_error_of_the_engine_cannot_write_to_the_terminal(imgfs: Bench, engine: Engine) -> None:
    engine.script.save = Answer(parts=[json.dumps({"message": "red\x1b[31m\r\nalert"}).encode()])
    _fails(imgfs, 3, f"the engine at {engine.host} failed to save img: red\\x1b[31m\\r\\nalert")


def test_json_in_a_layer_is_no_error(imgfs: Bench, engine: Engine) -> None:
    engine.script.archive = Archive(layers=[layer({"x": ERROR}), layer({"y": ERROR + bytes(400)})])
    mountpoint = imgfs.mount("img")
    assert tree(mountpoint)["config"] == engine.script.archive.config_data


@pytest.mark.parametrize("status", [400, 404, 409, 500, 503])
def test_a_refused_save_is_reported_in_the_engines_words(imgfs: Bench, engine: Engine, status: int) -> None:
    engine.script.save = json_answer({"message": "empty export - not implemented"}, status)
    _fails(imgfs, 3, f"the engine at {engine.host} refuses img: empty export - not implemented")


def test_a_refused_save_without_a_message(imgfs: Bench, engine: Engine) -> None:
    engine.script.save = Answer(500)
    done = imgfs.run("mount", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert done.err.startswith(f"imgfs: the engine at {engine.host} refuses img: ")
    imgfs.nothing_left()


@pytest.mark.parametrize("size", [0, 300, BLOCK, len(DATA) - 100, len(DATA)])
def test_a_stream_that_is_cut(imgfs: Bench, engine: Engine, size: int) -> None:
    engine.script.save = Answer(parts=[DATA[:size]], cut=True)
    done = imgfs.run("mount", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert done.err.startswith(f"imgfs: the engine at {engine.host} stopped sending img after ")
    imgfs.nothing_left()


def test_a_tar_that_ends_early_although_the_stream_ends_well(imgfs: Bench, engine: Engine) -> None:
    engine.script.archive = Archive(layers=(*LAYERS, BIG))
    start, size = BIG_DATA.index(BIG), _in_the_middle_of(BIG_DATA)
    name = sha256(BIG)[7:] + ".tar"
    for unframed in (False, True):
        engine.script.save = Answer(parts=[BIG_DATA[:size]], unframed=unframed)
        said = f"truncated in {name} at offset {size}: {size - start} of {len(BIG)} bytes are there"
        done = imgfs.run("mount", "--log-file", imgfs.log, "img", imgfs.mountpoint(f"mnt{unframed}"))
        assert done == Finished(5, "", f"imgfs: img: {said}\n")
    imgfs.nothing_left()


def test_nothing_at_all(imgfs: Bench, engine: Engine) -> None:
    engine.script.save = Answer()
    _fails(imgfs, 5, "img: not a tar archive: the file is empty")


def test_garbage(imgfs: Bench, engine: Engine) -> None:
    engine.script.save = Answer(parts=[b"\x01garbage " * 1000])
    _fails(imgfs, 5, "img: not a tar archive: the checksum does not match at offset 0")


def test_an_endless_stream_of_garbage_is_not_saved_to_its_end(imgfs: Bench, engine: Engine) -> None:
    engine.script.save = Answer(parts=[b"\x01garbage" * 100_000] * 2000)
    _fails(imgfs, 5, "img: not a tar archive: the checksum does not match at offset 0")


def test_a_layer_with_other_bytes_than_its_diff_id(imgfs: Bench, engine: Engine) -> None:
    bad = LAYERS[2].replace(b"hello", b"hullo")
    engine.script.save = Answer(parts=[DATA.replace(LAYERS[2], bad)])
    name = sha256(LAYERS[2])[7:]
    _fails(imgfs, 6, f"img: layer 2 ({name}.tar) has the digest {sha256(bad)}, the image says {sha256(LAYERS[2])}")


def test_a_config_that_is_not_the_one_that_was_inspected(imgfs: Bench, engine: Engine) -> None:
    other = Archive(layers=LAYERS[:2])
    engine.script.save = Answer(parts=[other.data()])
    found = sha256(other.config_data)
    assert found != CONFIG_ID
    _fails(imgfs, 5, f"img: no image config, manifest or index has the digest {CONFIG_ID}, the image's ID")


def test_other_layers_than_were_inspected(imgfs: Bench, engine: Engine) -> None:
    layers = [sha256(data) for data in LAYERS[:2]]
    engine.script.inspect = json_answer(engine.script.inspected(RootFS={"Layers": layers}))
    _fails(imgfs, 6, "img: the saved image has other layers (4) than the engine says (2)")


def test_a_size_that_is_a_thousand_times_too_small(imgfs: Bench, engine: Engine) -> None:
    engine.script.archive = Archive(layers=(*LAYERS, BIG))
    engine.script.inspect = json_answer(engine.script.inspected(Size=4_000))
    mountpoint = imgfs.mount("img")
    assert (mountpoint / "blobs" / "sha256" / sha256(BIG)[7:]).read_bytes() == BIG


def test_an_image_that_is_not_there_any_more_when_it_is_saved(imgfs: Bench, engine: Engine) -> None:
    engine.script.save = json_answer({"message": "No such image: img"}, 404)
    _fails(imgfs, 3, f"the engine at {engine.host} refuses img: No such image: img")


def test_a_manifest_list_without_this_image(imgfs: Bench, engine: Engine) -> None:
    engine.script.save = Answer(parts=[archive_of(member("manifest.json", b"[]"))])
    _fails(imgfs, 5, "img: manifest.json lists no image")


@pytest.fixture(name="small_tmpdir")
def directory_with_a_mebibyte(imgfs: Bench) -> Iterator[Path]:
    """Give a directory where a MiB fits, and where nothing may be left."""
    with tmpfs(imgfs.mountpoint("small")) as path:
        yield path
        assert os.listdir(path) == []


def _no_space(imgfs: Bench, tmpdir: Path, need: str, have: str) -> None:
    done = imgfs.run("mount", "--log-file", imgfs.log, *SPOOLED, tmpdir, "img", imgfs.mountpoint())
    said = f"not enough space for img in {tmpdir}: need {need}, have {have}; choose another directory with --tmpdir"
    assert done == Finished(8, "", f"imgfs: {said}\n")
    until(lambda: not imgfs.processes(), "all processes end")
    assert mounted_below(imgfs.folder) == [str(tmpdir)]


def test_not_enough_space_is_seen_before_anything_is_saved(imgfs: Bench, engine: Engine, small_tmpdir: Path) -> None:
    engine.script.inspect = json_answer(engine.script.inspected(Size=3_000_000))
    _no_space(imgfs, small_tmpdir, "3.0 MB", "1.0 MB")
    assert not engine.asked[-1].endswith("/get")


def test_not_enough_space_while_it_is_saved(imgfs: Bench, engine: Engine, small_tmpdir: Path) -> None:
    engine.script.archive = Archive(layers=(*LAYERS, BIG))
    engine.script.inspect = json_answer(engine.script.inspected(Size=1_000_000))
    done = imgfs.run("mount", "--log-file", imgfs.log, *SPOOLED, small_tmpdir, "img", imgfs.mountpoint())
    assert (done.status, done.out) == (8, "")
    found = re.fullmatch(
        rf"imgfs: not enough space for img in {small_tmpdir}: need ([0-9.]+) MB, have ([0-9.]+) MB; "
        r"choose another directory with --tmpdir\n",
        done.err,
    )
    assert found, done.err
    assert float(found[1]) > float(found[2]) == 1.0


@pytest.mark.parametrize(("directory", "why"), [("missing", "No such file or directory"), ("file", "Not a directory")])
def test_a_tmpdir_that_is_none(imgfs: Bench, engine: Engine, directory: str, why: str) -> None:
    (imgfs.folder / "file").touch()
    path = imgfs.folder / directory
    assert engine.asked == []
    _fails(imgfs, 8, f"cannot write in {path}: {why}; choose another directory with --tmpdir", *SPOOLED, path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_while_the_engine_prepares_leaves_nothing(imgfs: Bench, engine: Engine, number: int) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA], gate=gate)
    process = imgfs.start("mount", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    until(lambda: engine.asked and engine.asked[-1].endswith("/get"), "the image is asked for")
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=10)
    finally:
        gate.set()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert err == ("imgfs: interrupted\n" if number == signal.SIGINT else "")
    imgfs.nothing_left()


def test_a_slow_engine_is_waited_for(imgfs: Bench, engine: Engine) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA], gate=gate)
    process = imgfs.start("mount", "-q", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    until(lambda: engine.asked and engine.asked[-1].endswith("/get"), "the image is asked for")
    assert process.poll() is None
    gate.set()
    assert (*process.communicate(timeout=10), process.returncode) == ("", "", 0)
