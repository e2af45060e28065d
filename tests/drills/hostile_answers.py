"""Answers of a hostile engine, byte by byte: the honest body and the address of another server in, the answer out."""

import json
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import cycle, repeat

Fault = Callable[[bytes, str], Iterable[bytes]]

MIB = 1 << 20
_PAUSE = 0.1
"""Seconds between two bytes of an answer that takes its time."""
_OK = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n"
_JSON = _OK + b"Content-Type: application/json\r\n"
_CHUNKED = _JSON + b"Transfer-Encoding: chunked\r\n\r\n"
_CLOSED = _JSON + b"Connection: close\r\n\r\n"
_GZIP_CHUNKED = _JSON + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
_NO = b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ID = b"sha256:" + b"1" * 64
_ESCAPES = b"\x1b[31mred\x1b]0;title\x07\xff\xfe\xe2\x80\xae"


def _answer(headers: bytes, body: bytes, status: bytes = b"200 OK") -> list[bytes]:
    """Return an answer with a right length and more *headers*, which are whole lines."""
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return [b"HTTP/1.1 %b\r\nApi-Version: 1.41\r\n%b%b%b" % (status, headers, length, body)]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _endless(begin: bytes, part: bytes) -> Iterator[bytes]:
    """Yield *begin*, and *part* without end."""
    yield begin
    yield from repeat(part)


def _slowly(begin: bytes, part: bytes) -> Iterator[bytes]:
    """Yield *begin*, and *part* without end, a byte at a time."""
    yield begin
    for byte in cycle(part):
        yield bytes([byte])
        threading.Event().wait(_PAUSE)


def _silent(begin: bytes) -> Iterator[bytes]:
    """Yield *begin*, and then nothing for longer than any client waits."""
    yield begin
    threading.Event().wait(15)


@lru_cache
def _bomb(wbits: int) -> bytes:
    """Return 256 MiB of blanks, compressed."""
    packer = zlib.compressobj(1, zlib.DEFLATED, wbits)
    return b"".join([*(packer.compress(b" " * MIB) for _ in range(256)), packer.flush()])


def _packed(data: bytes, wbits: int = 31) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, wbits)
    return packer.compress(data) + packer.flush()


def _message(text: str) -> bytes:
    return json.dumps({"message": text}).encode()


_COMPRESSED: dict[str, Fault] = {
    "a gzip bomb": lambda _, __: _answer(b"Content-Encoding: gzip\r\n", _bomb(31)),
    "a gzip bomb in chunks": lambda _, __: [_GZIP_CHUNKED, _chunk(_bomb(31)), b"0\r\n\r\n"],
    "a deflate bomb": lambda _, __: _answer(b"Content-Encoding: deflate\r\n", _bomb(15)),
    "a bomb in gzip in gzip": lambda _, __: _answer(b"Content-Encoding: gzip, gzip\r\n", _packed(_bomb(31))),
    "gzip that nobody asked for": lambda body, _: _answer(b"Content-Encoding: gzip\r\n", _packed(body)),
    "gzip that is none": lambda body, _: _answer(b"Content-Encoding: gzip\r\n", body),
    "br": lambda body, _: _answer(b"Content-Encoding: br\r\n", body),
    "an encoding of escapes": lambda body, _: _answer(b"Content-Encoding: " + _ESCAPES + b"\r\n", body),
    "the encoding identity": lambda body, _: _answer(b"Content-Encoding: Identity\r\n", body),
    "a transfer encoding of gzip": lambda body, _: _answer(b"Transfer-Encoding: gzip\r\n", _packed(body)),
}

_BODIES: dict[str, Fault] = {
    "a string without end": lambda _, __: _endless(_CHUNKED + _chunk(b'{"Id":"'), _chunk(b"x" * 65536)),
    "brackets without end": lambda _, __: _endless(_CHUNKED, _chunk(b"[" * 65536)),
    "blanks without end": lambda _, __: _endless(_CLOSED, b" " * 65536),
    "empty objects up to 4 MiB": lambda _, __: _answer(b"", b"[%b{}]" % (b"{}," * (4 * MIB // 3 - 1))),
    "objects with a key up to 4 MiB": lambda _, __: _answer(b"", b"[%b{}]" % (b'{"":0},' * (4 * MIB // 7 - 1))),
    "lists in an object up to 4 MiB": lambda _, __: _answer(b"", b'{"Id":[%b[]]}' % (b"[]," * (4 * MIB // 3 - 9))),
    "more than 4 MiB": lambda body, _: _answer(b"", body + b" " * 4 * MIB),
    "16 MiB": lambda body, _: _answer(b"", body + b" " * 16 * MIB),
    "a number of a million digits": lambda _, __: _answer(b"", b'{"Size":%b}' % (b"1" * MIB)),
    "a number with an exponent": lambda _, __: _answer(b"", b'{"Id":"%b","Size":1e999999999}' % _ID),
    "a number of four thousand digits": lambda _, __: _answer(b"", b'{"Id":"%b","Size":%b}' % (_ID, b"1" * 4000)),
    "NaN": lambda _, __: _answer(b"", b'{"Size":NaN,"Id":-Infinity}'),
    "UTF-16": lambda body, _: _answer(b"", body.decode("latin-1").encode("utf-16")),
    "halves of surrogate pairs": lambda _, __: _answer(
        b"", b'{"Id":"\\ud800","ApiVersion":"\\udfff","message":"\\ud8"}'
    ),
    "escapes": lambda _, __: _answer(b"", b'{"Id":"%b"}' % _ESCAPES),
    "zeros": lambda _, __: _answer(b"", bytes(MIB)),
    "nothing": lambda _, __: _answer(b"", b""),
    "a list of lists": lambda _, __: _answer(b"", b"[[[]]]"),
    "a null": lambda _, __: _answer(b"", b"null"),
}

_FRAMES: dict[str, Fault] = {
    "a length of 8 EiB": lambda _, __: _endless(_JSON + b"Content-Length: 9223372036854775807\r\n\r\n", b" " * 65536),
    "a length of 8 EiB, cut": lambda body, _: [_JSON + b"Content-Length: 9223372036854775807\r\n\r\n", body],
    "a length of a thousand digits": lambda body, _: [_JSON + b"Content-Length: %b\r\n\r\n" % (b"9" * 1000), body],
    "a length of ten thousand digits": lambda body, _: [_JSON + b"Content-Length: %b\r\n\r\n" % (b"9" * 10000), body],
    "a length that is a byte too large": lambda body, _: [
        _JSON + b"Content-Length: %d\r\n\r\n" % (len(body) + 1),
        body,
    ],
    "a length that is a byte too small": lambda body, _: [
        _JSON + b"Content-Length: %d\r\n\r\n" % (len(body) - 1),
        body,
    ],
    "a length of 0": lambda body, _: [_JSON + b"Content-Length: 0\r\n\r\n", body],
    "a negative length": lambda _, __: _endless(_JSON + b"Content-Length: -5\r\n\r\n", b" " * 65536),
    "a length that is a word": lambda body, _: [_JSON + b"Content-Length: many\r\n\r\n", body],
    "two lengths": lambda body, _: [_JSON + b"Content-Length: 3\r\nContent-Length: %d\r\n\r\n" % len(body), body],
    "chunks and a length": lambda body, _: [
        _JSON + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunk(body) + b"0\r\n\r\n"
    ],
    "a chunk's size without end": lambda _, __: _endless(_CHUNKED, b"1" * 65536),
    "a chunk's size of 60,000 digits": lambda body, _: [_CHUNKED, b"f" * 60000, b"\r\n", body],
    "a chunk of -1 bytes": lambda _, __: _endless(_CHUNKED + b"-1\r\n", b" " * 65536),
    "a chunk of -5 bytes": lambda _, __: _endless(_CHUNKED + b"-5\r\n", b" " * 65536),
    "a chunk of 16 EiB": lambda body, _: [_CHUNKED + b"ffffffffffffffff\r\n", body],
    "a chunk of 8 EiB": lambda body, _: [_CHUNKED + b"7fffffffffffffff\r\n", body],
    "a chunk's extension without end": lambda _, __: _endless(_CHUNKED + b"1;", b"x" * 65536),
    "a chunk that is cut": lambda body, _: [_CHUNKED, _chunk(body)[:-10]],
    "a chunk without its end": lambda body, _: [_CHUNKED, b"%x\r\n%b0\r\n\r\n" % (len(body), body)],
    "a chunk's size that is a word": lambda body, _: [_CHUNKED, b"size\r\n", body],
    "no last chunk": lambda body, _: [_CHUNKED, _chunk(body)],
    "trailers without end": lambda body, _: _endless(_CHUNKED + _chunk(body) + b"0\r\n", b"X-Y: z\r\n" * 1000),
    "a trailer without end": lambda body, _: _endless(_CHUNKED + _chunk(body) + b"0\r\nX-Y: ", b"z" * 65536),
    "a byte in each chunk": lambda body, _: [
        _CHUNKED,
        *(_chunk(body[at : at + 1]) for at in range(min(len(body), 5000))),
    ],
}

_HEADERS: dict[str, Fault] = {
    "200 headers": lambda body, _: _answer(b"X-Y: z\r\n" * 200, body),
    "a header without end": lambda _, __: _endless(_OK + b"X-Y: ", b"z" * 65536),
    "headers without end": lambda _, __: _endless(_OK, b"X-Y: z\r\n" * 1000),
    "90 headers of 60 KB": lambda body, _: _answer(b"X-Y: %b\r\n" % (b"z" * 60000) * 90, body),
    "continued without end": lambda _, __: _endless(b"", _CONTINUE * 1000),
    "continued with headers without end": lambda _, __: _endless(b"HTTP/1.1 100 Continue\r\n", b"X-Y: z\r\n" * 1000),
    "continued 20 times": lambda body, _: [_CONTINUE * 20, *_answer(b"", body)],
    "early hints without end": lambda _, __: _endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000),
    "a status line without end": lambda _, __: _endless(b"HTTP/1.1 200 ", b"O" * 65536),
    "a status of four digits": lambda body, _: _answer(b"", body, b"2000 OK"),
    "a status that is a word": lambda body, _: _answer(b"", body, b"fine OK"),
    "a negative status": lambda body, _: _answer(b"", body, b"-20 OK"),
    "no status": lambda body, _: [b"HTTP/1.1\r\n\r\n", body],
    "HTTP/0.9": lambda body, _: [body],
    "HTTP/9.9": lambda body, _: [_CLOSED.replace(b"HTTP/1.1", b"HTTP/9.9"), body],
    "ICY": lambda body, _: [_CLOSED.replace(b"HTTP/1.1", b"ICY"), body],
    "a header without a colon": lambda body, _: _answer(b"nonsense\r\n", body),
    "a header with NUL": lambda body, _: _answer(b"X\0Y: \0\r\n", body),
    "a header of escapes": lambda body, _: _answer(_ESCAPES + b": " + _ESCAPES + b"\r\n", body),
    "a header that goes on": lambda body, _: _answer(b"X-Y: z\r\n" + b" z\r\n" * 50, body),
    "ends of lines without CR": lambda body, _: [b"HTTP/1.1 200 OK\nApi-Version: 1.41\nConnection: close\n\n", body],
    "a content type of escapes": lambda body, _: _answer(b"Content-Type: text/" + _ESCAPES + b"\r\n", body),
    "an unknown charset": lambda body, _: _answer(b"Content-Type: text/html; charset=klingon\r\n", body),
    "a version of escapes": lambda body, _: [
        b"HTTP/1.1 200 OK\r\nApi-Version: %b\r\nConnection: close\r\n\r\n" % _ESCAPES,
        body,
    ],
    "a version that leads elsewhere": lambda body, _: [
        b"HTTP/1.1 200 OK\r\nApi-Version: 1.41/../../x?\r\nConnection: close\r\n\r\n",
        body,
    ],
    "100 cookies": lambda body, _: _answer(b"Set-Cookie: a=b; Domain=.example.org; Path=/\r\n" * 90, body),
    "switching protocols": lambda body, _: _answer(b"Upgrade: tcp\r\n", body, b"101 UPGRADED"),
    "no content": lambda body, _: _answer(b"", body, b"204 No Content"),
    "a part of the content": lambda body, _: _answer(b"Content-Range: bytes 0-1/2\r\n", body, b"206 Partial Content"),
    "not modified": lambda body, _: _answer(b"", body, b"304 Not Modified"),
}


def _redirect(status: bytes, location: bytes) -> Fault:
    return lambda _, elsewhere: _answer(
        b"Location: " + location.replace(b"ELSEWHERE", elsewhere.encode()) + b"\r\n", b"", status
    )


_REDIRECTS: dict[str, Fault] = {
    f"{status.decode()} to {name}": _redirect(status, location)
    for status in (b"301 Moved", b"307 Temporary Redirect", b"308 Permanent Redirect", b"300 Choices")
    for name, location in {
        "another host": b"http://ELSEWHERE/version",
        "itself": b"/version",
        "nothing": b"",
        "a file": b"file:///etc/passwd",
        "a long address": b"http://ELSEWHERE/" + b"x" * 60000,
        "escapes": b"http://ELSEWHERE/" + _ESCAPES,
    }.items()
    if status.startswith(b"301") or name == "another host"
}

_REFUSALS: dict[str, Fault] = {
    "an error without end": lambda _, __: _endless(_NO + b'{"message":"', b"x" * 65536),
    "an error of 1 MiB": lambda _, __: _answer(b"", _message("x" * MIB), b"500 No"),
    "an error that is a bomb": lambda _, __: _answer(b"Content-Encoding: gzip\r\n", _bomb(31), b"500 No"),
    "an error of escapes": lambda _, __: _answer(b"", _message("\x1b[31m\r\n\u202e\u2028"), b"500 No"),
    "an error that is not JSON": lambda _, __: _answer(b"", _ESCAPES * 1000, b"500 No"),
    "an error of brackets": lambda _, __: _answer(b"", b"[" * 60000, b"500 No"),
    "an error whose message is an object": lambda _, __: _answer(b"", b'{"message":{"a":[1]}}', b"500 No"),
    "an error with a reason of escapes": lambda _, __: _answer(b"", b"", b"500 " + _ESCAPES),
    "an error that is cut": lambda _, __: [b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n", b'{"message":"no"}'],
    "not found, without end": lambda _, __: _endless(_CLOSED.replace(b"200 OK", b"404 No"), b"x" * 65536),
    "not found": lambda _, __: _answer(b"", _message("no such image"), b"404 Not Found"),
    "a password is asked for": lambda _, __: _answer(b"WWW-Authenticate: Basic\r\n", b"", b"401 Unauthorized"),
    "a proxy's password is asked for": lambda _, __: _answer(b"Proxy-Authenticate: Basic\r\n", b"", b"407 Proxy"),
    "later": lambda _, __: _answer(b"Retry-After: 0\r\n", b"", b"503 Later"),
    "a status of 999": lambda body, _: _answer(b"", body, b"999 What"),
}

_TIMES: dict[str, Fault] = {
    "a status line, a byte at a time": lambda _, __: _slowly(b"HTTP/1.1 200 ", b"OK"),
    "headers, a byte at a time": lambda _, __: _slowly(_OK, b"X: y\r\n"),
    "continued, a byte at a time": lambda _, __: _slowly(b"", _CONTINUE),
    "silence in the headers": lambda _, __: _silent(_OK),
    "silence in an error": lambda _, __: _silent(_NO + b"{"),
    "an error, a byte at a time": lambda _, __: _slowly(_NO, b"x"),
    "the end of the connection": lambda _, __: [],
    "the end of the connection in the headers": lambda _, __: [_OK],
}

_TIMES_OF_DOCUMENTS: dict[str, Fault] = {
    "silence": lambda _, __: _silent(b""),
    "silence before the body": lambda _, __: _silent(_CLOSED),
    "a body, a byte at a time": lambda _, __: _slowly(_CLOSED, b" "),
    "chunks, a byte at a time": lambda _, __: _slowly(_CHUNKED, b"1\r\n \r\n"),
}
"""A save may take long to begin, and then each read has a time of its own."""

FAULTS = _COMPRESSED | _BODIES | _FRAMES | _HEADERS | _REDIRECTS | _REFUSALS | _TIMES
"""In the answer to any request."""
FAULTS_OF_DOCUMENTS = FAULTS | _TIMES_OF_DOCUMENTS
"""In the answer to any request but that for an image."""
