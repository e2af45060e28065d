"""A connection that is begun before anything is asked."""

import errno
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import urllib3

from fusefs.errors import RegistryError, UsageError
from fusefs.sources.reasons import reason
from fusefs.sources.servers import early
from fusefs.sources.servers.connections import _Connection, _Pool
from fusefs.sources.servers.early import _begun, connect_early, connection, drop
from fusefs.sources.tls import Tls
from tests.support.processes import until
from tests.unit.sources.registry.clients import MANIFEST, client, manifest
from tests.unit.sources.servers.listening import host_of


def _no_tls() -> Tls:
    raise UsageError("it speaks plain HTTP")


def _is_ended(connection: socket.socket) -> bool:
    connection.settimeout(5)
    return connection.recv(1) == b""


def test_the_first_request_is_sent_on_it(server: socket.socket) -> None:
    connect_early(host_of(server), None, {}, _no_tls)
    theirs, _ = server.accept()
    received: list[bytes] = []

    def answer() -> None:
        received.append(theirs.recv(1 << 16))
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MANIFEST), MANIFEST))

    with theirs:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert _Pool("127.0.0.1", server.getsockname()[1], timeout=5.0).urlopen("GET", "/v2/").data == MANIFEST
        thread.join(5)
        assert received[0].startswith(b"GET /v2/")
    server.settimeout(0)
    with pytest.raises(BlockingIOError):  # there was no second one
        server.accept()


def test_a_connection_to_another_host_is_closed(server: socket.socket) -> None:
    connect_early(host_of(server), None, {}, _no_tls)
    theirs, _ = server.accept()
    with theirs:
        assert connection("127.0.0.1", 1, None) is None
        assert _is_ended(theirs)


def test_a_connection_that_nobody_needs_is_closed(server: socket.socket) -> None:
    connect_early(host_of(server), None, {}, _no_tls)
    theirs, _ = server.accept()
    with theirs:
        drop()
        assert _is_ended(theirs)


def test_one_that_is_closed_before_it_is_there_is_closed_then(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, connect = threading.Event(), early.connect

    def slow(*arguments: Any) -> socket.socket:
        may_go_on.wait(5)
        return connect(*arguments)

    monkeypatch.setattr(early, "connect", slow)
    connect_early(host_of(server), None, {}, _no_tls)
    drop()
    may_go_on.set()
    theirs, _ = server.accept()
    with theirs:
        assert _is_ended(theirs)


def test_one_that_the_host_has_closed_meanwhile_is_not_used(server: socket.socket) -> None:
    connect_early(host_of(server), None, {}, _no_tls)
    server.accept()[0].close()
    until(lambda: bool(_begun[0]._made and _is_readable(_begun[0]._made)), "the end has arrived")
    assert connection("127.0.0.1", server.getsockname()[1], None) is None


def _is_readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def test_its_settings_are_those_of_any_connection(server: socket.socket) -> None:
    connect_early(host_of(server), None, {}, _no_tls)
    made = _Connection("127.0.0.1", server.getsockname()[1], timeout=3.0)._new_conn()
    with made:
        assert (made.gettimeout(), made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == (3.0, 1)
        assert not _begun


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError("timed out"), "timed out"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
    ],
)
def test_an_error_is_the_same_and_nothing_is_waited_for_twice(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    asked = list[float]()

    def connect(_: object, seconds: float) -> socket.socket:
        asked.append(seconds)
        raise error

    monkeypatch.setattr(early, "connect", connect)
    connect_early(host_of(server), 0.2, {}, _no_tls)
    with pytest.raises(urllib3.exceptions.HTTPError) as raised:
        _Connection("127.0.0.1", server.getsockname()[1], timeout=3.0)._new_conn()
    assert (reason(raised.value), asked) == (said, [0.2])


def test_the_limit_of_the_user_counts_if_it_is_the_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[float]()

    def connect(_: object, seconds: float) -> socket.socket:
        asked.append(seconds)
        raise OSError

    monkeypatch.setattr(early, "connect", connect)
    for number, timeout in enumerate((None, 60.0, 2.0), 1):
        connect_early(f"127.0.0.1:{number}", timeout, {}, _no_tls)
        until(lambda number=number: len(asked) == number, "it is asked for")  # type: ignore[misc]
    assert asked == [10.0, 10.0, 2.0]


@pytest.mark.parametrize(
    ("before", "digest", "mirror", "said"),
    [
        ("", "", "", "False (b'127.0.0.1', 1) 10.0\n"),
        ("", f"@sha256:{'0' * 64}", "", "False (b'127.0.0.1', 1) 10.0\n"),
        ("import urllib3", f"@sha256:{'0' * 64}", "", ""),
        ("", "", '[[registry]]\nlocation = "127.0.0.1:1"\n[[registry.mirror]]\nlocation = "127.0.0.1:2"\n', ""),
    ],
)
def test_the_first_image_of_a_process_has_one_before_the_client_is_imported(
    tmp_path: Path, before: str, digest: str, mirror: str, said: str
) -> None:
    program = f"""
import sys, threading
from fusefs.sources.servers import early
{before}
def connect(*arguments):
    if threading.current_thread().name == "connect":
        print("urllib3" in sys.modules, *arguments)
    raise ConnectionRefusedError(111, "refused")
early.connect = connect
from fusefs.cli import main
sys.argv = ["imgfs", "inspect", "--no-cache", "docker://127.0.0.1:1/app{digest}"]
sys.exit(main())
"""
    configuration = tmp_path / "registries.conf"
    configuration.write_text(mirror)
    environment = os.environ | {"CONTAINERS_REGISTRIES_CONF": str(configuration)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (3, said), done.stderr


def test_a_failure_counts_for_the_first_request_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = threading.Event()

    def connect(*_: object) -> socket.socket:
        tried.set()
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    folder = tmp_path / "containers" / "certs.d" / "registry.example.com"
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text("nonsense")
    monkeypatch.setattr(early, "connect", connect)
    connect_early("registry.example.com", None, {}, _no_tls)
    assert tried.wait(5)
    with pytest.raises(UsageError, match="certificates"):
        manifest(client("registry.example.com", insecure=False, XDG_CONFIG_HOME=str(tmp_path)))
    assert not _begun


def test_a_host_that_refuses_is_named() -> None:
    connect_early("127.0.0.1:1", None, {}, _no_tls)
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1: Connection refused"):
        manifest(client("127.0.0.1:1", timeout=0.2))


@pytest.mark.parametrize("name", ["https_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_connects_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[bytes, int]]()

    def connect(address: tuple[bytes, int], *_: float) -> socket.socket:
        asked.append(address)
        raise OSError("refused")

    monkeypatch.setattr(early, "connect", connect)
    connect_early("registry.example.com", None, {name: "http://proxy.example.com:3128"}, _no_tls)
    assert connection("registry.example.com", 443, None) is None
    for host in ("127.0.0.1:5000", "[::1]:5000", "localhost"):
        connect_early(host, None, {name: "http://proxy.example.com:3128"}, _no_tls)
    connect_early("Registry.example.com", None, {name: ""}, _no_tls)
    with pytest.raises(OSError, match=r"^refused$"):
        connection("registry.example.com", 443, None)
    until(lambda: len(asked) == 4, "all are asked")
    assert sorted(asked) == [(b"127.0.0.1", 5000), (b"::1", 5000), (b"localhost", 443), (b"registry.example.com", 443)]


def test_where_no_connection_can_be_begun_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1:65536", "127.0.0.1:99999999", "[::1", "example.com:0x1"):
        connect_early(host, None, {}, _no_tls)
        assert connection("127.0.0.1", 443, None) is None

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    connect_early("127.0.0.1:1", None, {}, _no_tls)
    assert connection("127.0.0.1", 1, None) is None


def test_two_processes_do_not_talk_on_one_connection(server: socket.socket) -> None:
    connect_early(host_of(server), None, {}, _no_tls)
    theirs, _ = server.accept()
    with theirs:
        child = os.fork()
        if child == 0:
            found = connection("127.0.0.1", server.getsockname()[1], None)
            os._exit(0 if found is None else 1)
        assert os.waitpid(child, 0)[1] == 0
        made = connection("127.0.0.1", server.getsockname()[1], None)
        assert made is not None
        with made:
            made.sendall(b"x")
            assert theirs.recv(1) == b"x"


def test_a_child_has_none_even_if_the_client_was_never_imported() -> None:
    program = """
import os, socket, time
from fusefs.errors import UsageError
from fusefs.sources.servers import early
def find():
    raise UsageError("none")
server = socket.create_server(("127.0.0.1", 0))
early.connect_early(f"127.0.0.1:{server.getsockname()[1]}", None, {}, find)
time.sleep(0.1)
child = os.fork()
if child == 0:
    os._exit(len(early._begun))
assert os.waitpid(child, 0)[1] == 0
assert len(early._begun) == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


def test_one_that_has_begun_is_not_begun_again(server: socket.socket) -> None:
    connect_early(host_of(server), None, {}, _no_tls)
    first = _begun[0]
    connect_early(host_of(server), None, {}, _no_tls)
    assert _begun == [first]
    connect_early("127.0.0.1:1", None, {}, _no_tls)
    assert len(_begun) == 1
    assert _begun[0] is not first


@pytest.mark.parametrize("host", ["b\xfccher.example", f"{'a' * 64}.example", "a..example", ".example", "[]"])
def test_a_name_that_no_host_can_have_is_not_looked_for(host: str) -> None:
    connect_early(host, None, {}, _no_tls)
    assert not _begun


def test_many_threads_may_begin_and_drop_at_the_same_time(server: socket.socket) -> None:
    raised = list[BaseException | None]()

    def work() -> None:
        for _ in range(20):
            connect_early(host_of(server), None, {}, _no_tls)
            connection("127.0.0.1", 1, None)
            drop()

    with mock.patch.object(threading, "excepthook", lambda hook: raised.append(hook.exc_value)):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert raised == []
    assert not _begun
