"""The handshake of a connection that is begun before anything is asked."""

import errno
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
import urllib3

from fusefs.errors import UsageError
from fusefs.image.model import Traffic
from fusefs.sources.servers.connections import ConnectionFailed, Connections, Limits
from fusefs.sources.servers.early import PROTOCOLS, _begun, connect_early, drop
from fusefs.sources.tls import Tls
from tests.support.certificates import Authority
from tests.support.processes import until
from tests.unit.sources.servers.listening import host_of


@pytest.fixture(name="authority", scope="module")
def issuing(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority."""
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(name="encrypted", scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    """Give the TLS context of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", server=True))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _trusting(authority: Authority) -> Tls:
    return Tls(None, None, verify=True, more=(authority.ca,))


def _connections(tls: Tls) -> Connections:
    return Connections(lambda _: tls, {}, Traffic())


class _Server(threading.Thread):
    """Answers one connection."""

    def __init__(self, server: socket.socket, context: ssl.SSLContext, answer: bytes = b"") -> None:
        super().__init__(daemon=True)
        self._server, self._context, self._answer = server, context, answer
        self.protocol: str | None = None
        self.received = b""
        self.start()

    def run(self) -> None:
        with suppress(OSError), self._server.accept()[0] as theirs:
            theirs.settimeout(5)
            with self._context.wrap_socket(theirs, server_side=True) as made:
                self.protocol = made.selected_alpn_protocol()
                self.received = made.recv(1 << 16)
                made.sendall(self._answer)


_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("name", ["127.0.0.1", "LOCALHOST"])
def test_its_handshake_is_made_before_the_first_request(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext, name: str
) -> None:
    tls, host = _trusting(authority), f"{name}:{server.getsockname()[1]}"
    theirs = _Server(server, encrypted, _OK)
    connect_early(host, None, {}, lambda: tls)
    until(lambda: theirs.protocol is not None, "the handshake is made")
    answer = _connections(tls).request("GET", f"https://{host}/v2/", {}, Limits(5.0))
    theirs.join(5)
    assert (answer.document(9), theirs.protocol) == (b"ok", "http/1.1")
    assert theirs.received.startswith(b"GET /v2/")
    server.settimeout(0)
    with pytest.raises(BlockingIOError):  # there was no second one
        server.accept()


def test_the_next_connection_makes_a_handshake_of_its_own(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext
) -> None:
    tls = _trusting(authority)
    connections, url = _connections(tls), f"https://{host_of(server)}/v2/"
    connect_early(host_of(server), None, {}, lambda: tls)
    for _ in range(3):
        theirs = _Server(server, encrypted, _OK)
        assert connections.request("GET", url, {}, Limits(5.0)).document(9) == b"ok"
        theirs.join(5)


def test_it_states_the_protocols_that_the_client_states() -> None:
    assert PROTOCOLS == urllib3.util.ssl_.ALPN_PROTOCOLS


def test_a_certificate_that_is_not_trusted_fails_as_later(
    server: socket.socket, encrypted: ssl.SSLContext, tmp_path: Path
) -> None:
    tls = Tls(None, None, verify=True, more=(Authority(tmp_path / "other").ca,))
    failed = list[ConnectionFailed]()
    for is_early in (True, False):
        if is_early:
            connect_early(host_of(server), None, {}, lambda: tls)
        theirs = _Server(server, encrypted)
        with pytest.raises(ConnectionFailed) as raised:
            _connections(tls).request("GET", f"https://{host_of(server)}/v2/", {}, Limits(5.0))
        theirs.join(5)
        failed.append(raised.value)
    assert [(str(each), each.untrusted, each.refused) for each in failed] == [(str(failed[1]), True, False)] * 2


def test_a_name_that_the_certificate_does_not_have_is_refused(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext
) -> None:
    tls, host = _trusting(authority), f"127.0.0.2:{server.getsockname()[1]}"
    with socket.create_server(("127.0.0.2", 0)) as other:
        other.settimeout(5)
        host = f"127.0.0.2:{other.getsockname()[1]}"
        theirs = _Server(other, encrypted)
        connect_early(host, None, {}, lambda: tls)
        with pytest.raises(ConnectionFailed, match=r"not valid for '127\.0\.0\.2'"):
            _connections(tls).request("GET", f"https://{host}/v2/", {}, Limits(5.0))
        theirs.join(5)
        assert theirs.received == b""


@pytest.mark.parametrize("sent", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_server_without_tls_fails_as_later(server: socket.socket, authority: Authority, sent: bytes) -> None:
    tls, failed = _trusting(authority), list[tuple[str, bool, bool, bool]]()
    threading.Thread(target=_answer_plainly, args=(server, sent), daemon=True).start()
    for is_early in (True, False):
        if is_early:
            connect_early(host_of(server), None, {}, lambda: tls)
        with pytest.raises(ConnectionFailed) as raised:
            _connections(tls).request("GET", f"https://{host_of(server)}/v2/", {}, Limits(5.0))
        failed.append((str(raised.value), raised.value.no_tls, raised.value.no_handshake, raised.value.refused))
    assert failed[0][1:] == failed[1][1:]
    assert failed[0][1]
    assert not failed[0][3]


def test_a_server_that_answers_without_tls_is_asked_once(server: socket.socket, authority: Authority) -> None:
    tls, asked = _trusting(authority), list[socket.socket]()
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    threading.Thread(target=_answer_plainly, args=(server, answer, asked), daemon=True).start()
    connect_early(host_of(server), None, {}, lambda: tls)
    with pytest.raises(ConnectionFailed) as raised:
        _connections(tls).request("GET", f"https://{host_of(server)}/v2/", {}, Limits(5.0))
    assert raised.value.no_handshake
    assert len(asked) == 1


def _answer_plainly(server: socket.socket, sent: bytes, asked: list[socket.socket] | None = None) -> None:
    with suppress(OSError):
        while True:
            theirs, _ = server.accept()
            if asked is not None:
                asked.append(theirs)
            with theirs:
                theirs.recv(1 << 16)
                theirs.sendall(sent)


def test_a_host_that_closes_an_idle_connection_still_speaks_tls(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext
) -> None:
    """Otherwise plain HTTP would be tried where that is allowed."""
    tls = _trusting(authority)
    connect_early(host_of(server), None, {}, lambda: tls)
    server.accept()[0].close()
    theirs = _Server(server, encrypted, _OK)
    assert _connections(tls).request("GET", f"https://{host_of(server)}/v2/", {}, Limits(5.0)).document(9) == b"ok"
    theirs.join(5)


def test_certificates_that_cannot_be_loaded_are_loaded_once(server: socket.socket, tmp_path: Path) -> None:
    tls, asked = Tls(None, (tmp_path / "a", tmp_path / "b"), verify=True), list[Tls]()

    def load(tls: Tls | None) -> ssl.SSLContext:
        assert tls is not None
        asked.append(tls)
        raise OSError(errno.EINVAL, "a wrong passphrase")

    with mock.patch("fusefs.sources.servers.early.ssl_context", load):
        connect_early(host_of(server), None, {}, lambda: tls)
        with mock.patch("fusefs.sources.servers.connections.ssl_context", load), pytest.raises(UsageError):
            _connections(tls).request("GET", f"https://{host_of(server)}/v2/", {}, Limits(5.0))
    assert asked == [tls]


def test_one_with_other_certificates_is_not_used(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext
) -> None:
    first, second = _Server(server, encrypted), _Server(server, encrypted, _OK)
    connect_early(host_of(server), None, {}, lambda: Tls(None, None, verify=False))
    until(lambda: "http/1.1" in (first.protocol, second.protocol), "the handshake is made")
    if second.protocol:
        first, second = second, first
        second._answer = _OK
    answer = _connections(_trusting(authority)).request("GET", f"https://{host_of(server)}/v2/", {}, Limits(5.0))
    first.join(5)
    assert (answer.document(9), first.received) == (b"ok", b"")


def test_the_failure_with_other_certificates_does_not_count(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext
) -> None:
    connect_early(host_of(server), None, {}, lambda: Tls(None, None, verify=True))
    theirs = _Server(server, encrypted)
    theirs.join(5)
    theirs = _Server(server, encrypted, _OK)
    answer = _connections(_trusting(authority)).request("GET", f"https://{host_of(server)}/v2/", {}, Limits(5.0))
    theirs.join(5)
    assert answer.document(9) == b"ok"


def test_one_whose_handshake_does_not_end_can_be_dropped(server: socket.socket, authority: Authority) -> None:
    connect_early(host_of(server), None, {}, lambda: _trusting(authority))
    theirs, _ = server.accept()
    with theirs:
        theirs.settimeout(5)
        assert theirs.recv(1 << 16)
        early = _begun[0]
        drop()
        early._connecting.join(5)
        assert not early._connecting.is_alive()


def test_one_that_is_dropped_before_its_handshake_ends_without_a_traceback(
    server: socket.socket, authority: Authority
) -> None:
    may_load, raised = threading.Event(), list[BaseException | None]()

    def find() -> Tls:
        may_load.wait(5)
        return _trusting(authority)

    connect_early(host_of(server), None, {}, find)
    theirs, _ = server.accept()
    with theirs, mock.patch.object(threading, "excepthook", lambda hook: raised.append(hook.exc_value)):
        early = _begun[0]
        until(lambda: early._made is not None, "it is connected")
        drop()
        may_load.set()
        early._connecting.join(5)
        assert not early._connecting.is_alive()
    assert raised == []
    assert early._made is None or early._made.fileno() < 0
