"""Engines that take their time: which is waited for, and for how long."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from fusefs.sources.settings import timeout_named
from tests.support.builders import LAYERS, Archive, layer
from tests.support.fake_engine import Answer, Engine, Script, fake_engine, json_answer
from tests.support.mounts import Bench, Finished
from tests.support.processes import until

LARGE = Archive(layers=(*LAYERS, layer({"big": bytes(range(256)) * 8192})))
DATA = LARGE.data()
_ESTABLISHED = "01"
PATIENCE = ("--timeout", "0.7")


@pytest.fixture(name="engine", params=["unix", "tcp"])
def engine_with_and_without_the_sdk(imgfs: Bench, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Give an honest engine: over a unix socket the SDK is not needed."""
    with fake_engine(socket=imgfs.folder / "engine.sock" if request.param == "unix" else None) as engine:
        engine.script.archive = LARGE
        imgfs.environment["DOCKER_HOST"] = engine.host
        yield engine


@pytest.fixture(name="gate")
def event_that_nobody_waits_for_in_the_end() -> Iterator[threading.Event]:
    """Give an event."""
    gate = threading.Event()
    yield gate
    gate.set()


def _fails(imgfs: Bench, message: str, *words: str) -> None:
    """Assert that the command ends so, and leaves nothing."""
    assert imgfs.run(*words) == Finished(3, "", f"imgfs: {message}\n")
    imgfs.nothing_left()
    assert not imgfs.cache.exists() or not [*imgfs.cache.glob("saved/*/*")]


def _mounting(imgfs: Bench) -> Sequence[str]:
    return ("mount", "-q", "--log-file", str(imgfs.log), "img", str(imgfs.mountpoint()))


@pytest.mark.parametrize("headers_first", [False, True])
def test_the_first_byte_may_take_as_long_as_it_takes(
    imgfs: Bench, engine: Engine, gate: threading.Event, *, headers_first: bool
) -> None:
    engine.script.save = Answer(parts=[gate, DATA], unframed=True) if headers_first else Answer(parts=[DATA], gate=gate)
    process = imgfs.start(*_mounting(imgfs), *PATIENCE)
    until(lambda: engine.asked and engine.asked[-1].endswith("/get"), "the image is asked for")
    with pytest.raises(TimeoutExpired):
        process.wait(1.2)
    gate.set()
    assert (*process.communicate(timeout=20), process.returncode) == ("", "", 0)


@pytest.mark.parametrize("unframed", [False, True])
def test_a_save_that_stalls_is_given_up(imgfs: Bench, engine: Engine, gate: threading.Event, *, unframed: bool) -> None:
    engine.script.save = Answer(parts=[DATA[:1_500_000], gate, DATA[1_500_000:]], unframed=unframed)
    said = f"the engine at {engine.host} sent nothing of img for 0.7 s after 1.0 MB; --timeout waits longer"
    _fails(imgfs, said, *_mounting(imgfs), *PATIENCE)


def test_a_save_that_stalls_after_its_first_byte_is_given_up(
    imgfs: Bench, engine: Engine, gate: threading.Event
) -> None:
    engine.script.save = Answer(parts=[DATA[:1], gate])
    said = f"the engine at {engine.host} sent nothing of img for 0.7 s after 0.0 MB; --timeout waits longer"
    _fails(imgfs, said, *_mounting(imgfs), "-o", "timeout=0.7")


def test_looks_without_a_mount_do_not_wait_either(imgfs: Bench, engine: Engine, gate: threading.Event) -> None:
    engine.script.save = Answer(parts=[DATA[:1], gate])
    said = f"the engine at {engine.host} sent nothing of img for 0.7 s after 0.0 MB; --timeout waits longer"
    _fails(imgfs, said, "ls", "-q", *PATIENCE, "--no-cache", "img")


def test_an_engine_that_does_not_say_what_the_image_is(imgfs: Bench, engine: Engine, gate: threading.Event) -> None:
    engine.script.inspect = replace(json_answer(engine.script.inspected()), gate=gate)
    said = f"the engine at {engine.host} did not answer within 0.7 s; --timeout waits longer"
    _fails(imgfs, said, *_mounting(imgfs), *PATIENCE)


def test_an_engine_that_does_not_say_it_to_the_end(imgfs: Bench, engine: Engine, gate: threading.Event) -> None:
    engine.script.inspect = Answer(parts=[b'{"Id":', gate])
    said = f"the engine at {engine.host} did not answer within 0.7 s; --timeout waits longer"
    _fails(imgfs, said, *_mounting(imgfs), *PATIENCE)


def test_an_engine_that_does_not_say_why_it_refuses(imgfs: Bench, engine: Engine, gate: threading.Event) -> None:
    engine.script.save = Answer(500, [b'{"message":', gate])
    said = f"the engine at {engine.host} sent nothing of img for 0.7 s after 0.0 MB; --timeout waits longer"
    _fails(imgfs, said, *_mounting(imgfs), *PATIENCE)


def test_an_engine_that_does_not_say_which_api_it_speaks(imgfs: Bench, gate: threading.Event) -> None:
    with fake_engine() as engine:
        engine.script.version = replace(engine.script.version, gate=gate)
        said = f"the engine at {engine.host} did not answer within 0.7 s; --timeout waits longer"
        _fails(imgfs, said, *_mounting(imgfs), *PATIENCE, "-H", engine.host)


def _is_probed(engine: Engine) -> bool:
    """Return whether the system runs the timer of probes (proc(5): 2) for the one connection to *engine*."""
    port = f":{int(engine.host.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (timer,) = (fields[5] for fields in lines if fields[2].endswith(port) and fields[3] == _ESTABLISHED)
    return timer.startswith("02:")


@pytest.mark.parametrize(("seconds", "probed"), [("60", True), ("999999", True), ("0", False)])
def test_a_machine_that_has_gone_is_noticed_while_its_engine_prepares(
    imgfs: Bench, gate: threading.Event, seconds: str, *, probed: bool
) -> None:
    with fake_engine(Script(LARGE, save=Answer(parts=[DATA], gate=gate))) as engine:
        process = imgfs.start(*_mounting(imgfs), "-H", engine.host, "--timeout", seconds)
        until(lambda: engine.asked and engine.asked[-1].endswith("/get"), "the image is asked for")
        until(lambda: _is_probed(engine) == probed, "the connection is probed, or not")
        gate.set()
        assert (*process.communicate(timeout=20), process.returncode) == ("", "", 0)


def _slowly(data: bytes) -> Iterator[bytes]:
    for start in (0, 100, 200):
        yield data[start : start + 100]
        threading.Event().wait(0.4)
    yield data[300:]


def test_a_slow_stream_is_no_stalled_one(imgfs: Bench, engine: Engine) -> None:
    engine.script.save = Answer(parts=_slowly(DATA))
    assert imgfs.run(*_mounting(imgfs), *PATIENCE) == Finished(0, "", "")


@pytest.mark.parametrize(("asked", "seconds"), [(None, 60.0), (0.0, None), (0.5, 0.5)])
def test_the_time_is_a_minute_unless_told_and_zero_is_for_ever(asked: float | None, seconds: float | None) -> None:
    assert timeout_named(asked) == seconds
