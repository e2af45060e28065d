"""One question to an engine, and the answers that another client has to ask for again."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fusefs.sources.engine.question import NoPlainAnswer, ask

HEAD = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n"


@contextmanager
def server(path: Path, *pieces: bytes, stays: bool = False) -> Iterator[list[bytes]]:
    """Answer one question with *pieces* on the unix socket *path*; if it *stays*, do not close. Give what was asked."""
    asked: list[bytes] = []
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                asked.append(connection.recv(1 << 16))
                with suppress(BrokenPipeError):  # the client has seen enough
                    for piece in pieces:
                        connection.sendall(piece)
                if stays:
                    done.wait()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield asked
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    ("pieces", "stays"),
    [
        ([HEAD + b"\r\n{}"], False),
        ([HEAD[:20], HEAD[20:] + b"\r", b"\n", b"{", b"}"], False),
        ([HEAD + b"Content-Length: 2\r\n\r\n{}"], True),
        ([HEAD + b"content-length:2\r\n\r\n", b"{}"], True),
    ],
)
def test_an_answer_ends_with_its_length_or_with_the_connection(
    tmp_path: Path, pieces: list[bytes], *, stays: bool
) -> None:
    with server(tmp_path / "socket", *pieces, stays=stays) as asked:
        answer = ask(str(tmp_path / "socket"), "/images/a/b:1@sha256:0/json", 30)
    assert (answer.headers["api-version"], answer.body) == ("1.41", b"{}")
    assert asked[0].startswith(b"GET /images/a/b:1@sha256:0/json HTTP/1.0\r\n")


@pytest.mark.parametrize(
    ("answer", "stays"),
    [
        (b"", False),
        (HEAD, False),
        (b"HTTP/1.1 404 Not Found\r\n\r\n{}", True),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", True),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n", True),
        (HEAD + b"Content-Length: 3\r\n\r\n{}", False),
        (HEAD + b"Content-Length: 1\r\n\r\n{}", True),
        (HEAD + b"Content-Length: -2\r\n\r\n{}", True),
        (HEAD + b"Content-Length: 99999999999\r\n\r\n{}", True),
        (HEAD + b"X: " + b"x" * (1 << 18), True),
        (HEAD + b"\r\n" + b"x" * (5 << 20), True),
    ],
)
def test_for_any_other_answer_another_client_asks(tmp_path: Path, answer: bytes, *, stays: bool) -> None:
    with server(tmp_path / "socket", answer, stays=stays), pytest.raises(NoPlainAnswer):
        ask(str(tmp_path / "socket"), "/images/a/json", 30)


@pytest.mark.parametrize("path", ["/images/ä/json", "/images/a b/json", "/images/a\r\nX: y/json", "/images/a?b/json"])
def test_a_path_with_other_characters_is_no_question_for_it(tmp_path: Path, path: str) -> None:
    with pytest.raises(NoPlainAnswer):
        ask(str(tmp_path / "missing"), path, 30)


def test_all_of_the_answer_has_to_come_in_time(tmp_path: Path) -> None:
    with server(tmp_path / "socket", HEAD + b"\r\n{", stays=True), pytest.raises(TimeoutError):
        ask(str(tmp_path / "socket"), "/images/a/json", 0.05)


def test_a_missing_socket_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ask(str(tmp_path / "socket"), "/images/a/json", 30)
