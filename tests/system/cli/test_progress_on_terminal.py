"""What somebody at a terminal sees while an engine saves an image."""

import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import overload

import pytest

from tests.support.builders import Archive, layer
from tests.support.fake_engine import Answer, Engine, fake_engine, json_answer
from tests.support.mounts import Bench, tree, without_figures
from tests.support.processes import until
from tests.support.terminals import Terminal

DATA = Archive(layers=[layer({"big": bytes(8_000_000)})])


@pytest.fixture(name="engine")
def engine_on_a_socket(imgfs: Bench) -> Iterator[Engine]:
    """Give an engine that sends nothing, and then half the image, before a gate opens."""
    with fake_engine(socket=imgfs.folder / "engine.sock") as engine:
        imgfs.environment |= {"DOCKER_HOST": engine.host, "TERM": "xterm"}
        engine.script.archive = DATA
        engine.script.inspect = json_answer(engine.script.inspected(Size=8_000_000))
        yield engine


class _Pieces(Sequence[bytes]):
    """Parts of an answer, all but the first only once the gate opens."""

    def __init__(self, pieces: Sequence[bytes], gate: threading.Event) -> None:
        self._pieces = pieces
        self._gate = gate

    def __len__(self) -> int:
        return len(self._pieces)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if index:
            self._gate.wait()
        return self._pieces[index]


def _open_later(engine: Engine, gate: threading.Event) -> None:
    """Open *gate* a second after the image is asked for, when progress is due."""
    until(lambda: engine.asked and engine.asked[-1].endswith("/get"), "the image is asked for")
    threading.Timer(1.0, gate.set).start()


def test_a_waiting_line_counts_seconds_until_the_engine_sends(imgfs: Bench, engine: Engine) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA.data()], gate=gate)
    mountpoint = imgfs.mountpoint()
    terminal = Terminal(imgfs, "mount", "--log-file", imgfs.log, "img", mountpoint)
    terminal.sees(r"\rimgfs: the engine prepares img … 1 s\x1b\[K")
    terminal.sees(r"\rimgfs: the engine prepares img … 2 s\x1b\[K")
    gate.set()
    terminal.sees(r"imgfs: mounted img on .*; log: .*\r\n")
    assert terminal.end() == 0
    # The line is wiped before the next is written: nobody reads two in one.
    assert re.search(r"\r\x1b\[K(?:\r *\r)?imgfs: mounted img on", terminal.seen)
    assert tree(mountpoint)["config"] == DATA.config_data


def test_a_bar_shows_size_rate_and_total(imgfs: Bench, engine: Engine) -> None:
    gate = threading.Event()
    data = DATA.data()
    engine.script.save = Answer(parts=_Pieces([data[:4_000_000], data[4_000_000:6_000_000], data[6_000_000:]], gate))
    terminal = Terminal(imgfs, "mount", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    _open_later(engine, gate)
    bar = terminal.sees(r"\rimgfs: saving img: +(\d+)%\|.*\| ([0-9.]+)M/8\.00M \[[0-9:]+<[0-9:?]+, .*B/s\]")
    assert 0 < int(bar[1]) < 100
    assert 0 < float(bar[2]) < 8
    terminal.sees(r"imgfs: mounted img on .*; log: .*\r\n")
    assert terminal.end() == 0


def test_quiet_shows_nothing_on_a_terminal_either(imgfs: Bench, engine: Engine) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA.data()], gate=gate)
    terminal = Terminal(imgfs, "mount", "-q", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    _open_later(engine, gate)
    assert terminal.end() == 0
    assert terminal.seen == ""


@pytest.mark.parametrize("spelled", [["--progress", "none"], ["-o", "progress=none"], ["-q", "--progress", "plain"]])
def test_no_progress_leaves_what_is_not_progress(imgfs: Bench, engine: Engine, spelled: list[str]) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA.data()], gate=gate)
    mountpoint = imgfs.mountpoint()
    terminal = Terminal(imgfs, "mount", *spelled, "--log-file", imgfs.log, "img", mountpoint)
    _open_later(engine, gate)
    assert terminal.end() == 0
    said = f"imgfs: mounted img on {mountpoint}; log: {imgfs.log}\r\n"
    assert without_figures(terminal.seen) == (
        "" if "-q" in spelled else said
    )  # who is quiet gets no progress however it is spelled


@pytest.mark.parametrize(("options", "term"), [(["--progress", "plain"], "xterm"), ([], "dumb")])
def test_plain_lines_on_a_terminal(imgfs: Bench, engine: Engine, options: list[str], term: str) -> None:
    # For a terminal that somebody records, and one that cannot wipe a line.
    imgfs.environment["TERM"] = term
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA.data()], gate=gate)
    terminal = Terminal(imgfs, "mount", *options, "--log-file", imgfs.log, "img", imgfs.mountpoint())
    gate.set()
    terminal.sees(r"imgfs: mounted img on .*; log: .*\r\n")
    assert terminal.end() == 0
    assert "\033" not in terminal.seen
    assert re.search(r"\r[^\n]", terminal.seen) is None


def test_a_look_at_an_image_takes_the_option_too(imgfs: Bench, engine: Engine) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA.data()], gate=gate)
    terminal = Terminal(imgfs, "ls", "--progress=plain", "img")
    gate.set()
    assert terminal.end() == 0
    assert terminal.seen.endswith("big\r\n")


@pytest.mark.parametrize("stdout", [None, subprocess.DEVNULL], ids=["the terminal", "elsewhere"])
def test_a_narrow_terminal_keeps_the_wait_on_one_line(imgfs: Bench, engine: Engine, stdout: int | None) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA.data()], gate=gate)
    terminal = Terminal(imgfs, "ls", "a-name-that-is-longer/than-the-line:latest", columns=40, stdout=stdout)
    line = terminal.sees(r"\r(imgfs: the engine prepares a-nam… … 1 s)\x1b\[K")
    gate.set()
    assert terminal.end() == 0
    assert len(line[1]) < 40


def test_an_error_comes_on_a_line_of_its_own(imgfs: Bench, engine: Engine) -> None:
    gate = threading.Event()
    engine.script.save = json_answer({"message": "disk on fire"}, 500)
    engine.script.save.gate = gate
    terminal = Terminal(imgfs, "mount", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    terminal.sees("the engine prepares img … 1 s")
    gate.set()
    assert terminal.end() == 3
    assert terminal.seen.endswith(f"\r\x1b[Kimgfs: the engine at {engine.host} refuses img: disk on fire\r\n")


def test_ctrl_c_while_the_engine_prepares_ends_on_a_line_of_its_own(imgfs: Bench, engine: Engine) -> None:
    gate = threading.Event()
    engine.script.save = Answer(parts=[DATA.data()], gate=gate)
    terminal = Terminal(imgfs, "mount", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    terminal.sees("the engine prepares img … 1 s")
    terminal.process.send_signal(signal.SIGINT)
    try:
        assert terminal.end() == 130
    finally:
        gate.set()
    assert terminal.seen.endswith("\r\x1b[Kimgfs: interrupted\r\n")
