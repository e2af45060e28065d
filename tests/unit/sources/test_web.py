"""A file on a web server: what it says about its bytes, and about when it may be asked."""

import gzip
from contextlib import ExitStack, suppress

import pytest

from fusefs.errors import RegistryError, Unavailable
from fusefs.image.model import Traffic
from fusefs.sources.servers.connections import Connections
from fusefs.sources.tls import Tls
from fusefs.sources.url.web import WebFile
from tests.support.answers import Answer, Got, answers


def file_at(host: str, timeout: float = 2.0) -> WebFile:
    """Return a file of a server."""
    connections = Connections(lambda _: Tls(None, None, verify=True), {}, Traffic())
    return WebFile(f"http://{host}/a.tar.gz", "a.tar.gz", connections, timeout, insecure=False)


def test_a_compressed_file_that_is_called_compressed_stays_it() -> None:
    data = gzip.compress(bytes(100_000))

    def part(got: Got) -> Answer:
        start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
        last = min(end, len(data) - 1)
        where = {"Content-Range": f"bytes {start}-{last}/{len(data)}", "Content-Encoding": "gzip"}
        return Answer(206, data[start : last + 1], where)

    with answers(part) as server:
        file = file_at(server.host)
        assert file.begin(1 << 15) == data
        assert b"".join(file.stream(10)) == data[10:]


@pytest.mark.parametrize("etags", [("", ""), ('"1"', '"2"'), ('"1"', '"1"')])
@pytest.mark.parametrize("size", [50, 75, 120])
def test_another_length_is_a_change_although_the_server_ignores_conditions(size: int, etags: tuple[str, str]) -> None:
    sizes, now = [100, size], 0

    def part(got: Got) -> Answer:
        start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
        last = min(end, sizes[now] - 1)
        if start > last:
            return Answer(416)
        where = {"Content-Range": f"bytes {start}-{last}/{sizes[now]}", **({"ETag": etags[now]} if etags[now] else {})}
        return Answer(206, bytes(last + 1 - start), where)

    with answers(part) as server:
        file = file_at(server.host)
        assert file.begin(10) == bytes(10)
        now = 1
        for _ in range(2):
            with pytest.raises(Unavailable, match="was changed while it is in use; unmount it and mount it again"):
                file.receive(60, 100, lambda _, __: None)
        assert len(server.got) == 2 + (etags == ('"1"', '"1"') and size > 60)  # it is known then


@pytest.mark.parametrize("stated", ["bytes 1-2/3", "bytes 60-99/101", "bytes 60-99/*", "bytes 0-39/100", "nothing", ""])
def test_one_wrong_answer_is_no_change_of_a_file_with_a_strong_etag(stated: str) -> None:
    wrong = list[str]()

    def part(got: Got) -> Answer:
        start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
        where = wrong.pop() if wrong else f"bytes {start}-{end}/100"
        return Answer(206, bytes(range(start, end + 1)), {"Content-Range": where, "ETag": '"1"'})

    with answers(part) as server:
        file, got = file_at(server.host), list[int]()
        file.begin(10)
        for _ in range(2):
            wrong.append(stated)
            file.receive(60, 100, lambda _, piece: got.extend(piece))
        assert got == [*range(60, 100)] * 2


def test_a_pause_that_a_server_asks_for_is_kept_by_all_readers() -> None:
    with answers(lambda _: Answer(429, headers={"Retry-After": "60"})) as server:
        for _ in range(2):
            with pytest.raises(RegistryError, match="it asks to wait 60 s"):
                file_at(server.host).begin(1)
        assert len(server.got) == 1


@pytest.mark.parametrize("fault", [Answer(503, headers={"Retry-After": "3600"}), Answer(500), Answer(418), None])
def test_after_a_failure_the_server_is_asked_again_where_the_file_is(
    fault: Answer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusefs.sources.url.web._BACK_OFF", 0.0)
    data, faulty = bytes(range(100)), list[str]()

    def part(got: Got) -> Answer:
        if fault is not None and got.headers["Host"] in faulty:
            return fault
        start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
        where = {"Content-Range": f"bytes {start}-{end}/{len(data)}", "Connection": "close"}
        return Answer(206, data[start : end + 1], where)

    leads_to = [""]

    def redirect(_: Got) -> Answer:
        return Answer(302, headers={"Location": f"http://{leads_to[0]}/f"})

    with answers(redirect) as origin, answers(part) as other, ExitStack() as running:
        first = running.enter_context(answers(part))
        leads_to[0] = first.host
        file, got = file_at(origin.host), bytearray()
        assert file.begin(10) == data[:10]
        leads_to[0] = other.host
        faulty.append(first.host)
        if fault is None:
            running.close()  # nobody is there any more
        with suppress(RegistryError):  # the transfer that found it may fail
            file.receive(10, 20, lambda _, __: None)
        file.receive(20, 30, lambda _, piece: got.extend(piece))
    assert bytes(got) == data[20:30]
