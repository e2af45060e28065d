"""A client of a repository whose servers a test writes down, and their answers."""

import json
import threading
import time
from collections.abc import Callable

from fusefs.errors import ImgfsError
from fusefs.image.model import Traffic
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.sources.registry.client import transfers_of
from fusefs.sources.registry.places import Place
from fusefs.sources.registry.transfer import Transfers
from tests.support.answers import Answer, Answers, Got
from tests.support.conformance import SETTINGS

MANIFEST = b'{"schemaVersion":2}'
REPOSITORY = "team/app"
BLOB = Descriptor("application/octet-stream", 1 << 24, Digest.of([b"x"]))


def client(*hosts: str, timeout: float | None = 2.0, insecure: bool = True, **environment: str) -> Transfers:
    """Return a client of a repository whose places are at *hosts*, without credentials unless they are given."""
    settings = SETTINGS._replace(timeout=timeout, environment={"HOME": "/nonexistent", **environment})
    return transfers_of([Place(host, REPOSITORY, insecure) for host in hosts], settings, Traffic())


def manifest(transfers: Transfers) -> bytes:
    """Return a manifest of the repository."""
    return transfers.manifest("latest", None).data


def found(_: Got) -> Answer:
    """Answer with the manifest."""
    return Answer(200, MANIFEST)


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


def token(text: str = "t", lifetime: float = 300) -> Answer:
    """Return a token."""
    return Answer(200, json.dumps({"token": text, "expires_in": lifetime}).encode())


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
