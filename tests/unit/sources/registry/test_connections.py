"""Connections: through proxies, and the bodies of answers."""

import gzip

import pytest

from fusefs.errors import UsageError
from fusefs.image.model import Traffic
from fusefs.sources.registry.connections import ConnectionFailed, Connections, Limits
from fusefs.sources.tls import Tls
from tests.support.answers import Answer, answers

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
        ("http://user:secret@", "the URL of the proxy http:// is malformed"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_error_that_names_it(proxy: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        connections(ALL_PROXY=proxy).request("GET", FAR, {}, Limits(2))
    assert str(caught.value) == message


def test_a_range_is_not_decompressed() -> None:
    data = gzip.compress(bytes(100_000))
    coded = {"Content-Encoding": "x-gzip"}
    with answers(lambda got: Answer(206 if "Range" in got.headers else 200, data, coded)) as server:
        url = f"http://{server.host}/a.tgz"
        assert connections().request("GET", url, {"Range": "bytes=0-9"}, Limits(2)).document(1 << 20) == data
        assert connections().request("GET", url, {}, Limits(2)).document(1 << 20) == bytes(100_000)
