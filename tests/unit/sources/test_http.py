"""The bounds of an engine's answer, at their borders: bytes, lines and time."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fusefs.sources.http import (
    MAX_ANSWER,
    MAX_LINES,
    BoundedResponse,
    RefusedAnswer,
    bounded_response,
    redirect,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@contextmanager
def answered(
    data: bytes, pause: float = 0, timeout: float | None = 5, seconds: float | None = None
) -> Iterator[BoundedResponse]:
    """Give the answer that *data* is; with a *pause* in seconds after each byte, and again and again."""
    server, client = socket.socketpair()
    client.settimeout(timeout)
    ended = threading.Event()

    def send() -> None:
        try:
            while pause:
                for byte in data:
                    server.send(bytes([byte]))
                    if ended.wait(pause):
                        return
            server.sendall(data)
        except OSError:
            pass
        finally:
            server.close()

    thread = threading.Thread(target=send)
    thread.start()
    answer = bounded_response(seconds)(client, method="GET")
    try:
        yield answer
    finally:
        ended.set()
        answer.close()
        client.close()
        thread.join()


def _body(data: bytes) -> bytes:
    with answered(data) as answer:
        answer.begin()
        return answer.whole()


@pytest.mark.parametrize("head", [CHUNKED + b"%x\r\n", OK + b"Content-Length: %d\r\n\r\n"])
def test_a_body_has_four_mebibytes(head: bytes) -> None:
    tail = b"\r\n0\r\n\r\n" if b"chunked" in head else b""
    assert _body(head % MAX_ANSWER + bytes(MAX_ANSWER) + tail) == bytes(MAX_ANSWER)
    with pytest.raises(RefusedAnswer, match=f"^its answer has more than {MAX_ANSWER} bytes$"):
        _body(head % (MAX_ANSWER + 1) + bytes(MAX_ANSWER + 1) + tail)


def _head(size: int) -> bytes:
    """Return all lines before a body, so many bytes, some of them of answers that only say that there is one."""
    lines = CONTINUE + OK + b"X: y\r\n" * 90 + b"Content-Length: 2\r\nX: "
    return lines + b"z" * (size - len(lines) - 4) + b"\r\n\r\n"


def test_all_headers_have_64_kibibytes() -> None:
    assert len(_head(MAX_LINES)) == MAX_LINES
    assert _body(_head(MAX_LINES) + b"{}") == b"{}"
    with pytest.raises(RefusedAnswer, match=f"^its headers have more than {MAX_LINES} bytes$"):
        _body(_head(MAX_LINES + 1) + b"{}")


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 "])
def test_ten_interim_answers_are_skipped(status: bytes) -> None:
    interim = b"HTTP/1.1 " + status + b"\r\nLink: </x>\r\nContent-Length: 5\r\n\r\n"
    assert _body(interim * 10 + OK + b"Content-Length: 2\r\n\r\n{}") == b"{}"
    with pytest.raises(RefusedAnswer, match=r"^it sends more than 10 interim answers \(1xx\)$"):
        _body(interim * 11 + OK + b"Content-Length: 2\r\n\r\n{}")


def test_a_switch_of_protocols_is_no_interim_answer() -> None:
    with answered(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + b"\r\n") as answer:
        answer.begin()
        assert answer.status == http.client.SWITCHING_PROTOCOLS


def test_headers_are_counted_again_after_a_chunk() -> None:
    chunk = b"1;" + b"x" * (MAX_LINES - 100) + b"\r\n{\r\n"
    assert _body(CHUNKED + chunk * 3 + b"0\r\n\r\n") == b"{{{"


@pytest.mark.parametrize(
    "endless",
    [
        CONTINUE * 10_000,
        OK + b"X: " + b"y" * 100_000,
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000,
        CHUNKED + b"1" * 100_000,
    ],
)
def test_lines_without_end(endless: bytes) -> None:
    with pytest.raises(http.client.HTTPException):  # RefusedAnswer, or a limit that newer versions of it have
        _body(endless)


@pytest.mark.parametrize("size", [b"-1", b"-5"])
def test_a_chunk_of_a_negative_size(size: bytes) -> None:
    with pytest.raises(RefusedAnswer, match=r"^its answer has a negative size$"):
        _body(CHUNKED + size + b"\r\n" + bytes(100))


def test_an_answer_that_is_shorter_than_it_says() -> None:
    assert _body(OK + b"Content-Length: 2\r\n\r\n{}") == b"{}"
    with pytest.raises(http.client.IncompleteRead):
        _body(OK + b"Content-Length: 3\r\n\r\n{}")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_a_compressed_answer_is_refused(encoding: str) -> None:
    with pytest.raises(RefusedAnswer, match=f"compressed \\({encoding}\\)"):
        _body(OK + f"Content-Encoding: {encoding}\r\n\r\n".encode())


@pytest.mark.parametrize("data", [CONTINUE, b"HTTP/1.1 200 " + b"x" * 1000, OK + b"X: " + b"y" * 10_000])
@pytest.mark.parametrize(("timeout", "seconds"), [(0.3, None), (None, 0.3)])
def test_headers_that_take_longer_than_their_time(data: bytes, timeout: float | None, seconds: float | None) -> None:
    with answered(data, 0.02, timeout, seconds) as answer, pytest.raises(TimeoutError):
        answer.begin()


def test_a_body_that_takes_longer_than_its_time() -> None:
    with answered(OK + b"\r\n" + bytes(10_000), 0.001, 0.5) as answer:
        answer.begin()
        with pytest.raises(TimeoutError):
            answer.whole()


def test_each_read_of_an_image_has_a_time_of_its_own() -> None:
    with answered(OK + b"\r\n" + bytes(100), 0.01, None, 0.5) as answer:
        answer.begin()
        answer.wait(0.5)
        buffer = bytearray(100)
        assert answer.readinto(buffer) == len(buffer)


def test_chunks_after_a_line_have_a_time_of_their_own() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answered(head + b"64\r\n" + bytes(100) + b"\r\n0\r\n\r\n", pause=0.01) as answer:
        answer.begin()
        answer.wait(0.5)
        assert answer.read(100) == bytes(100)


@pytest.mark.parametrize("lines", [b"0" * 1000, b"5\r\nhello\r\n" + b"0" * 1000, b"0\r\n" + b"a: b\r\n" * 100])
def test_lines_between_chunks_have_one_time(lines: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answered(head + lines, pause=0.005) as answer:
        answer.begin()
        answer.wait(0.5)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            [*iter(lambda: answer.read1(100), b"")]
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("status", "location", "shown"),
    [
        (299, "http://x", ""),
        (300, "http://x", "it redirects to http://x, which imgfs does not follow"),
        (399, "", "it redirects to nowhere, which imgfs does not follow"),
        (301, "a\x1bb", "it redirects to a\\x1bb, which imgfs does not follow"),
        (400, "http://x", ""),
    ],
)
def test_a_redirect_is_a_reason(status: int, location: str, shown: str) -> None:
    assert redirect(status, {"Location": location}) == shown
