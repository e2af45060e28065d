"""A connection that is begun before anything is asked."""

import errno
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import urllib3

from fusefs.errors import RegistryError, UsageError
from fusefs.image.model import Traffic
from fusefs.sources.reasons import reason
from fusefs.sources.servers.connections import ConnectionFailed, Connections, Limits, _Connection, _Pool
from fusefs.sources.servers.early import PROTOCOLS, _begun, connect_early, connection, drop
from fusefs.sources.tls import Tls
from tests.support.certificates import Authority
from tests.support.processes import until
from tests.unit.sources.registry.clients import MANIFEST, client, manifest


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    drop()


@pytest.fixture(name="server")
def listening() -> Iterator[socket.socket]:
    """Give a server that accepts nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


def _no_tls() -> Tls:
    raise UsageError("it speaks plain HTTP")


def _host(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def _is_ended(connection: socket.socket) -> bool:
    connection.settimeout(5)
    return connection.recv(1) == b""


def test_the_first_request_is_sent_on_it(server: socket.socket) -> None:
    connect_early(_host(server), None, {}, _no_tls)
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
    connect_early(_host(server), None, {}, _no_tls)
    theirs, _ = server.accept()
    with theirs:
        assert connection("127.0.0.1", 1, None) is None
        assert _is_ended(theirs)


def test_a_connection_that_nobody_needs_is_closed(server: socket.socket) -> None:
    connect_early(_host(server), None, {}, _no_tls)
    theirs, _ = server.accept()
    with theirs:
        drop()
        assert _is_ended(theirs)


def test_one_that_is_closed_before_it_is_there_is_closed_then(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, connect = threading.Event(), socket.create_connection

    def slow(*arguments: Any) -> socket.socket:
        may_go_on.wait(5)
        return connect(*arguments)

    monkeypatch.setattr(socket, "create_connection", slow)
    connect_early(_host(server), None, {}, _no_tls)
    drop()
    may_go_on.set()
    theirs, _ = server.accept()
    with theirs:
        assert _is_ended(theirs)


def test_one_that_the_host_has_closed_meanwhile_is_not_used(server: socket.socket) -> None:
    connect_early(_host(server), None, {}, _no_tls)
    server.accept()[0].close()
    until(lambda: bool(_begun[0]._made and _is_readable(_begun[0]._made)), "the end has arrived")
    assert connection("127.0.0.1", server.getsockname()[1], None) is None


def _is_readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def test_its_settings_are_those_of_any_connection(server: socket.socket) -> None:
    connect_early(_host(server), None, {}, _no_tls)
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

    monkeypatch.setattr(socket, "create_connection", connect)
    connect_early(_host(server), 0.2, {}, _no_tls)
    with pytest.raises(urllib3.exceptions.HTTPError) as raised:
        _Connection("127.0.0.1", server.getsockname()[1], timeout=3.0)._new_conn()
    assert (reason(raised.value), asked) == (said, [0.2])


def test_the_limit_of_the_user_counts_if_it_is_the_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[float]()

    def connect(_: object, seconds: float) -> socket.socket:
        asked.append(seconds)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", connect)
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
import socket, sys
{before}
def connect(*arguments):
    print("urllib3" in sys.modules, *arguments)
    raise ConnectionRefusedError(111, "refused")
socket.create_connection = connect
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
    monkeypatch.setattr(socket, "create_connection", connect)
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

    monkeypatch.setattr(socket, "create_connection", connect)
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
    connect_early(_host(server), None, {}, _no_tls)
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
    connections, url = _connections(tls), f"https://{_host(server)}/v2/"
    connect_early(_host(server), None, {}, lambda: tls)
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
            connect_early(_host(server), None, {}, lambda: tls)
        theirs = _Server(server, encrypted)
        with pytest.raises(ConnectionFailed) as raised:
            _connections(tls).request("GET", f"https://{_host(server)}/v2/", {}, Limits(5.0))
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
            connect_early(_host(server), None, {}, lambda: tls)
        with pytest.raises(ConnectionFailed) as raised:
            _connections(tls).request("GET", f"https://{_host(server)}/v2/", {}, Limits(5.0))
        failed.append((str(raised.value), raised.value.no_tls, raised.value.no_handshake, raised.value.refused))
    assert failed[0][1:] == failed[1][1:]
    assert failed[0][1]
    assert not failed[0][3]


def _answer_plainly(server: socket.socket, sent: bytes) -> None:
    with suppress(OSError):
        while True:
            theirs, _ = server.accept()
            with theirs:
                theirs.recv(1 << 16)
                theirs.sendall(sent)


def test_a_host_that_closes_an_idle_connection_still_speaks_tls(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext
) -> None:
    """Otherwise plain HTTP would be tried where that is allowed."""
    tls = _trusting(authority)
    connect_early(_host(server), None, {}, lambda: tls)
    server.accept()[0].close()
    theirs = _Server(server, encrypted, _OK)
    assert _connections(tls).request("GET", f"https://{_host(server)}/v2/", {}, Limits(5.0)).document(9) == b"ok"
    theirs.join(5)


def test_certificates_that_cannot_be_loaded_are_loaded_once(server: socket.socket, tmp_path: Path) -> None:
    tls, asked = Tls(None, (tmp_path / "a", tmp_path / "b"), verify=True), list[Tls]()

    def load(tls: Tls | None) -> ssl.SSLContext:
        assert tls is not None
        asked.append(tls)
        raise OSError(errno.EINVAL, "a wrong passphrase")

    with mock.patch("fusefs.sources.servers.early.ssl_context", load):
        connect_early(_host(server), None, {}, lambda: tls)
        with mock.patch("fusefs.sources.servers.connections.ssl_context", load), pytest.raises(UsageError):
            _connections(tls).request("GET", f"https://{_host(server)}/v2/", {}, Limits(5.0))
    assert asked == [tls]


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


def test_one_with_other_certificates_is_not_used(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext
) -> None:
    first, second = _Server(server, encrypted), _Server(server, encrypted, _OK)
    connect_early(_host(server), None, {}, lambda: Tls(None, None, verify=False))
    until(lambda: "http/1.1" in (first.protocol, second.protocol), "the handshake is made")
    if second.protocol:
        first, second = second, first
        second._answer = _OK
    answer = _connections(_trusting(authority)).request("GET", f"https://{_host(server)}/v2/", {}, Limits(5.0))
    first.join(5)
    assert (answer.document(9), first.received) == (b"ok", b"")


def test_the_failure_with_other_certificates_does_not_count(
    server: socket.socket, authority: Authority, encrypted: ssl.SSLContext
) -> None:
    connect_early(_host(server), None, {}, lambda: Tls(None, None, verify=True))
    theirs = _Server(server, encrypted)
    theirs.join(5)
    theirs = _Server(server, encrypted, _OK)
    answer = _connections(_trusting(authority)).request("GET", f"https://{_host(server)}/v2/", {}, Limits(5.0))
    theirs.join(5)
    assert answer.document(9) == b"ok"


def test_one_whose_handshake_does_not_end_can_be_dropped(server: socket.socket, authority: Authority) -> None:
    connect_early(_host(server), None, {}, lambda: _trusting(authority))
    theirs, _ = server.accept()
    with theirs:
        theirs.settimeout(5)
        assert theirs.recv(1 << 16)
        early = _begun[0]
        drop()
        early._connecting.join(5)
        assert not early._connecting.is_alive()


def test_one_that_has_begun_is_not_begun_again(server: socket.socket) -> None:
    connect_early(_host(server), None, {}, _no_tls)
    early = _begun[0]
    connect_early(_host(server), None, {}, _no_tls)
    assert _begun == [early]
    connect_early("127.0.0.1:1", None, {}, _no_tls)
    assert len(_begun) == 1
    assert _begun[0] is not early


@pytest.mark.parametrize("host", ["b\xfccher.example", f"{'a' * 64}.example", "a..example", ".example", "[]"])
def test_a_name_that_no_host_can_have_is_not_looked_for(host: str) -> None:
    connect_early(host, None, {}, _no_tls)
    assert not _begun


def test_one_that_is_dropped_before_its_handshake_ends_without_a_traceback(
    server: socket.socket, authority: Authority
) -> None:
    may_load, raised = threading.Event(), list[BaseException | None]()

    def find() -> Tls:
        may_load.wait(5)
        return _trusting(authority)

    connect_early(_host(server), None, {}, find)
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


def test_many_threads_may_begin_and_drop_at_the_same_time(server: socket.socket) -> None:
    raised = list[BaseException | None]()

    def work() -> None:
        for _ in range(20):
            connect_early(_host(server), None, {}, _no_tls)
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
