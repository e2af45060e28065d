"""What a client does when the servers of a repository fail."""

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.errors import BlobError, RegistryError, Unavailable
from fusefs.sources.registry.transfer import Transfers
from tests.conftest import TakeWarnings
from tests.support.answers import Answer, Answers, Got, answers, silent
from tests.support.certificates import Authority
from tests.support.processes import until
from tests.support.registries import AUTH
from tests.unit.sources.registry.clients import (
    BLOB,
    MANIFEST,
    REPOSITORY,
    client,
    found,
    manifest,
)


def served_tls(folder: Path) -> ssl.SSLContext:
    """Return the context of a server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(folder / "authority").issue("server", server=True))
    return context


@pytest.mark.usefixtures("at_once")
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


def test_plain_http_that_answers_as_it_should_not_at_first_is_asked_again() -> None:
    given = [Answer(200, MANIFEST, {f"X-{number}": "" for number in range(150)}), Answer(200, MANIFEST)]
    with answers(lambda _: given.pop(0)) as server:
        assert manifest(client(server.host)) == MANIFEST
    many = {f"X-{number}": "" for number in range(150)}
    with (
        answers(lambda _: Answer(200, MANIFEST, many)) as server,
        pytest.raises(RegistryError, match=r"got more than 100 headers$"),
    ):
        manifest(client(server.host, timeout=0.5))


def test_what_a_registry_warns_of_is_said_once(take_warnings: TakeWarnings) -> None:
    long = "d" * 9000
    texts = [r'299 - "use \"new.example\""', '299 - "a\x9b", 299 - "b"', '199 - "c"', "299 -", f'299 - "{long}"']
    given = [*texts, *texts]
    with answers(lambda _: Answer(200, MANIFEST, {"Warning": given.pop(0)})) as server:
        transfers = client(server.host)
        for _ in range(10):
            manifest(transfers)
    warnings = ['use "new.example"', r"a\x9b", "b", long[:300]]
    assert take_warnings() == [f"the registry {server.host} warns: {text}" for text in warnings]


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


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", bytes(100), b"HTTP/1.1 abc\r\n\r\n"])
def test_a_server_that_speaks_something_else_is_not_tried_again(said: bytes) -> None:
    first_bytes: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    first_bytes.append(connection.recv(1 << 16)[:1])
                    connection.sendall(said)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(RegistryError, match=r"its answer is not HTTP$"):
            manifest(client(f"127.0.0.1:{server.getsockname()[1]}", timeout=30.0))
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert first_bytes == [b"\x16", b"G"]


def test_a_name_that_no_host_can_have_is_not_tried_again() -> None:
    began = time.monotonic()
    with pytest.raises(RegistryError, match="its URL is malformed"):
        manifest(client(f"{'a' * 64}.example.com", timeout=60.0))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [400, 404])
def test_what_plain_http_answers_counts_where_no_tls_is_spoken(status: int) -> None:
    with answers(lambda _: Answer(status, b'{"errors":[{"code":"NAME_INVALID"}]}')) as server:
        with pytest.raises((RegistryError, Unavailable), match=f"{status}.*NAME_INVALID"):
            manifest(client(server.host))
        assert len(server.got) == 1


@pytest.mark.usefixtures("at_once")
def test_a_pause_that_a_registry_asks_for_is_kept_by_all_clients() -> None:
    given = [Answer(429, headers={"Retry-After": "2"}), Answer(200, MANIFEST)]
    with answers(lambda _: given.pop(0)) as server:
        with pytest.raises(RegistryError, match="it asks to wait 2 s"):
            manifest(client(server.host, timeout=1.0))
        with pytest.raises(RegistryError, match="it asks to wait 2 s"):
            manifest(client(server.host, timeout=0.5))
        assert manifest(client(server.host, timeout=5.0)) == MANIFEST
        first, second = server.got
        assert second.when - first.when >= 2


def test_a_redirect_within_the_registry_keeps_the_authorization_and_no_other_does() -> None:
    with answers(found) as other:

        def answer(got: Got) -> Answer:
            if "Authorization" not in got.headers:
                return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            moved = "/moved" if got.path.startswith("/v2") else f"http://{other.host}/stored"
            return Answer(307, headers={"Location": moved})

        with answers(answer) as server:
            named = json.dumps({"auths": {server.host: {"auth": AUTH}}})
            assert manifest(client(server.host, DOCKER_AUTH_CONFIG=named)) == MANIFEST
            assert [(got.path, "Authorization" in got.headers) for got in server.got[1:]] == [
                (f"/v2/{REPOSITORY}/manifests/latest", True),
                ("/moved", True),
            ]
        assert ["Authorization" in got.headers for got in other.got] == [False]


def test_many_images_have_six_requests_at_a_registry_and_keep_their_connections() -> None:
    lock, now, most = threading.Lock(), [0], [0]
    go = threading.Event()

    def part(got: Got) -> Answer:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        go.wait(10)
        with lock:
            now[0] -= 1
        start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
        return Answer(206, bytes(end + 1 - start), {"Content-Range": f"bytes {start}-{end}/{BLOB.size}"})

    with answers(part) as server:
        images = [client(server.host, timeout=10.0) for _ in range(5)]
        readers = [
            threading.Thread(target=image.blob, args=(BLOB, (number << 12, number + 1 << 12), lambda *_: None))
            for image in images
            for number in range(3)
        ]
        for reader in readers:
            reader.start()
        until(lambda: now[0] >= 6, "requests arrive")
        time.sleep(0.3)
        go.set()
        for reader in readers:
            reader.join()
        assert (most[0], len(server.got)) == (6, 15)
        assert len({got.client for got in server.got}) <= 6


def test_a_silent_registry_fails_the_readers_of_all_images_at_once() -> None:
    with silent() as server:
        failed, began = list[float](), time.monotonic()

        def read(image: Transfers) -> None:
            with pytest.raises(RegistryError):
                image.blob(BLOB, (0, 4096), lambda *_: None)
            failed.append(time.monotonic() - began)

        readers = [threading.Thread(target=read, args=(client(server.host),)) for _ in range(20)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert len(failed) == 20
    assert all(1.5 <= after < 3.5 for after in failed), failed


def test_a_signed_url_of_the_registry_itself_that_is_refused_is_asked_for_again() -> None:
    statuses = [403, 200]

    def answer(got: Got) -> Answer:
        if got.path.startswith("/v2"):
            return Answer(307, headers={"Location": "/signed"})
        return Answer(statuses.pop(0), MANIFEST)

    with answers(answer) as server:
        assert manifest(client(server.host)) == MANIFEST
        assert len(server.got) == 4


def signed_by(storage: Answers) -> Callable[[Got], Answer]:
    """Redirect all requests to *storage*."""
    return lambda _: Answer(307, headers={"Location": f"http://{storage.host}/signed"})


@pytest.mark.parametrize("status", [401, 403, 410])
def test_a_manifest_that_is_denied_where_the_registry_redirects_to_is_denied(status: int) -> None:
    with answers(lambda _: Answer(status)) as storage, answers(signed_by(storage)) as server:
        with pytest.raises(Unavailable, match=f"the storage {storage.host} answers {status}"):
            manifest(client(server.host))
        assert (len(server.got), len(storage.got)) == (2, 2)


def test_a_signed_url_that_is_malformed_is_no_denial() -> None:
    with (
        answers(lambda _: Answer(400)) as storage,
        answers(signed_by(storage)) as server,
        pytest.raises(RegistryError, match=f"the storage {storage.host} answers 400"),
    ):
        manifest(client(server.host))


@pytest.mark.parametrize("password", [AUTH, "d3Jvbmc6Zm9v"])
def test_a_registry_that_redirects_within_itself_before_it_asks_for_authorization(password: str) -> None:
    def answer(got: Got) -> Answer:
        if got.path.startswith("/v2"):
            return Answer(307, headers={"Location": f"/here{got.path}"})
        if got.headers.get("Authorization") != f"Basic {AUTH}":
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return Answer(200, MANIFEST)

    with answers(answer) as server:
        transfers = client(server.host, DOCKER_AUTH_CONFIG=json.dumps({"auths": {server.host: {"auth": password}}}))
        if password == AUTH:
            assert manifest(transfers) == MANIFEST
        else:
            with pytest.raises(Unavailable, match="denies access"):
                manifest(transfers)
        assert ["Authorization" in got.headers for got in server.got] == [False, False, True, True]


def test_a_redirect_back_from_another_host_gets_no_authorization() -> None:
    hosts = dict[str, str]()

    def answer(got: Got) -> Answer:
        if got.path.startswith("/v2"):
            return Answer(307, headers={"Location": f"http://{hosts['other']}/away"})
        return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    def back(_: Got) -> Answer:
        return Answer(307, headers={"Location": f"http://{hosts['server']}/back"})

    with answers(back) as other, answers(answer) as server:
        hosts.update(other=other.host, server=server.host)
        transfers = client(server.host, DOCKER_AUTH_CONFIG=json.dumps({"auths": {server.host: {"auth": AUTH}}}))
        with pytest.raises(Unavailable, match=f"the storage {server.host} answers 401"):
            manifest(transfers)
        assert not any("Authorization" in got.headers for got in server.got)


def test_where_a_blob_is_stored_is_asked_for_once_until_that_refuses() -> None:
    valid = ["1"]

    def stored(got: Got) -> Answer:
        if not got.path.endswith(valid[0]):
            return Answer(403)
        start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
        return Answer(206, bytes(end + 1 - start), {"Content-Range": f"bytes {start}-{end}/{BLOB.size}"})

    with answers(stored) as storage:

        def answer(_: Got) -> Answer:
            return Answer(307, headers={"Location": f"http://{storage.host}/signed?{valid[0]}"})

        with answers(answer) as server:
            transfers = client(server.host)
            for number in range(3):
                transfers.blob(BLOB, (number, number + 9), lambda *_: None)
            assert (len(server.got), len(storage.got)) == (1, 3)
            valid[0] = "2"
            for number in range(3):
                transfers.blob(BLOB, (number, number + 9), lambda *_: None)
            assert (len(server.got), len(storage.got)) == (2, 7)


def test_an_answer_of_another_range_is_an_error_of_the_blob_alone() -> None:
    other = {"Content-Range": f"bytes 1-10/{BLOB.size}"}
    with answers(lambda _: Answer(206, bytes(10), other)) as server:
        transfers = client(server.host)
        with pytest.raises(BlobError, match="asked for bytes 0-9/"):
            transfers.blob(BLOB, (0, 10), lambda *_: None)
        transfers.check(BLOB.digest)
        assert len(server.got) == 2


def test_an_answer_that_no_attempt_mends_is_an_error_of_the_blob_alone() -> None:
    with answers(lambda _: Answer(418)) as server:
        transfers = client(server.host)
        with pytest.raises(BlobError, match="418"):
            transfers.blob(BLOB, (0, 10), lambda *_: None)
        transfers.check(BLOB.digest)
        assert len(server.got) == 1
