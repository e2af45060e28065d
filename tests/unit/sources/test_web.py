"""A file on a web server: what it says about its bytes, and about when it may be asked."""

import gzip
from contextlib import ExitStack, nullcontext, suppress
from types import SimpleNamespace

import pytest

from fusefs.errors import ImgfsError, InvalidImage, RegistryError, Unavailable
from fusefs.image.model import Traffic
from fusefs.sources.servers.connections import Connections
from fusefs.sources.tls import Tls
from fusefs.sources.url.web import WebFile
from tests.support.answers import Answer, Got, answers

PAGE = {"Content-Type": "Text/HTML; charset=utf-8"}


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
        assert len(server.got) == 3  # one answer may be wrong, and then it is known


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


def ranged(got: Got, data: bytes, most: int = 1000, encoding: str = "identity") -> Answer:
    """Return the answer with a part of *data*, of at most so many bytes."""
    start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
    last = min(end, len(data) - 1, start + most - 1)
    where = {"Content-Range": f"bytes {start}-{last}/{len(data)}", "Content-Encoding": encoding}
    return Answer(206, data[start : last + 1], where)


@pytest.mark.parametrize(
    ("status", "error"), [(403, Unavailable), (404, Unavailable), (418, RegistryError), (206, InvalidImage)]
)
def test_after_any_error_the_server_is_not_asked_for_a_moment(
    status: int, error: type[ImgfsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, faults, data = [100.0], list[Answer](), bytes(range(100))
    monkeypatch.setattr("fusefs.sources.url.web.time", SimpleNamespace(monotonic=lambda: now[0]))
    with answers(lambda got: faults[0] if faults else ranged(got, data)) as server:
        file, received = file_at(server.host), bytearray()

        def read() -> None:
            file.receive(50, 60, lambda _, piece: received.extend(piece))

        file.begin(10)
        faults.append(Answer(status, data, {"Content-Range": "bytes 50-59/100"}))  # more bytes than 10
        with pytest.raises(error) as first:
            read()
        asked = len(server.got)
        for now[0] in (100.5, 101.9):
            with pytest.raises(error) as again:
                read()
            assert (str(again.value), again.value is first.value) == (str(first.value), False)
        faults.clear()
        assert len(server.got) == asked
        now[0] = 102.1
        read()
    assert bytes(received) == data[50:60]


def test_one_who_retries_goes_on_after_the_error_of_another() -> None:
    data, busy = bytes(range(100)), [True]

    def answer(got: Got) -> Answer:
        if got.headers["Range"] == "bytes=90-99":
            return Answer(403)
        if got.headers["Range"] == "bytes=50-59" and busy:
            busy.clear()
            with pytest.raises(Unavailable):  # another reader, meanwhile
                file.receive(90, 100, lambda *_: None)
            return Answer(503)
        return ranged(got, data)

    with answers(answer) as server:
        file, received = file_at(server.host), bytearray()
        file.begin(10)
        file.receive(50, 60, lambda _, piece: received.extend(piece))
    assert bytes(received) == data[50:60]


def test_an_answer_may_have_fewer_bytes_than_asked() -> None:
    data = bytes(range(100))
    with answers(lambda got: ranged(got, data, 7)) as server:
        file, received = file_at(server.host), dict[int, bytes]()
        assert file.begin(20) == data[:20]
        file.receive(50, 70, lambda offset, piece: received.update({offset: bytes(piece)}))
        assert received == {50: data[50:57], 57: data[57:64], 64: data[64:70]}
        assert len(server.got) == 6
        assert b"".join(file.stream(20)) == data[20:]


@pytest.mark.parametrize(("status", "requests"), [(403, 1), (206, 2), (500, 3), (503, 3)])
def test_an_error_of_some_bytes_stops_no_others(status: int, requests: int) -> None:
    data, refused = bytes(range(100)), Answer(status, bytes(5), {"Content-Range": "bytes 0-4/100"})
    with answers(lambda got: refused if "=50-" in got.headers["Range"] else ranged(got, data)) as server:
        file, received = file_at(server.host, 0.9), bytearray()
        file.begin(10)
        for number in range(3):
            with pytest.raises((Unavailable, RegistryError)):
                file.receive(50, 60, lambda *_: None)
            file.receive(60 + number, 61 + number, lambda _, piece: received.extend(piece))
        assert bytes(received) == data[60:63]
        assert len(server.got) in ((6, 7, 8) if status >= 500 else (4 + requests,))


@pytest.mark.parametrize("status", [418, 500])
def test_an_error_that_took_long_is_one_of_fewer_bytes_too(status: int) -> None:
    with answers(lambda got: ranged(got, bytes(100)) if "=0-" in got.headers["Range"] else Answer(status)) as server:
        file = file_at(server.host, 1.8)
        file.begin(10)
        with pytest.raises(RegistryError, match=str(status)):
            file.receive(50, 90, lambda *_: None)
        file.receive(0, 10, lambda *_: None)  # others are had
        asked = len(server.got)
        with pytest.raises(RegistryError, match=str(status)):
            file.receive(60, 70, lambda *_: None)
        assert len(server.got) == asked + (status == 418)


@pytest.mark.parametrize("status", [403, 418])
def test_errors_of_more_and_of_fewer_bytes_stop_no_others(status: int) -> None:
    data = bytes(range(100))

    def answer(got: Got) -> Answer:
        start, end = map(int, got.headers["Range"].removeprefix("bytes=").split("-"))
        return Answer(status) if start <= 55 <= end else ranged(got, data)

    with answers(answer) as server:
        file, received = file_at(server.host), bytearray()
        file.begin(10)
        for start, end in ((50, 90), (50, 60), (30, 56), (55, 56)):
            with pytest.raises((Unavailable, RegistryError)):
                file.receive(start, end, lambda *_: None)
        file.receive(20, 30, lambda _, piece: received.extend(piece))
        assert received == data[20:30]


@pytest.mark.parametrize(
    ("stated", "then", "status", "is_same"),
    [
        ({"ETag": '"1"', "Last-Modified": "a"}, {"Last-Modified": "a"}, 200, True),
        ({"ETag": '"1"', "Last-Modified": "a"}, {"Last-Modified": "a"}, 206, True),
        ({"ETag": '"1"', "Last-Modified": "a"}, {"ETag": '"1"'}, 200, True),
        ({"ETag": '"1"', "Last-Modified": "a"}, {"Last-Modified": "b"}, 200, False),
        ({"ETag": '"1"'}, {}, 206, False),
        ({"ETag": '"1"'}, {"Last-Modified": "a"}, 206, False),
        ({"ETag": 'W/"1"'}, {}, 200, True),
        ({"ETag": 'W/"1"'}, {"ETag": 'W/"2"'}, 200, False),
        ({"Last-Modified": "a"}, {}, 206, True),
        ({"Last-Modified": "a"}, {}, 200, False),
        ({}, {}, 200, True),
        ({}, {"ETag": '"1"', "Last-Modified": "a"}, 206, True),
    ],
)
def test_a_version_is_told_by_what_the_server_states(
    stated: dict[str, str], then: dict[str, str], status: int, *, is_same: bool
) -> None:
    data = bytes(range(100))

    def answer(got: Got) -> Answer:
        found = ranged(got, data)
        if "bytes=0-" in got.headers["Range"]:
            return Answer(206, found.body, {**found.headers, **stated})
        return Answer(200, data, then) if status == 200 else Answer(206, found.body, {**found.headers, **then})

    with answers(answer) as server:
        file, received = file_at(server.host), bytearray(100)

        def take(offset: int, piece: bytes | bytearray | memoryview) -> None:
            received[offset : offset + len(piece)] = piece

        file.begin(10)
        if is_same:
            file.receive(50, 60, take)
            assert received[50:60] == data[50:60]
        else:
            with pytest.raises(Unavailable, match="was changed"):
                file.receive(50, 60, take)


def test_a_file_that_has_shrunk_is_no_web_page() -> None:
    with answers(
        lambda got: ranged(got, bytes(100)) if "=0-" in got.headers["Range"] else Answer(416, b"<p>", PAGE)
    ) as server:
        file = file_at(server.host)
        file.begin(10)
        with pytest.raises(Unavailable, match="was changed"):
            file.receive(50, 60, lambda *_: None)


@pytest.mark.parametrize("status", [520, 526])
def test_what_a_proxy_says_of_a_server_behind_it_may_pass(status: int) -> None:
    faults = [Answer(status)]
    with answers(lambda got: faults.pop() if faults else ranged(got, bytes(100))) as server:
        assert file_at(server.host).begin(10) == bytes(10)


@pytest.mark.parametrize("fault", [Answer(500), None])
def test_a_server_that_fails_at_different_bytes_is_not_asked_for_a_moment(fault: Answer | None) -> None:
    def last(got: Got) -> Answer:
        found = ranged(got, bytes(100))
        return Answer(found.status, found.body, {**found.headers, "Connection": "close"})

    with answers(last) as server:
        file = file_at(server.host, 1.8)
        file.begin(10)
        host = int(server.host.rpartition(":")[2])
    with answers(lambda _: fault or Answer(500), port=host) if fault else nullcontext() as failing:
        for start in (50, 60, 70, 80):
            with pytest.raises(RegistryError):
                file.receive(start, start + 10, lambda *_: None)
            if start == 60 and failing is not None:
                asked = len(failing.got)
        assert failing is None or len(failing.got) == asked


@pytest.mark.parametrize("validator", [("ETag", '"1"'), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")])
@pytest.mark.parametrize("wrong", [{}, {"ETag": '"2"'}, PAGE])
@pytest.mark.parametrize("size", [100, 90])
@pytest.mark.parametrize("times", [1, 2])
def test_all_of_the_file_is_another_one_without_the_validator_that_was_asked_for(
    validator: tuple[str, str], wrong: dict[str, str], size: int, times: int
) -> None:
    data, others = bytes(range(100)), [Answer(200, bytes(size), wrong)] * times

    def answer(got: Got) -> Answer:
        if "bytes=0-" not in got.headers["Range"] and others:
            return others.pop()
        found = ranged(got, data)
        return Answer(206, found.body, {**found.headers, validator[0]: validator[1]})

    with answers(answer) as server:
        file, received = file_at(server.host), bytearray()
        file.begin(10)
        if times == 2 and "Content-Type" not in wrong:
            with pytest.raises(Unavailable, match="was changed while it is in use"):
                file.receive(50, 60, lambda *_: None)
        else:  # one answer may be wrong, and a page any number of times
            file.receive(50, 60, lambda _, piece: received.extend(piece))
            assert received == data[50:60]


def test_a_server_that_sends_a_few_bytes_at_a_time_is_not_followed_for_long() -> None:
    data = bytes(300)
    with answers(lambda got: ranged(got, data, 1)) as server:
        with pytest.raises(RegistryError, match="sends a few bytes at a time"):
            file_at(server.host).begin(200)
        assert len(server.got) < 80


def test_a_server_that_cuts_each_answer_after_a_byte_is_not_followed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusefs.sources.servers.retries._FIRST", 0.01)
    data = bytes(100_000)

    def answer(got: Got) -> Answer:
        found = ranged(got, data, len(data))
        cut = {"Content-Length": str(len(found.body)), "Connection": "close"}
        body = found.body if "bytes=0-" in got.headers["Range"] else found.body[:1]
        return Answer(206, body, {**found.headers, **cut})

    with answers(answer) as server:
        file, received = file_at(server.host), list[int]()
        file.begin(10)
        with pytest.raises(RegistryError, match="sends a few bytes at a time"):
            file.receive(10, 90_000, lambda offset, _: received.append(offset))
        assert received == [*range(10, 10 + len(received))]
        assert 60 < len(server.got) < 80


@pytest.mark.parametrize("stated", ["bytes 50-49/100", "bytes 50-60/100", "bytes 49-55/100", "bytes 51-55/100"])
def test_other_ranges_are_refused(stated: str) -> None:
    wrong = list[str]()

    def answer(got: Got) -> Answer:
        return Answer(206, bytes(5), {"Content-Range": wrong[0]}) if wrong else ranged(got, bytes(100))

    with answers(answer) as server:
        file = file_at(server.host)
        file.begin(10)
        wrong.append(stated)
        with pytest.raises(RegistryError, match=f"asked for bytes 50-59, the server sends {stated}"):
            file.receive(50, 60, lambda *_: None)
        assert len(server.got) == 3


@pytest.mark.parametrize("status", [206, 416])
def test_an_empty_file(status: int) -> None:
    empty = Answer(status, headers={"Content-Range": "bytes */0"})
    expected = r"a\.tar\.gz: not a tar archive: the file is empty"
    with answers(lambda _: empty) as server, pytest.raises(InvalidImage, match=expected):
        file_at(server.host).begin(10)


def test_a_redirect_to_a_name_that_no_host_can_have_is_followed_once() -> None:
    with answers(lambda _: Answer(302, headers={"Location": "http://a..b/f"})) as server:
        with pytest.raises(RegistryError, match=r"a\.\.b: its URL is malformed"):
            file_at(server.host).begin(10)
        assert len(server.got) == 1


def test_a_file_that_is_compressed_on_the_way_later_is_not_taken_for_it() -> None:
    size, encoding = 100, "identity"
    with answers(lambda got: ranged(got, bytes(size), encoding=encoding)) as server:
        file, received = file_at(server.host), bytearray()
        file.begin(10)
        encoding = "gzip"
        file.receive(50, 60, lambda _, piece: received.extend(piece))
        assert received == bytes(10)  # only the label of the same bytes
        size = 80
        with pytest.raises(RegistryError, match="the server changes its Content-Encoding to gzip"):
            file.receive(50, 60, lambda *_: None)
