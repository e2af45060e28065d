"""What refers to an image, asked of servers that are silent, slow or broken: nobody waits for it for long."""

import json
import re
import socket
import threading
import time

import pytest

from fusefs.image.model import Document, Image
from fusefs.oci import documents
from fusefs.oci.transport import REGISTRY, Source
from fusefs.sources.registry.referrers import referrers_of
from fusefs.sources.registry.repository import Missing
from tests.support.answers import Answer, Got, answers, silent
from tests.unit.sources.registry.clients import client

_CONFIG = Document.of(documents.OCI_CONFIG, b"{}")
_MANIFEST = Document.of(documents.OCI_MANIFEST, b'{"schemaVersion":2}')
_INDEX = Document.of(documents.OCI_INDEX, b'{"schemaVersion":2,"manifests":[]}')
IMAGE = Image(
    Source("docker://x/team/app", REGISTRY, "docker://x/team/app"),
    *("latest", None, 0, _CONFIG, _MANIFEST, ()),
    documents=(_INDEX,),
)
_PATIENCE = "fusefs.sources.registry.referrers._PATIENCE"
ARTIFACT = {"mediaType": "application/x", "digest": f"sha256:{1:064}", "size": 5, "artifactType": "an/SBOM"}


def listed(got: Got) -> Answer:
    """Answer with a list of one artifact; nothing else is there."""
    if "/referrers/" not in got.path:
        return Answer(404)
    body = json.dumps({"schemaVersion": 2, "manifests": [ARTIFACT]}).encode()
    return Answer(200, body, {"Content-Type": documents.OCI_INDEX})


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        ({"digest": f"blake3:{1:064}"}, "unsupported digest algorithm 'blake3'"),
        ({"digest": "sha256:1"}, "malformed sha256 digest"),
        ({"size": None}, "manifests[0]"),
    ],
)
def test_one_odd_entry_hides_no_others(odd: dict[str, object], fault: str) -> None:
    digests = [f"sha256:{number:064}" for number in (1, 2)]

    def answer(got: Got) -> Answer:
        if "/referrers/" not in got.path:
            return Answer(404)
        is_first = "?" not in got.path
        listed = [ARTIFACT | odd, ARTIFACT] if is_first else [ARTIFACT | {"digest": digests[1]}]
        link = {"Link": f'<{got.path}?page=2>; rel="next"'} if is_first else {}
        body = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
        return Answer(200, body, {"Content-Type": documents.OCI_INDEX, **link})

    with answers(answer) as server:
        found = referrers_of(IMAGE, client(server.host))
    assert [str(each.digest) for each in found.found] == digests
    assert fault in found.flaw


@pytest.mark.parametrize("timeout", [60, None])
def test_a_silent_registry_is_not_waited_for_as_long_as_for_an_image(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    monkeypatch.setattr(_PATIENCE, 0.3)
    with silent() as server:
        began = time.monotonic()
        found = referrers_of(IMAGE, client(server.host, timeout=timeout))
    assert (found.found, "timed out" in found.flaw) == ((), True)
    assert time.monotonic() - began < 5


def test_a_request_is_not_begun_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_PATIENCE, -1.0)
    with answers(listed) as server:
        assert referrers_of(IMAGE, client(server.host)).flaw == "the registry takes more than -1 s to list them"
    assert server.got == []


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_registry_that_fails_is_asked_once_more(status: int) -> None:
    with answers(lambda _: Answer(status)) as server:
        began = time.monotonic()
        found = referrers_of(IMAGE, client(server.host, timeout=60))
    assert (found.found, f"answers {status}" in found.flaw) == ((), True)
    assert max(map([got.path for got in server.got].count, {got.path for got in server.got})) == 2
    assert time.monotonic() - began < 5


def test_a_registry_whose_lists_alone_fail_is_asked_for_the_others() -> None:
    with answers(lambda got: Answer(500 if "/referrers/" in got.path else 404)) as server:
        found = referrers_of(IMAGE, client(server.host, timeout=60))
    assert (found.found, "list of referrers" in found.flaw) == ((), True)
    paths = [got.path for got in server.got]
    assert len([path for path in paths if re.search(r"\.(sig|att|sbom)$", path)]) == 6


def test_a_list_on_a_host_that_is_down_does_not_make_the_registry_count_as_down() -> None:
    def moved(got: Got) -> Answer:
        there = {"Location": "http://localhost:1/x"}
        return Answer(307, headers=there) if "/referrers/" in got.path else Answer(404)

    with answers(moved) as server:
        transfers = client(server.host, timeout=60)
        found = referrers_of(IMAGE, transfers)
        with pytest.raises(Missing):
            transfers.manifest("other", None)
    assert (found.found, "cannot reach localhost:1: " in found.flaw) == ((), True)


def test_without_threads_it_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.daemon and thread.name.endswith("(work)"):
            raise RuntimeError("can't start new thread")
        start(thread)  # those of the server

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with answers(listed) as server:
        found = referrers_of(IMAGE, client(server.host))
    assert ([str(each.digest) for each in found.found], found.flaw) == ([ARTIFACT["digest"]], "")
    assert len({got.client for got in server.got}) == 1


def test_a_name_that_is_looked_up_for_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_PATIENCE, 0.1)
    ended = threading.Event()

    def look_up(*_: object) -> list[object]:
        ended.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    began = time.monotonic()
    try:
        found = referrers_of(IMAGE, client("registry.example.com", insecure=False))
    finally:
        ended.set()
    assert (found.found, "registry.example.com: timed out" in found.flaw) == ((), True)
    assert time.monotonic() - began < 5


def test_the_timeout_of_the_user_counts_if_it_is_the_shorter_one() -> None:
    with silent() as server:
        began = time.monotonic()
        assert "timed out" in referrers_of(IMAGE, client(server.host, timeout=0.3)).flaw
    assert time.monotonic() - began < 4


def test_no_mirror_is_asked_since_an_empty_list_of_it_means_nothing() -> None:
    def empty(got: Got) -> Answer:
        body = b'{"schemaVersion":2,"manifests":[]}'
        return Answer(200, body, {"Content-Type": documents.OCI_INDEX}) if "/referrers/" in got.path else Answer(404)

    with answers(empty) as mirror, answers(listed) as server:
        found = referrers_of(IMAGE, client(mirror.host, server.host))
        assert mirror.got == []
    assert ([str(each.digest) for each in found.found], found.flaw) == ([ARTIFACT["digest"]], "")


def test_an_artifact_without_a_config_is_typed_by_its_layer() -> None:
    def answer(got: Got) -> Answer:
        if not got.path.endswith(".sig"):
            return Answer(404)
        empty = {"mediaType": documents.OCI_EMPTY, "digest": f"sha256:{2:064}", "size": 2}
        manifest = {"schemaVersion": 2, "mediaType": documents.OCI_MANIFEST, "config": empty}
        body = json.dumps(manifest | {"layers": [ARTIFACT]}).encode()
        return Answer(200, body, {"Content-Type": documents.OCI_MANIFEST})

    with answers(answer) as server:
        found = referrers_of(IMAGE, client(server.host))
    assert [each.artifact_type for each in found.found] == [ARTIFACT["mediaType"]]


def test_what_was_received_before_a_list_goes_on_elsewhere_is_kept() -> None:
    def answer(got: Got) -> Answer:
        found = listed(got)
        return Answer(found.status, found.body, {**found.headers, "Link": '<https://example.com/x?n=1>; rel="next"'})

    with answers(answer) as server:
        found = referrers_of(IMAGE, client(server.host))
    assert [str(each.digest) for each in found.found] == [ARTIFACT["digest"]]
    assert found.flaw == "the registry's list continues at another place"
