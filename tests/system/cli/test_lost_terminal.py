"""A terminal that goes away under a mount: with the SIGHUP that comes with it, and without."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive, layer
from tests.support.fake_engine import Answer, Engine, fake_engine, json_answer
from tests.support.mounts import COMMAND, Bench, Finished, tree
from tests.support.processes import until
from tests.support.terminals import Terminal

OWN = ("sh", "-c", 'exec "$0" "$@" <"$(tty)"', COMMAND)
"""The command as a shell starts it: the terminal is its own, and sends SIGHUP when it goes."""
DISOWNED = (COMMAND,)
"""The command as a shell leaves it behind (disown): it gets no signal, and each write to the terminal fails."""
NOHUP = ("sh", "-c", 'trap "" HUP; exec "$0" "$@" <"$(tty)"', COMMAND)
"""The command as nohup(1) starts it: the signal comes, and is ignored."""

IMAGE = Archive(layers=[layer({"big": bytes(8_000_000), "bad/../name": b"", "etc/motd": b"hello\n"})])
"""With a name that is skipped with a warning."""


@pytest.fixture(name="gate")
def gate_fixture() -> Iterator[threading.Event]:
    """What the engine waits for in the middle of the image."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture(name="engine", params=["while it prepares", "while it sends"])
def slow_engine(request: pytest.FixtureRequest, imgfs: Bench, gate: threading.Event) -> Iterator[Engine]:
    """An engine that waits for the gate before it sends anything, or in the middle."""
    data = IMAGE.data()
    with fake_engine(socket=imgfs.folder / "engine.sock") as engine:
        imgfs.environment |= {"DOCKER_HOST": engine.host, "TERM": "xterm"}
        engine.script.archive = IMAGE
        engine.script.inspect = json_answer(engine.script.inspected(Size=8_000_000))
        if request.param == "while it prepares":
            engine.script.save = Answer(parts=[data], gate=gate)
        else:
            engine.script.save = Answer(parts=[data[:4_000_000], gate, data[4_000_000:]])
        yield engine
        gate.set()


def _hangs_up(terminal: Terminal) -> None:
    """Close the window."""
    os.close(terminal.master)


def _kept(imgfs: Bench) -> list[str]:
    return sorted(path.name for path in imgfs.cache.glob("saved/*/*"))


@pytest.mark.parametrize("options", [(), ("-v",), ("-q",)])
def test_a_mount_in_the_foreground_ends_with_its_terminal(imgfs: Bench, options: tuple[str, ...]) -> None:
    archive = IMAGE.write(imgfs.folder / "image.tar")
    imgfs.command = OWN
    mountpoint = imgfs.mountpoint()
    terminal = Terminal(imgfs, "mount", "-f", *options, archive, mountpoint)
    until((mountpoint / "config").exists, "it is mounted")
    descriptor = os.open(mountpoint / "config", os.O_RDONLY)
    assert os.read(descriptor, 1 << 16) == IMAGE.config_data
    _hangs_up(terminal)
    assert terminal.process.wait(10) == 0
    imgfs.nothing_left()
    with contextlib.suppress(OSError):  # closing is a request, and nobody answers
        os.close(descriptor)


@pytest.mark.parametrize("foreground", [(), ("-f",)], ids=["background", "foreground"])
@pytest.mark.usefixtures("engine")
def test_a_terminal_that_goes_while_an_image_is_saved_ends_that(imgfs: Bench, foreground: tuple[str, ...]) -> None:
    imgfs.command = OWN
    terminal = Terminal(imgfs, "mount", *foreground, "--log-file", imgfs.log, "img", imgfs.mountpoint())
    terminal.sees("imgfs: (the engine prepares|saving) img")
    _hangs_up(terminal)
    assert terminal.process.wait(10) == -signal.SIGHUP
    imgfs.nothing_left()
    assert _kept(imgfs) == []


def _serves_to_its_end(imgfs: Bench, terminal: Terminal, mountpoint: Path) -> None:
    """Look at what warns, and end it as a user does who finds it."""
    until((mountpoint / "config").exists, "it is mounted")
    assert tree(mountpoint)["rootfs/etc/motd"] == b"hello\n"
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(10) == 0
    imgfs.nothing_left()


@pytest.mark.parametrize("options", [(), ("-v",)])
@pytest.mark.parametrize("command", [DISOWNED, NOHUP], ids=["disown", "nohup"])
def test_a_mount_that_was_told_to_outlives_its_terminal(
    imgfs: Bench, command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    archive = IMAGE.write(imgfs.folder / "image.tar")
    imgfs.command = command
    mountpoint = imgfs.mountpoint()
    terminal = Terminal(imgfs, "mount", "-f", *options, archive, mountpoint)
    terminal.sees("mounted ")
    _hangs_up(terminal)
    _serves_to_its_end(imgfs, terminal, mountpoint)


def test_a_save_that_was_disowned_goes_on_without_its_terminal(
    imgfs: Bench, engine: Engine, gate: threading.Event
) -> None:
    imgfs.command = DISOWNED
    mountpoint = imgfs.mountpoint()
    terminal = Terminal(imgfs, "mount", "-f", "img", mountpoint)
    terminal.sees("imgfs: (the engine prepares|saving) img")
    _hangs_up(terminal)
    threading.Timer(1.5, gate.set).start()  # some ticks of the progress later
    _serves_to_its_end(imgfs, terminal, mountpoint)
    assert "index" in _kept(imgfs)
    assert sum(path.endswith("/get") for path in engine.asked) == 1


def test_a_mount_in_the_background_comes_although_the_terminal_has_gone(
    imgfs: Bench, engine: Engine, gate: threading.Event
) -> None:
    imgfs.command = DISOWNED
    mountpoint = imgfs.mountpoint()
    terminal = Terminal(imgfs, "mount", "--log-file", imgfs.log, "img", mountpoint)
    terminal.sees("imgfs: (the engine prepares|saving) img")
    _hangs_up(terminal)
    threading.Timer(1.5, gate.set).start()
    assert terminal.process.wait(10) == 0
    assert (mountpoint / "config").read_bytes() == IMAGE.config_data
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    assert sum(path.endswith("/get") for path in engine.asked) == 1
