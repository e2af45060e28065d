"""Text of a registry or another server that is made to take long: `re` lets no other thread run meanwhile."""

import re
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import urllib3

from fusefs.chunked import estargz, tarsplit, toc, zstd_chunked
from fusefs.cli.commands import inspect
from fusefs.cli.output import steps
from fusefs.errors import ImgfsError
from fusefs.image.model import Traffic
from fusefs.oci.config import Step
from fusefs.oci.digest import Digest
from fusefs.oci.platform import Platform
from fusefs.oci.reference import full_reference, is_digest, is_repository, is_tag
from fusefs.oci.times import nanoseconds
from fusefs.sources.engine import answers, description, save
from fusefs.sources.registry import links, repository
from fusefs.sources.registry.authorization import challenges
from fusefs.sources.registry.lists import is_of_referrer
from fusefs.sources.servers.connections import Answer
from fusefs.sources.servers.hosts import is_loopback
from fusefs.sources.servers.retries import retry_after
from fusefs.sources.url import web
from fusefs.text import printable

SIZE = 60_000
_SOON = 0.5
"""Seconds of this thread; what grows with the square of the size takes several."""
_UNITS = [
    *"aA1-_.:/\\\"'<>;,= \t[]{}%@()#*",
    *("a_", "a-", "a ", "a1", "a.a/", "1.", "1:", "1 ", "1-", "A=", "\\\\", ": ", "; ", "} , ", " , ", "_ ", "\n{"),
    *('a="', 'a="\\', '<>"', '<>\\"', '<>;a="\\', "<>;", "<a", "<>;rel", ";rel=", "; rel = ", "rel=next,", '299 - "\\'),
    *("bytes 1-", "bytes */", "sha256:", "sha256-", "%2", "../", "Mon, ", "v1.", "12:", "+01", "|1 ", "/bin/sh -c "),
    *(
        '\n{"type":2,"payload":"',
        '\n{"type":1,"name":"',
        '{"error',
        " # buildkit",
        "file:0",
        "+gzip",
        "\x1f\x8b\x08\x04",
    ),
]
_BEGINNINGS = ["<>", "<>;rel=", "a", 'a="', "bytes ", "sha256:"]
_TEXTS = [
    *(unit * (SIZE // len(unit)) for unit in _UNITS),
    *(begin + character * SIZE for begin in _BEGINNINGS for character in ' \t;,:.-_/\\"=a1'),
]


def _location(text: str) -> None:
    response = urllib3.HTTPResponse(headers={"Location": text})
    Answer(response, "https://registry.example.com/v2/", "registry.example.com", None, Traffic()).redirected(
        "https://a/b"
    )


USES: dict[str, Callable[[str], object]] = {
    "challenges": lambda text: list(challenges([text])),
    "links": lambda text: links.next_query([text], "https://registry.example.com/v2/a/tags/list"),
    "rel=next with parameters": lambda text: links.next_query([f'<?a>; {text}; rel="next"'], "https://a/"),
    "Warning": repository._WARNING.findall,
    "Content-Range": repository._RANGE.fullmatch,
    "Content-Range of a 416": repository._NO_RANGE.fullmatch,
    "Content-Range of a web server": web._RANGE.fullmatch,
    "Retry-After": lambda text: retry_after(text, "Sun, 06 Nov 1994 08:49:38 GMT"),
    "Date": lambda text: retry_after("Sun, 06 Nov 1994 08:49:38 GMT", text),
    "Location": _location,
    "host": is_loopback,
    "digest": Digest.parse,
    "digest in a name": is_digest,
    "tag": is_tag,
    "tag of a referrer": is_of_referrer,
    "repository": is_repository,
    "reference": full_reference,
    "time": nanoseconds,
    "platform": Platform.parse,
    "media type": lambda text: re.search(r"[+.](gzip|zstd)$", text),
    "step": lambda text: steps.instruction(Step(0, text, "", "", empty=False), short=True),
    "digests that are shown": lambda text: inspect._DIGEST.sub("", text),
    "footer": lambda text: estargz._FOOTER.search(text.encode()),
    "tar-split": tarsplit._LINES.findall,
    "positions": zstd_chunked._POSITION.fullmatch,
    "table of contents": toc._NEXT_OBJECT.findall,
    "version of an engine": answers._VERSION.match,
    "step of an engine": description._METADATA.match,
    "error of an engine": lambda text: save._JSON_ERROR.search(text.encode()),
    "message": printable,
}


@pytest.mark.parametrize("use", USES)
def test_text_of_a_server_takes_time_in_proportion_to_its_size(use: str) -> None:
    slow = []
    for text in _TEXTS:
        began = time.thread_time()
        with suppress(ValueError, ImgfsError):
            USES[use](text)
        if time.thread_time() - began > _SOON:
            slow.append(text[:40])
            break
    assert slow == []
