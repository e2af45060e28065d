"""Connections: through proxies, and the bodies of answers."""

import gzip
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fusefs.errors import UsageError
from fusefs.image.model import Traffic
from fusefs.sources.servers.connections import ConnectionFailed, Connections, Limits
from fusefs.sources.tls import Tls
from tests.support.answers import Answer, Got, answers
from tests.support.certificates import Authority

FAR = "https://registry.example.com/v2/"


def connections(**environment: str) -> Connections:
    """Return connections by the proxies of *environment*."""
    return Connections(lambda _: Tls(None, None, verify=True), environment, Traffic())


@pytest.mark.parametrize(
    ("prefix", "sent"),
    [
        ("http://", None),
        ("", None),
        ("HTTP://", None),
        ("http://user:p%40ss@", "Basic dXNlcjpwQHNz"),
        ("user:p%40ss@", "Basic dXNlcjpwQHNz"),
    ],
)
def test_a_proxy_gets_its_user_and_needs_no_scheme(prefix: str, sent: str | None) -> None:
    with answers(lambda _: Answer(407)) as proxy:
        with pytest.raises(ConnectionFailed):
            connections(https_proxy=f"{prefix}{proxy.host}/").request("GET", FAR, {}, Limits(2))
        assert [(got.path, got.headers.get("Proxy-Authorization")) for got in proxy.got] == [
            ("registry.example.com:443", sent)
        ]


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("socks5://user:secret@proxy:1080", "the proxy socks5://proxy:1080 is neither http nor https"),
        ("http://user:secret@proxy:port", "the URL of the proxy http://proxy:port is malformed"),
        ("http://user:secret@a..b:1", "the URL of the proxy http://a..b:1 is malformed"),
        ("http://user:secret@", "the URL of the proxy http:// is malformed"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_error_that_names_it(proxy: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        connections(ALL_PROXY=proxy).request("GET", FAR, {}, Limits(2))
    assert str(caught.value) == message


@pytest.mark.parametrize("url", [FAR, FAR.replace("https", "http")])
@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("http://user:secret@127.0.0.1:1", r"127\.0\.0\.1:1: Connection refused"),
        ("http://user:secret@proxy.invalid", r"proxy\.invalid:80: .*"),
    ],
)
def test_a_proxy_that_is_down_is_named_without_its_user(url: str, proxy: str, message: str) -> None:
    with pytest.raises(ConnectionFailed, match=f"^registry\\.example\\.com through the proxy {message}$") as caught:
        connections(all_proxy=proxy).request("GET", url, {}, Limits(5))
    assert caught.value.refused
    assert "user" not in str(caught.value)


def test_a_proxy_without_tls_is_not_taken_for_such_a_registry() -> None:
    with answers(lambda _: Answer()) as proxy, pytest.raises(ConnectionFailed, match="through the proxy") as caught:
        connections(https_proxy=f"https://{proxy.host}").request("GET", FAR, {}, Limits(5))
    assert not caught.value.no_handshake


def test_a_silent_proxy_is_named() -> None:
    may_end = threading.Event()

    def answer(_: Got) -> Answer:
        may_end.wait(10)
        return Answer()

    with answers(answer) as proxy:
        with pytest.raises(ConnectionFailed, match=rf"through the proxy {proxy.host}: timed out$"):
            connections(https_proxy=f"http://{proxy.host}").request("GET", FAR, {}, Limits(0.5))
        may_end.set()


def test_after_a_silent_one_no_connection_that_was_kept_is_used() -> None:
    both, known, may_end = threading.Barrier(2), set[object](), threading.Event()

    def answer(got: Got) -> Answer:
        if got.client in known:
            may_end.wait(10)
        else:
            both.wait(5)  # so that there are two connections
            if got.path == "/first":
                known.add(got.client)
        return Answer()

    with answers(answer) as server:
        made = connections()

        def ask(path: str) -> None:
            made.request("GET", f"http://{server.host}/{path}", {}, Limits(2)).document(1)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ask, ["first"] * 2))
            assert len(known) == 2
            with pytest.raises(ConnectionFailed, match=r"timed out$"):
                ask("second")
            list(pool.map(ask, ["third"] * 2))
        may_end.set()


def test_a_range_is_not_decompressed() -> None:
    data = gzip.compress(bytes(100_000))
    coded = {"Content-Encoding": "x-gzip"}
    with answers(lambda got: Answer(206 if "Range" in got.headers else 200, data, coded)) as server:
        url = f"http://{server.host}/a.tgz"
        assert connections().request("GET", url, {"Range": "bytes=0-9"}, Limits(2)).document(1 << 20) == data
        assert connections().request("GET", url, {}, Limits(2)).document(1 << 20) == bytes(100_000)


def served_by(authority: Authority) -> ssl.SSLContext:
    """Return the context of a server with a certificate of *authority*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", server=True))
    return context


def test_renewed_certificates_are_read_while_the_registry_is_in_use(tmp_path: Path) -> None:
    old, new = (Authority(tmp_path / name) for name in ("old", "new"))
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(old.ca.read_bytes())

    def ask(asking: Connections, host: str) -> int:
        return asking.request("GET", f"https://{host}/", {}, Limits(5)).status

    def trusting() -> Connections:
        return Connections(lambda _: Tls(None, None, verify=True, more=(trusted,)), {}, Traffic())

    with answers(lambda _: Answer(), tls=served_by(old)) as server:
        port = int(server.host.rpartition(":")[2])
        used = trusting()
        assert ask(used, server.host) == 200
    with answers(lambda _: Answer(), port, served_by(new)) as server:
        with pytest.raises(ConnectionFailed):
            ask(used, server.host)
        trusted.write_bytes(new.ca.read_bytes())
        assert ask(trusting(), server.host) == 200
