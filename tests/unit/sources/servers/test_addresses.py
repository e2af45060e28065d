"""A host with several addresses, some of which are silent."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fusefs.errors import RegistryError
from fusefs.sources.servers import early
from tests.support.answers import silent
from tests.unit.sources.registry.clients import client, manifest

Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]


def at(server: socket.socket) -> Found:
    """Return what a lookup finds for *server*."""
    return socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname()


@pytest.fixture(name="mute")
def mute_fixture() -> Iterator[Found]:
    """Give an address that answers nothing, as a host that is switched off: its queue is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield at(server)


def found(monkeypatch: pytest.MonkeyPatch, *addresses: Found) -> None:
    """Let each name have these *addresses*."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [*addresses])


def test_silent_addresses_have_one_time_together(monkeypatch: pytest.MonkeyPatch, mute: Found) -> None:
    found(monkeypatch, *[mute] * 8)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        early.connect(("registry.example.com", 1), 0.4)
    assert 0.4 <= time.monotonic() - began < 2


@pytest.mark.parametrize("insecure", [True, False])
def test_the_timeout_is_that_of_all_addresses(monkeypatch: pytest.MonkeyPatch, mute: Found, *, insecure: bool) -> None:
    found(monkeypatch, *[mute] * 8)
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"timed out$"):
        manifest(client("localhost:1", timeout=0.5, insecure=insecure))
    assert time.monotonic() - began < 3


def test_a_silent_address_leaves_time_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch, mute: Found, server: socket.socket
) -> None:
    monkeypatch.setattr(early, "_ADDRESS", 0.1)
    found(monkeypatch, mute, mute, at(server))
    began = time.monotonic()
    with early.connect(("registry.example.com", 1), 3.0) as made:
        assert made.getpeername() == server.getsockname()
        took = time.monotonic() - began
        assert 1.5 < took < 3
        assert 0 < (made.gettimeout() or 0) <= 3 - took + 0.1


def test_each_of_many_addresses_has_some_time(
    monkeypatch: pytest.MonkeyPatch, mute: Found, server: socket.socket
) -> None:
    monkeypatch.setattr(early, "_ADDRESS", 0.3)
    found(monkeypatch, mute, at(server), *[mute] * 50)
    began = time.monotonic()
    early.connect(("registry.example.com", 1), 3.0).close()
    assert 0.3 <= time.monotonic() - began < 3


def test_an_address_that_refuses_takes_no_time(monkeypatch: pytest.MonkeyPatch, server: socket.socket) -> None:
    gone = socket.create_server(("127.0.0.1", 0))
    refused = at(gone)
    gone.close()
    unknown = (socket.AddressFamily.AF_UNSPEC, *refused[1:])
    found(monkeypatch, unknown, refused, at(server))
    early.connect(("registry.example.com", 1), 5.0).close()
    found(monkeypatch, refused, unknown)
    with pytest.raises(OSError, match=r".") as raised:
        early.connect(("registry.example.com", 1), 5.0)
    assert not isinstance(raised.value, TimeoutError)
    found(monkeypatch)
    with pytest.raises(OSError, match=r"."):
        early.connect(("registry.example.com", 1), 5.0)


def test_connecting_and_the_answer_have_one_time_together(monkeypatch: pytest.MonkeyPatch, mute: Found) -> None:
    with silent() as answers_nothing:
        name, port = answers_nothing.host.split(":")
        found(monkeypatch, mute, (*mute[:4], (name, int(port))))
        monkeypatch.setattr(early, "_ADDRESS", 0.1)
        began = time.monotonic()
        with pytest.raises(RegistryError, match=r"timed out$"):
            manifest(client("registry.example.com", timeout=2.0, insecure=True))
        assert time.monotonic() - began < 2.8


def test_looking_up_a_name_is_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: ended.wait(20))
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            early.connect(("registry.example.com", 1), 0.3)
        with pytest.raises(RegistryError, match=r"registry\.example\.com: timed out$"):
            manifest(client("registry.example.com", timeout=0.5))
        assert 0.8 <= time.monotonic() - began < 3
    finally:
        ended.set()


def test_a_name_that_does_not_exist_is_told_also_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(socket.gaierror, match="Name or service not known"):
        early.connect(("registry.example.com", 1), 5.0)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(socket.gaierror, match="Name or service not known"):
        early.connect(("registry.example.com", 1), 5.0)


@pytest.mark.parametrize(("seconds", "unheard"), [(10.0, 5000), (6.0, 3000), (0.5, 2000)])
def test_a_connection_of_which_the_network_confirms_nothing_fails_soon(
    server: socket.socket, seconds: float, unheard: int
) -> None:
    with early.connect(server.getsockname(), seconds) as made:
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == unheard
