"""What a client does when the servers of a repository fail."""

import socket
import ssl
import struct
import threading
from pathlib import Path

import pytest

from fusefs.errors import RegistryError
from fusefs.image.model import Traffic
from fusefs.sources.registry.client import transfers_of
from fusefs.sources.registry.places import Place
from fusefs.sources.registry.transfer import Transfers
from tests.support.answers import Answer, Got, answers
from tests.support.certificates import Authority
from tests.support.conformance import SETTINGS

MANIFEST = b'{"schemaVersion":2}'
REPOSITORY = "team/app"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that failed is asked again at once."""
    monkeypatch.setattr("fusefs.sources.registry.repository._BACK_OFF", 0.0)


def client(*hosts: str, timeout: float = 2.0, insecure: bool = True, **environment: str) -> Transfers:
    """Return a client of a repository whose places are at *hosts*, without credentials unless they are given."""
    settings = SETTINGS._replace(timeout=timeout, environment={"HOME": "/nonexistent", **environment})
    return transfers_of([Place(host, REPOSITORY, insecure) for host in hosts], settings, Traffic())


def manifest(transfers: Transfers) -> bytes:
    """Return a manifest of the repository."""
    return transfers.manifest("latest", None).data


def served_tls(folder: Path) -> ssl.SSLContext:
    """Return the context of a server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(folder / "authority").issue("server", server=True))
    return context


def found(_: Got) -> Answer:
    """Answer with the manifest."""
    return Answer(200, MANIFEST)


def test_a_registry_that_was_down_is_asked_by_tls_when_it_is_back(tmp_path: Path) -> None:
    with answers(found) as away:
        host = away.host
    transfers = client(host)
    with pytest.raises(RegistryError, match="Connection refused"):
        manifest(transfers)
    with answers(found, int(host.rpartition(":")[2]), served_tls(tmp_path)) as back:
        assert manifest(transfers) == MANIFEST
        assert len(back.got) == 1


def test_plain_http_that_has_answered_stays() -> None:
    with answers(found) as server:
        transfers = client(server.host)
        assert manifest(transfers) == manifest(transfers) == MANIFEST
        assert len(server.got) == 2


def test_a_server_of_tls_that_resets_and_refuses_plain_http_is_asked_by_tls_again() -> None:
    first_bytes: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        transfers = client(f"127.0.0.1:{server.getsockname()[1]}", timeout=1.0)

        def serve() -> None:
            while len(first_bytes) < 3:
                connection = server.accept()[0]
                first_bytes.append(connection.recv(1 << 16)[:1])
                if len(first_bytes) == 2:
                    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                else:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(RegistryError):
            manifest(transfers)
        thread.join(10)
    assert first_bytes == [b"\x16", b"G", b"\x16"]
