"""A connection that is begun before anything is asked."""

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fusefs.errors import RegistryError
from fusefs.sources.servers.early import connect_early, drop_early, early_connection
from tests.support.processes import until
from tests.unit.sources.registry.clients import MANIFEST, client, manifest


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    drop_early()


@pytest.fixture(name="server")
def listening() -> Iterator[socket.socket]:
    """Give a server that accepts nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


def _host(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def _is_ended(connection: socket.socket) -> bool:
    connection.settimeout(5)
    return connection.recv(1) == b""


def test_the_first_request_is_sent_on_it(server: socket.socket) -> None:
    connect_early(_host(server), {})
    theirs, _ = server.accept()
    body = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MANIFEST), MANIFEST)
    with theirs:
        theirs.sendall(body)
        assert manifest(client(_host(server))) == MANIFEST
        assert theirs.recv(1 << 16).startswith(b"GET /v2/")
    server.settimeout(0)
    with pytest.raises(BlockingIOError):  # there was no second one
        server.accept()


def test_a_connection_to_another_host_is_closed(server: socket.socket) -> None:
    connect_early(_host(server), {})
    theirs, _ = server.accept()
    with theirs:
        assert early_connection("127.0.0.1", 1, 5.0) is None
        assert _is_ended(theirs)


def test_a_connection_that_nobody_needs_is_closed(server: socket.socket) -> None:
    connect_early(_host(server), {})
    theirs, _ = server.accept()
    with theirs:
        drop_early()
        assert _is_ended(theirs)


def test_one_that_is_closed_before_it_is_there_is_closed_then(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, connect = threading.Event(), socket.create_connection

    def slow(*arguments: Any) -> socket.socket:
        may_go_on.wait(5)
        return connect(*arguments)

    monkeypatch.setattr(socket, "create_connection", slow)
    connect_early(_host(server), {})
    with pytest.raises(TimeoutError):
        early_connection("127.0.0.1", server.getsockname()[1], 0.01)
    may_go_on.set()
    theirs, _ = server.accept()
    with theirs:
        assert _is_ended(theirs)


def test_a_host_that_is_silent_is_not_waited_for_twice(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def connect(*_: object) -> socket.socket:
        ended.wait(5)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", connect)
    connect_early(_host(server), {})
    try:
        with pytest.raises(RegistryError, match=f"cannot reach the registry {_host(server)}: timed out"):
            manifest(client(_host(server), timeout=0.3))
    finally:
        ended.set()


def test_a_host_that_refuses_is_asked_again_for_the_reason() -> None:
    connect_early("127.0.0.1:1", {})
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1: Connection refused"):
        manifest(client("127.0.0.1:1", timeout=0.2))


@pytest.mark.parametrize("name", ["https_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_connects_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[str, int]]()

    def connect(address: tuple[str, int], *_: float) -> socket.socket:
        asked.append(address)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", connect)
    connect_early("registry.example.com", {name: "http://proxy.example.com:3128"})
    assert early_connection("registry.example.com", 443, 5.0) is None
    for host in ("127.0.0.1:5000", "[::1]:5000", "localhost"):
        connect_early(host, {name: "http://proxy.example.com:3128"})
    connect_early("Registry.example.com", {name: ""})
    assert early_connection("registry.example.com", 443, 5.0) is None
    until(lambda: len(asked) == 4, "all are asked")
    assert sorted(asked) == [("127.0.0.1", 5000), ("::1", 5000), ("localhost", 443), ("registry.example.com", 443)]


def test_where_no_connection_can_be_begun_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1:65536", "127.0.0.1:99999999", "[::1", "example.com:0x1"):
        connect_early(host, {})
        assert early_connection("127.0.0.1", 443, 5.0) is None

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    connect_early("127.0.0.1:1", {})
    assert early_connection("127.0.0.1", 1, 5.0) is None


def test_two_processes_do_not_talk_on_one_connection(server: socket.socket) -> None:
    connect_early(_host(server), {})
    theirs, _ = server.accept()
    with theirs:
        child = os.fork()
        if child == 0:
            found = early_connection("127.0.0.1", server.getsockname()[1], 5.0)
            os._exit(0 if found is None else 1)
        assert os.waitpid(child, 0)[1] == 0
        made = early_connection("127.0.0.1", server.getsockname()[1], 5.0)
        assert made is not None
        with made:
            made.sendall(b"x")
            assert theirs.recv(1) == b"x"
