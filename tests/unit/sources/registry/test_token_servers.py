"""What a client does when the server of its tokens, or a helper, fails; and where that redirects to."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.errors import ImgfsError, RegistryError, Unavailable
from tests.support.answers import Answer, Got, answers, silent
from tests.support.processes import unprivileged
from tests.support.registries import AUTH
from tests.unit.sources.registry.clients import (
    MANIFEST,
    bearer,
    client,
    manifest,
    read_errors,
    token,
    token_requests,
    with_tokens,
)


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


@pytest.mark.parametrize("lifetime", [math.nan, math.inf, 300, 0])
def test_a_token_of_any_lifetime_is_used_again(lifetime: float) -> None:
    with answers(with_tokens(lambda _: token(lifetime=lifetime))) as server:
        transfers = client(server.host)
        assert manifest(transfers) == manifest(transfers) == MANIFEST
        assert len(token_requests(server)) == 1


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


@pytest.mark.parametrize("header", ["Bearer", 'Bearer service="x"', 'Bearer realm=""'])
def test_a_challenge_without_a_token_server_is_a_denial_that_says_so(header: str) -> None:
    with answers(lambda _: Answer(401, headers={"WWW-Authenticate": header})) as server:
        with pytest.raises(Unavailable, match="denies access to team/app: it names no token server"):
            manifest(client(server.host))
        assert len(server.got) == 1


def test_a_token_server_that_redirects_without_end_is_given_up() -> None:
    with answers(with_tokens(lambda _: Answer(302, headers={"Location": "/token"}))) as server:
        with pytest.raises(RegistryError, match="redirects more than 5 times"):
            manifest(client(server.host))
        assert len(token_requests(server)) == 6
