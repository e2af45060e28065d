"""What a client does when the servers of a repository fail."""

import json
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fusefs.errors import ImgfsError, RegistryError, Unavailable, UsageError
from fusefs.image.model import Traffic
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.sources.registry.client import transfers_of
from fusefs.sources.registry.places import Place
from fusefs.sources.registry.transfer import Transfers
from tests.conftest import TakeWarnings
from tests.support.answers import Answer, Answers, Got, answers, silent
from tests.support.certificates import Authority
from tests.support.conformance import SETTINGS
from tests.support.processes import unprivileged, until
from tests.support.registries import AUTH

MANIFEST = b'{"schemaVersion":2}'
REPOSITORY = "team/app"
BLOB = Descriptor("application/octet-stream", 1 << 24, Digest.of([b"x"]))


@pytest.fixture(name="at_once")
def at_once_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that failed is asked again at once."""
    monkeypatch.setattr("fusefs.sources.registry.availability._BACK_OFF", 0.0)


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


def read_errors(transfers: Transfers, readers: int) -> list[tuple[float, str]]:
    """Let so many threads read at the same time; return after how many seconds they failed, and why."""
    failed, began = list[tuple[float, str]](), time.monotonic()

    def read(number: int) -> None:
        try:
            transfers.blob(BLOB, (number << 12, number + 1 << 12), lambda *_: None)
        except ImgfsError as error:
            failed.append((time.monotonic() - began, str(error)))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def bearer(realm: str) -> Answer:
    """Return a challenge for a token."""
    return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})


def token(text: str = "t", lifetime: int = 300) -> Answer:
    """Return a token."""
    return Answer(200, json.dumps({"token": text, "expires_in": lifetime}).encode())


def test_a_silent_token_server_fails_all_readers_at_once() -> None:
    with silent() as tokens, answers(lambda _: bearer(f"http://{tokens.host}/token")) as server:
        failed = read_errors(client(server.host), 12)
    assert len(failed) == 12
    assert all(1.5 <= after < 3.5 for after, _ in failed), failed


def test_a_helper_that_hangs_fails_all_readers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-hang"
    helper.write_text("#!/bin/sh\nexec sleep 10\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    store = json.dumps({"credsStore": "hang"})
    with answers(lambda _: Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})) as server:
        failed = read_errors(client(server.host, DOCKER_AUTH_CONFIG=store), 12)
    assert len(failed) == 12
    assert all(1.5 <= after < 3.5 for after, _ in failed), failed
    assert any("docker-credential-hang did not answer within 2 s" in why for _, why in failed)


def with_tokens(ask: Callable[[Got], Answer]) -> Callable[[Got], Answer]:
    """Answer requests for tokens as *ask* says, and others, with a token, with the manifest."""

    def answer(got: Got) -> Answer:
        if got.path.startswith("/token"):
            return ask(got)
        return found(got) if "Authorization" in got.headers else bearer(f"http://{got.headers['Host']}/token")

    return answer


def token_requests(server: Answers) -> list[Got]:
    """Return the requests for tokens."""
    return [got for got in server.got if got.path.startswith("/token")]


@pytest.mark.usefixtures("at_once")
def test_a_token_that_lives_is_used_although_it_cannot_be_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Answer] = [token(), Answer(503)]
    with answers(with_tokens(lambda _: given.pop(0) if len(given) > 1 else given[0])) as server:
        transfers, now = client(server.host), time.monotonic()
        assert manifest(transfers) == MANIFEST
        with monkeypatch.context() as later:
            later.setattr("fusefs.sources.registry.authorization.time.monotonic", lambda: now + 280)
            assert manifest(transfers) == manifest(transfers) == MANIFEST
        assert len(token_requests(server)) == 2
        with monkeypatch.context() as later:
            later.setattr("fusefs.sources.registry.authorization.time.monotonic", lambda: now + 310)
            with pytest.raises(RegistryError, match="answers 503"):
                manifest(transfers)


@pytest.mark.parametrize("known", [True, False])
def test_a_token_is_renewed_although_the_credentials_can_no_longer_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    with answers(with_tokens(lambda _: token())) as server:
        auths = {server.host: {"auth": AUTH}} if known else {}
        (home / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
        transfers, now = client(server.host, HOME=str(home)), time.monotonic()
        assert manifest(transfers) == MANIFEST
        home.chmod(0)
        monkeypatch.setattr("fusefs.sources.registry.authorization.time.monotonic", lambda: now + 310)
        with unprivileged():
            assert manifest(transfers) == MANIFEST
        home.chmod(0o700)
        sent = [got.headers.get("Authorization") for got in token_requests(server)]
    assert sent == [f"Basic {AUTH}" if known else None] * 2


@pytest.mark.parametrize("status", [404, 405])
def test_a_token_server_that_does_not_exist_is_asked_once(status: int) -> None:
    with answers(with_tokens(lambda _: Answer(status))) as server:
        with pytest.raises(RegistryError, match=f"the token server {server.host} answers {status}"):
            manifest(client(server.host))
        assert len(token_requests(server)) == 1


@pytest.mark.usefixtures("at_once")
def test_a_token_server_says_how_long_to_wait() -> None:
    given = [Answer(429, headers={"Retry-After": "1"}), token()]
    with answers(with_tokens(lambda _: given.pop(0))) as server:
        assert manifest(client(server.host, timeout=5.0)) == MANIFEST
        first, second = token_requests(server)
        assert second.when - first.when >= 1
    with answers(with_tokens(lambda _: Answer(429, headers={"Retry-After": "60"}))) as server:
        for _ in range(2):
            with pytest.raises(RegistryError, match="it asks to wait 60 s"):
                manifest(client(server.host))
        assert len(token_requests(server)) == 1


def test_redirects_of_a_token_server_are_followed_and_other_hosts_get_no_password() -> None:
    credentials = json.dumps({"auths": {"127.0.0.1": {"auth": AUTH}}})
    with answers(lambda _: token()) as other:

        def ask(got: Got) -> Answer:
            here = got.path.startswith("/token?")
            return Answer(307, headers={"Location": "/token/here" if here else f"http://{other.host}/there"})

        with answers(with_tokens(ask)) as server:
            named = credentials.replace("127.0.0.1", server.host)
            assert manifest(client(server.host, DOCKER_AUTH_CONFIG=named)) == MANIFEST
            assert [got.headers.get("Authorization") for got in token_requests(server)] == [f"Basic {AUTH}"] * 2
        assert [got.headers.get("Authorization") for got in other.got] == [None]


@pytest.mark.parametrize("control", ["\0", "\t", "\x7f"])
def test_control_characters_in_urls_of_servers_are_refused(control: str) -> None:
    url = f"https://other.invalid{control}/a"
    moved = Answer(307, headers={"Location": url})
    cases: list[tuple[Callable[[Got], Answer], type[ImgfsError], str]] = [
        (lambda _: moved, RegistryError, r"the registry redirects to a malformed URL"),
        (with_tokens(lambda _: moved), RegistryError, r"the token server .* redirects to a malformed URL"),
        (lambda _: bearer(url), Unavailable, r"the URL of its token server is malformed"),
    ]
    for answer, error, message in cases:
        with answers(answer) as server, pytest.raises(error, match=message):
            manifest(client(server.host))


def test_a_token_server_that_redirects_without_end_is_given_up() -> None:
    with answers(with_tokens(lambda _: Answer(302, headers={"Location": "/token"}))) as server:
        with pytest.raises(RegistryError, match="redirects more than 5 times"):
            manifest(client(server.host))
        assert len(token_requests(server)) == 6


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


@pytest.mark.parametrize("fault", ["helper", "certificate"])
def test_a_mirror_with_settings_that_cannot_be_used_is_passed_over(
    tmp_path: Path, take_warnings: TakeWarnings, fault: str
) -> None:
    unauthorized = Answer(401, headers={"WWW-Authenticate": "Basic"})
    with answers(lambda _: unauthorized) as mirror, answers(found) as server:
        helpers = json.dumps({"credHelpers": {mirror.host: "missing"}})
        reason = "cannot run docker-credential-missing: No such file or directory"
        if fault == "certificate":
            folder = tmp_path / ".config" / "containers" / "certs.d" / mirror.host
            folder.mkdir(parents=True)
            (folder / "client.key").touch()
            reason = f"TLS needs both files: {folder}/client.cert is missing"
        of = partial(client, HOME=str(tmp_path), DOCKER_AUTH_CONFIG=helpers)
        transfers = of(mirror.host, server.host)
        assert manifest(transfers) == manifest(transfers) == MANIFEST
        assert take_warnings() == [f"the mirror {mirror.host}: {reason}; asking the next place"]
        with pytest.raises(UsageError, match=re.escape(reason)):
            manifest(of(mirror.host))


def test_silent_places_fail_within_one_timeout() -> None:
    with silent() as one, silent() as two, silent() as three:
        transfers, began = client(one.host, two.host, three.host), time.monotonic()
        with pytest.raises(RegistryError, match=f"cannot reach the registry {three.host}"):
            manifest(transfers)
        assert 1.5 <= time.monotonic() - began < 3.5


def test_a_silent_mirror_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as mirror, answers(found) as server:
        transfers, now = client(mirror.host, server.host, timeout=0.4), time.monotonic()
        asked = []
        for later in (0, 1, 3, 5, 8, 15, 17):
            monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda later=later: now + later)
            assert manifest(transfers) == MANIFEST
            asked.append(len(mirror.connections))
        assert asked == [1, 1, 2, 2, 3, 3, 4]


def test_a_mirror_that_works_again_is_asked_if_the_registry_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = {"mirror": 503, "registry": 200}

    def answer(name: str) -> Callable[[Got], Answer]:
        return lambda _: Answer(statuses[name], MANIFEST)

    with answers(answer("mirror")) as mirror, answers(answer("registry")) as server:
        transfers, now = client(mirror.host, server.host, timeout=0.2), time.monotonic()
        for later in (0, 3, 8):
            monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda later=later: now + later)
            assert manifest(transfers) == MANIFEST
        statuses.update(mirror=200, registry=503)
        monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda: now + 11)
        with pytest.raises(RegistryError):
            manifest(transfers)  # the mirror is still spared
        assert manifest(transfers) == MANIFEST


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


def test_a_silent_mirror_is_asked_less_and_less_if_another_mirror_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as mirror, answers(found) as other, answers(found) as server:
        transfers, now = client(mirror.host, other.host, server.host, timeout=0.4), time.monotonic()
        for later in (0, 3, 5):
            monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda later=later: now + later)
            assert manifest(transfers) == MANIFEST
        assert (len(mirror.connections), len(server.got)) == (2, 0)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_mirror_that_alone_has_an_image_is_asked_soon(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    statuses = {"mirror": 200, "registry": status}

    def answer(name: str) -> Callable[[Got], Answer]:
        return lambda _: Answer(statuses[name], MANIFEST)

    with answers(answer("mirror")) as mirror, answers(answer("registry")) as server:
        transfers, now = client(mirror.host, server.host, timeout=0.2), time.monotonic()
        assert manifest(transfers) == MANIFEST
        statuses["mirror"] = 503
        for later in range(0, 30, 3):
            monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda later=later: now + later)
            with pytest.raises(Unavailable):
                manifest(transfers)
        statuses["mirror"] = 200
        monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda: now + 29.1)
        assert manifest(transfers) == MANIFEST
