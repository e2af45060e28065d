"""Where messages go."""

import logging
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.cli.output.logs import open_log, stderr_handler
from fusefs.errors import NoSpace
from tests.conftest import TakeWarnings
from tests.support.folders import new_folder
from tests.support.processes import umask_of, unprivileged


def record(level: int, message: str) -> logging.LogRecord:
    """Return a record as a module of ours logs it."""
    return logging.LogRecord("fusefs.x", level, __file__, 1, message, (), None)


@contextmanager
def log(path: str | None, environment: Mapping[str, str] | None = None) -> Iterator[logging.Handler]:
    """Open a log for as long as the block takes."""
    handler = open_log(path, environment or {})
    try:
        yield handler
    finally:
        handler.close()


@pytest.fixture
def syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where syslog would be; nobody listens there yet."""
    path = tmp_path / "syslog"
    monkeypatch.setattr("fusefs.cli.output.logs._SYSLOG", str(path))
    return path


@pytest.fixture(name="home")
def users_home() -> Iterator[Path]:
    """Be a user and not root, whose home this is."""
    folder = new_folder("home", 0o777)
    try:
        with unprivileged():
            home = folder / "home"
            home.mkdir()
            yield home
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("level", "line"),
    [
        (logging.INFO, "imgfs: hello\n"),
        (logging.WARNING, "imgfs: warning: hello\n"),
        (logging.ERROR, "imgfs: error: hello\n"),
    ],
)
def test_who_waits_gets_one_line(capsys: pytest.CaptureFixture[str], level: int, line: str) -> None:
    stderr_handler(logging.INFO).handle(record(level, "hello"))
    assert capsys.readouterr() == ("", line)


def test_who_waits_gets_no_less_important_lines() -> None:
    assert stderr_handler(logging.WARNING).level == logging.WARNING


def test_a_log_file_is_ours_alone_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "imgfs.log"
    for message in ("one", "two é\udcff"):
        with log(str(path)) as handler:
            assert handler.name == str(path)
            handler.handle(record(logging.WARNING, message))
    assert path.stat().st_mode & 0o777 == 0o600
    first, second = path.read_text(encoding="utf-8").splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(rf"{stamp} imgfs\[{os.getpid()}\]: WARNING: one", first)
    assert re.fullmatch(rf"{stamp} imgfs\[{os.getpid()}\]: WARNING: two é\\udcff", second)


def test_a_log_file_is_not_inherited(tmp_path: Path) -> None:
    with log(str(tmp_path / "log")) as handler:
        assert isinstance(handler, logging.StreamHandler)
        assert not os.get_inheritable(handler.stream.fileno())


def test_the_name_of_a_log_file_is_safe_to_show(tmp_path: Path) -> None:
    with log(f"{tmp_path}/\x1b[2J") as handler:
        assert handler.name == f"{tmp_path}/\\x1b[2J"


@pytest.mark.parametrize(("path", "reason"), [("gone/log", "No such file or directory"), (".", "Is a directory")])
def test_a_log_file_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoSpace) as caught:
        open_log(path, {})
    assert str(caught.value) == f"cannot write the log {path}: {reason}; choose another file with --log-file"


def test_without_a_file_it_is_syslog_if_that_listens(syslog: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(syslog))
        daemon.settimeout(20)
        with log(None) as handler:
            assert handler.name == "syslog"
            handler.handle(record(logging.WARNING, "hello"))
            # Facility daemon (3), severity warning (4): RFC 3164, 4.1.1.
            assert daemon.recv(1000).rstrip(b"\0").decode() == f"<28>imgfs[{os.getpid()}]: WARNING: hello"


@pytest.mark.parametrize("stale", [True, False])
def test_without_syslog_it_is_a_file_in_the_users_state_folder(
    monkeypatch: pytest.MonkeyPatch, home: Path, *, stale: bool
) -> None:
    syslog = home / "syslog"
    monkeypatch.setattr("fusefs.cli.output.logs._SYSLOG", str(syslog))
    if stale:  # a socket that nobody has bound any more
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(str(syslog))
    state = home / "a" / "state"
    with log(None, {"XDG_STATE_HOME": str(state), "HOME": "/nonexistent"}) as handler:
        assert handler.name == str(state / "imgfs" / "imgfs.log")
    assert {oct(path.stat().st_mode & 0o777) for path in (state.parent, state, state / "imgfs")} == {"0o700"}


@pytest.mark.usefixtures("syslog")
@pytest.mark.parametrize("variables", [{}, {"XDG_STATE_HOME": ""}])
def test_the_state_folder_is_in_the_home_if_nothing_else_is_said(home: Path, variables: dict[str, str]) -> None:
    with log(None, {"HOME": str(home), **variables}) as handler:
        assert handler.name == str(home / ".local" / "state" / "imgfs" / "imgfs.log")


@pytest.mark.usefixtures("syslog")
def test_root_logs_in_var_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("fusefs.cli.output.logs._STATE_OF_ROOT", str(tmp_path / "imgfs"))
    with log(None, {"HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent"}) as handler:
        assert handler.name == str(tmp_path / "imgfs" / "imgfs.log")


def _file(folder: Path) -> None:
    (folder / "imgfs").write_bytes(b"")


def _open_to_others(folder: Path) -> None:
    (folder / "imgfs").mkdir()
    (folder / "imgfs").chmod(0o770)


def _link(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "imgfs").symlink_to("other")


def _closed(folder: Path) -> None:
    folder.chmod(0o500)


_FOREIGN = "its directory is a symbolic link, or others may write there"


@pytest.mark.usefixtures("syslog")
@pytest.mark.parametrize(
    ("arrange", "why"),
    [
        (_file, "Not a directory"),
        (_open_to_others, _FOREIGN),
        (_link, _FOREIGN),
        (_closed, "Permission denied"),
    ],
)
def test_a_default_log_that_cannot_be_written_is_a_warning(
    home: Path, take_warnings: TakeWarnings, arrange: Callable[[Path], None], why: str
) -> None:
    arrange(home)
    with log(None, {"XDG_STATE_HOME": str(home)}) as handler:
        assert handler.name is None
        handler.handle(record(logging.ERROR, "lost"))
    (said,) = take_warnings()
    assert said == (
        f"continuing without a log: cannot write the log {home}/imgfs/imgfs.log: {why}; "
        "choose another file with --log-file"
    )


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_a_new_log_file_is_private_whatever_the_umask_is(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "log"
    with umask_of(umask), log(str(path)):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_mode_of_an_old_log_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    path.chmod(0o640)
    with log(str(path)):
        assert path.stat().st_mode & 0o777 == 0o640


def test_links_pipes_and_sockets_are_no_log_files(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("new")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "read")
    reader = os.open(tmp_path / "read", os.O_RDONLY | os.O_NONBLOCK)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        reasons = {}
        for name in ("link", "dangling", "pipe", "read", "socket"):
            with pytest.raises(NoSpace) as caught:
                open_log(f"{tmp_path}/{name}", {})
            reasons[name] = str(caught.value).removeprefix(f"cannot write the log {tmp_path}/{name}: ").split(";")[0]
    os.close(reader)
    assert set(reasons.values()) == {"it is a symbolic link", "it is not a regular file"}
    assert {name for name, why in reasons.items() if "link" in why} == {"link", "dangling"}
    assert sorted(os.listdir(tmp_path)) == ["dangling", "link", "pipe", "read", "socket", "victim"]


@pytest.mark.parametrize(("path", "descriptor"), [("/dev/stdout", 1), ("/dev/stderr", 2)])
def test_the_streams_of_the_process_are_log_files_even_as_pipes(path: str, descriptor: int) -> None:
    original = os.dup(descriptor)
    reader, writer = os.pipe()
    os.dup2(writer, descriptor)
    os.close(writer)
    try:
        with log(path) as handler:
            handler.handle(record(logging.ERROR, "hello"))
        assert os.read(reader, 1000).endswith(b"ERROR: hello\n")
    finally:
        os.dup2(original, descriptor)
        os.close(original)
        os.close(reader)


def test_nothing_is_logged_on_request() -> None:
    with log("/dev/null") as handler:
        handler.handle(record(logging.ERROR, "lost"))


def test_messages_go_to_the_stderr_of_now(capsys: pytest.CaptureFixture[str]) -> None:
    handler = stderr_handler(logging.INFO)
    assert isinstance(handler, logging.StreamHandler)
    assert handler.stream is sys.stderr
    assert capsys.readouterr() == ("", "")
