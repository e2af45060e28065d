"""Which of several places a client asks, when some of them fail."""

import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fusefs.errors import DigestMismatch, RegistryError, Unavailable, UsageError
from fusefs.oci.digest import Digest
from tests.conftest import TakeWarnings
from tests.support.answers import Answer, Got, answers, silent
from tests.unit.sources.registry.clients import (
    MANIFEST,
    client,
    found,
    manifest,
)


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
        assert take_warnings() == [f"the registry {mirror.host}: {reason}; asking the next place"]
        with pytest.raises(UsageError, match=re.escape(reason)):
            manifest(of(mirror.host))


PAGES = [(b"<html>", "text/html"), (b"[]", "application/json"), (b"{}", "text/html; charset=utf-8"), (b'{"a":1}', "")]
"""What proxies and portals send instead of a manifest, with its media type."""


@pytest.mark.parametrize(("page", "media_type"), PAGES)
def test_a_mirror_that_sends_no_manifest_is_passed_over(page: bytes, media_type: str) -> None:
    answer = Answer(200, page, {"Content-Type": media_type} if media_type else {})
    with answers(lambda _: answer) as portal, answers(found) as server:
        assert manifest(client(portal.host, server.host)) == MANIFEST
        sent = media_type.partition(";")[0] or "other data"
        message = f"^the registry {portal.host} sends {sent}, not a manifest, for team/app:latest$"
        with pytest.raises(RegistryError, match=message):
            manifest(client(portal.host))


def test_what_has_another_digest_than_the_one_asked_for_is_a_page_or_damaged() -> None:
    digest = Digest.of([MANIFEST])
    for headers, error in (({"Content-Type": "text/html"}, RegistryError), ({}, DigestMismatch)):
        answer = Answer(200, b"<html>", headers)
        with answers(lambda _, answer=answer: answer) as portal, answers(found) as server:  # type: ignore[misc]
            assert client(portal.host, server.host).manifest(str(digest), digest).data == MANIFEST
            with pytest.raises(error):
                client(portal.host).manifest(str(digest), digest)


def test_a_manifest_counts_whatever_its_media_type_is() -> None:
    with answers(lambda _: Answer(200, MANIFEST, {"Content-Type": "text/html"})) as server:
        assert manifest(client(server.host)) == MANIFEST


def test_silent_places_fail_within_one_timeout() -> None:
    with silent() as one, silent() as two, silent() as three:
        transfers, began = client(one.host, two.host, three.host), time.monotonic()
        with pytest.raises(RegistryError, match=f"cannot reach the registry {three.host}"):
            manifest(transfers)
        assert 1.5 <= time.monotonic() - began < 3.5


def test_a_silent_mirror_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as mirror, answers(found) as server:
        transfers, now = client(mirror.host, server.host, timeout=1.5), time.monotonic()
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
        transfers, now = client(mirror.host, server.host, timeout=1.5), time.monotonic()
        for later in (0, 3, 8):
            monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda later=later: now + later)
            assert manifest(transfers) == MANIFEST
        statuses.update(mirror=200, registry=503)
        monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda: now + 11)
        with pytest.raises(RegistryError):
            manifest(transfers)  # the mirror is still spared
        assert manifest(transfers) == MANIFEST


def test_a_silent_mirror_is_asked_less_and_less_if_another_mirror_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as mirror, answers(found) as other, answers(found) as server:
        transfers, now = client(mirror.host, other.host, server.host, timeout=1.5), time.monotonic()
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
        transfers, now = client(mirror.host, server.host, timeout=1.5), time.monotonic()
        assert manifest(transfers) == MANIFEST
        statuses["mirror"] = 503
        for later in range(0, 30, 3):
            monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda later=later: now + later)
            with pytest.raises(Unavailable):
                manifest(transfers)
        statuses["mirror"] = 200
        monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda: now + 29.1)
        assert manifest(transfers) == MANIFEST
