"""Bytes that proved wrong, or break off again and again: which places are asked for them, and how often."""

import json
import time
from collections.abc import Callable

import pytest

from fusefs.content import patience
from fusefs.errors import BlobError, RegistryError
from fusefs.sources.registry.transfer import Transfers
from tests.conftest import TakeWarnings
from tests.support.answers import Answer, Got, answers, silent
from tests.unit.sources.registry.clients import BLOB, client

BIG = BLOB._replace(size=400_000)
END = 300_000


CHALLENGE = Answer(401, headers={"WWW-Authenticate": "Basic"})


def _part(got: Got, size: int | None = None, byte: bytes = b"x") -> Answer:
    """Answer with the wanted bytes of a blob, or end the connection after *size* bytes."""
    start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
    where = {"Content-Range": f"bytes {start}-{end}/{BIG.size}", "Content-Length": str(end + 1 - start)}
    body = byte * (end + 1 - start)
    return Answer(206, body if size is None else body[:size], {**where, "Connection": "close"})


def _read(transfers: Transfers, *, again: int = 0) -> tuple[bytes, RegistryError | None]:
    """Return the bytes from 10 up to END, and what `Transfers.blob` says."""
    received = bytearray(b".") * END

    def take(offset: int, data: bytes | bytearray | memoryview) -> None:
        received[offset : offset + len(data)] = data

    said = transfers.blob(BIG, (10, END), take, again=again)
    return bytes(received[10:]), said


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusefs.sources.servers.retries._FIRST", 0.01)


def test_a_registry_that_cuts_each_answer_after_a_byte_is_not_followed_for_long() -> None:
    with answers(lambda got: _part(got, 1)) as server:
        with pytest.raises(BlobError, match="again and again after a few bytes"):
            _read(client(server.host))
        assert len(server.got) == 65


@pytest.mark.parametrize("again", [0, 1])
def test_the_answers_of_each_place_count_alone(again: int) -> None:
    with answers(lambda got: _part(got, 1, b"m")) as cutting, answers(_part) as whole:
        hosts = (whole.host, cutting.host) if again else (cutting.host, whole.host)
        received, _ = _read(client(*hosts), again=again)
        assert received == b"m" * 65 + b"x" * (END - 75)


@pytest.mark.parametrize("sizes", [[0, 0, 0, 6000], [4096]])
def test_answers_that_bring_nothing_or_much_are_not_counted(sizes: list[int]) -> None:
    left = list[int]()

    def answer(got: Got) -> Answer:
        left.extend(() if left else sizes)
        return _part(got, left.pop(0))

    with answers(answer) as server:
        assert set(_read(client(server.host))[0]) == set(b"x")


def _answer_of(statuses: dict[str, int], name: str) -> Callable[[Got], Answer]:
    return lambda got: _part(got, byte=name[:1].encode()) if statuses[name] == 206 else Answer(statuses[name])


@pytest.mark.parametrize("status", [404, 418, 503])
def test_the_registry_is_asked_first_and_the_mirror_if_it_has_nothing(status: int) -> None:
    statuses = {"mirror": 206, "registry": 206}
    with answers(_answer_of(statuses, "mirror")) as mirror, answers(_answer_of(statuses, "registry")) as registry:
        transfers = client(mirror.host, registry.host)
        assert set(_read(transfers)[0]) == set(b"m")
        assert _read(transfers, again=1) == (b"r" * (END - 10), None)
        assert _read(transfers, again=2) == (b"r" * (END - 10), None)
        assert (len(mirror.got), len(registry.got)) == (1, 2)
        statuses["registry"] = status
        received, said = _read(transfers, again=1)
        assert set(received) == set(b"m")
        assert str(status) in str(said) if status != 404 else said is None
        asked = len(mirror.got)
        with pytest.raises(Exception, match=str(status)):
            _read(transfers, again=2)
        assert len(mirror.got) == asked


def test_a_registry_whose_settings_cannot_be_used_is_passed_over(take_warnings: TakeWarnings) -> None:
    statuses = {"mirror": 206, "registry": 401}
    with answers(_answer_of(statuses, "mirror")) as mirror, answers(lambda _: CHALLENGE) as registry:
        helpers = json.dumps({"credHelpers": {registry.host: "missing"}})
        transfers = client(mirror.host, registry.host, DOCKER_AUTH_CONFIG=helpers)
        received, said = _read(transfers, again=1)
        assert set(received) == set(b"m")
        assert "cannot run docker-credential-missing" in str(said)
        assert "asking the next place" in take_warnings()[0]
        with pytest.raises(RegistryError, match="cannot run docker-credential-missing"):
            _read(transfers, again=2)


def test_a_registry_that_is_asked_first_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = {"mirror": 206, "registry": 503}
    monkeypatch.setattr("fusefs.sources.registry.availability._BACK_OFF", 2.0)
    with answers(_answer_of(statuses, "mirror")) as mirror, answers(_answer_of(statuses, "registry")) as registry:
        transfers, now = client(mirror.host, registry.host, timeout=0.3), time.monotonic()
        for number in range(4):
            later = 2.5 * number
            monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda later=later: now + later)
            assert _read(transfers, again=1)[0]
            asked = len(registry.got)
            assert _read(transfers, again=1)[0]
            assert len(registry.got) == asked
        statuses["registry"] = 206
        monkeypatch.setattr("fusefs.sources.registry.availability.time.monotonic", lambda: now + 10)
        assert set(_read(transfers, again=1)[0]) == set(b"r")


@pytest.mark.parametrize(("before", "least", "most"), [(0.0, 1.9, 3.5), (1.0, 0.9, 1.9), (50.0, 0.5, 1.5)])
def test_a_read_that_has_waited_gets_what_is_left_and_a_second_at_least(
    monkeypatch: pytest.MonkeyPatch, before: float, least: float, most: float
) -> None:
    with silent() as server, patience.one_read():
        transfers, began = client(server.host, timeout=2.0), time.monotonic()
        monkeypatch.setattr(patience._read, "began", began - before)
        with pytest.raises(RegistryError):
            _read(transfers)
        assert least <= time.monotonic() - began <= most
