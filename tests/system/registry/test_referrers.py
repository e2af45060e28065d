"""`imgfs inspect` lists the signatures, SBOMs and attestations of an image in a registry."""

import json
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.fault_proxy import Asked, Fault, Proxy, Reply, headers, status
from tests.support.layouts import HOST, Layout, platform_json
from tests.support.mounts import Bench
from tests.support.referrers import OCI_INDEX, referrers
from tests.support.registries import Registry, push, registry
from tests.support.terminals import Terminal

SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"
SBOM = "application/spdx+json"
Json = dict[str, Any]
DESCRIPTOR = {"mediaType": "application/x", "digest": f"sha256:{1:064}", "size": 1}


def dropped(_: Asked, __: Reply) -> Reply:
    """End the connection without an answer."""
    raise ConnectionResetError


def artifact(layout: Layout, kind: str, data: bytes) -> Json:
    """Put an artifact with one file of the type *kind* into *layout*; return its descriptor, as lists have it."""
    empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}")
    stored = [layout.blob(kind, data, annotations={"org.opencontainers.image.title": "file"})]
    return layout.image([], config=empty, stored=stored, artifactType=kind)


def cosigned(server: Registry, digest: str, ending: str, kind: str, repository: str = "team/app") -> str:
    """Push what cosign pushes for the image *digest*: a manifest with an image config; return its digest."""
    layout = Layout()
    layout.list(layout.image([], stored=[layout.blob(kind, b"payload")]), "1")
    return push(layout, server, f"{repository}:{digest.replace(':', '-')}.{ending}")


def listed(imgfs: Bench, image: str) -> list[tuple[str, str, str]]:
    """Return digest, type and subject of each artifact that is listed for *image*."""
    done = imgfs.run("inspect", "--json", image)
    assert not done.err
    document = json.loads(done.out)
    assert document["referrersComplete"]
    assert all(each["size"] > 0 for each in document["referrers"])
    return [(each["digest"], each["artifactType"], each["subject"]) for each in document["referrers"]]


def test_those_under_tags_are_listed_and_mounted_by_their_digests(imgfs: Bench, server: Registry) -> None:
    layout = Layout()
    digest = push(layout.list(layout.image(compression="gzip"), "1"), server, "team/app:1")
    image, tag = server.image("team/app:1"), digest.replace(":", "-")
    assert listed(imgfs, image) == []
    assert "Referrers    none\n" in imgfs.run("inspect", image).out
    fallback = Layout()
    sbom = artifact(fallback, SBOM, b"an SBOM")
    push(fallback.list(fallback.index(sbom), "1"), server, f"team/app:{tag}")
    signature = cosigned(server, digest, "sig", SIGNATURE)
    attestation = cosigned(server, digest, "att", "application/vnd.dsse.envelope.v1+json")
    server.requests()
    assert listed(imgfs, image) == [
        (sbom["digest"], SBOM, digest),
        (signature, SIGNATURE, digest),
        (attestation, "application/vnd.dsse.envelope.v1+json", digest),
    ]
    short = f"sha256-{digest[7:]}"
    assert sorted(server.requests()) == sorted(
        ["HEAD manifests/1 200", f"GET /v2/team/app/referrers/{digest[7:15]} 404"]
        + [f"GET manifests/{short}{end}" for end in (" 200", ".sig 200", ".att 200", ".sbom 404")]
    )
    shown = imgfs.run("inspect", image).out
    assert f"Referrers    {sbom['digest']}  {sbom['size']} B  {SBOM}\n" in shown
    by_digest = server.image(f"team/app@{sbom['digest']}")
    assert listed(imgfs, by_digest) == []
    of_sbom = cosigned(server, sbom["digest"], "sig", SIGNATURE)
    assert listed(imgfs, by_digest) == [(of_sbom, SIGNATURE, sbom["digest"])]
    assert imgfs.run("mount", "--log-file", imgfs.log, by_digest, imgfs.mountpoint()).status == 0
    assert (imgfs.folder / "mnt" / "files" / "file").read_bytes() == b"an SBOM"
    imgfs.log_is_quiet = False  # it says that there is no rootfs/


def test_the_list_of_the_registry_is_read_page_by_page(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    layout = Layout()
    manifest = layout.image(compression="gzip", platform=platform_json(HOST))
    index = push(layout.list(layout.index(manifest), "1"), server, "team/app2:1")
    some = [DESCRIPTOR | {"digest": f"sha256:{n:064}", "artifactType": SBOM} for n in range(5)]
    proxy.always["referrers/"] = referrers({index: some[:3], manifest["digest"]: some[2:]}, page=2)
    found = listed(imgfs, proxy.image("team/app2:1"))
    expected = [(each["digest"], SBOM, index) for each in some[:3]]
    assert found == expected + [(each["digest"], SBOM, manifest["digest"]) for each in some[3:]]
    lists = [request for request in proxy.requests() if "referrers" in request]
    assert len(lists) == 4
    assert listed(imgfs, proxy.image(f"team/app2@{manifest['digest']}"))[0] == (
        some[2]["digest"],
        SBOM,
        manifest["digest"],
    )


def test_an_attestation_beside_the_image_in_its_index_is_listed(imgfs: Bench, server: Registry) -> None:
    layout = Layout()
    manifest = layout.image(compression="gzip", platform=platform_json(HOST))
    notes = {"vnd.docker.reference.digest": manifest["digest"], "vnd.docker.reference.type": "attestation-manifest"}
    stored = [layout.blob("application/vnd.in-toto+json", b"{}")]
    beside = layout.image([], stored=stored, annotations=notes, platform={"os": "unknown", "architecture": "unknown"})
    push(layout.list(layout.index(manifest, beside), "1"), server, "team/app3:1")
    assert listed(imgfs, server.image("team/app3:1")) == [
        (beside["digest"], "attestation-manifest", manifest["digest"])
    ]


def test_nothing_is_asked_offline_or_without_referrers_or_by_other_commands(imgfs: Bench, server: Registry) -> None:
    layout = Layout()
    manifest = layout.image(compression="gzip", platform=platform_json(HOST))
    notes = {"vnd.docker.reference.digest": manifest["digest"], "vnd.docker.reference.type": "attestation-manifest"}
    beside = layout.image([], annotations=notes, platform={"os": "unknown", "architecture": "unknown"})
    push(layout.list(layout.index(manifest, beside), "1"), server, "team/app4:1")
    image = server.image("team/app4:1")
    for words in (
        *(["inspect", "--no-referrers", image], ["ls", image], ["cat", f"{image}:/etc/motd"], ["which", image, "/bin"]),
        *(["diff", image, image], ["report", image, "-o", "report.html"], ["find", image], ["waste", image]),
        *(["du", image], ["cp", f"{image}:/etc/motd", "motd"], ["mount", image, imgfs.mountpoint()]),
    ):
        done = imgfs.run(*words, cwd=imgfs.folder)
        assert (done.status, "Referrers" in done.out) == (0, False), done
    assert [line for line in server.requests() if "referrers" in line or "sha256-" in line] == []
    for words, digests, complete in (
        (["--no-referrers", image], None, None),
        (["--offline", image], [beside["digest"]], False),
        (["--offline", image.replace(":1", f"@{manifest['digest']}")], None, False),
    ):
        done = imgfs.run("inspect", "--json", *words)
        found = json.loads(done.out)
        shown = found["referrers"] and [each["digest"] for each in found["referrers"]]
        assert (done.status, done.err, shown, found["referrersComplete"]) == (0, "", digests, complete)
    shown = imgfs.run("inspect", "--offline", image).out
    assert f"Referrers    {beside['digest']}  {beside['size']} B  attestation-manifest\n" in shown
    assert "             others are unknown: --offline asks no registry\n" in shown
    assert [line for line in server.requests() if not line.startswith("HEAD")] == []


def test_of_an_image_that_is_in_no_registry_nothing_is_said(imgfs: Bench) -> None:
    layout = Layout()
    layout.list(layout.image(), "1").write(str(imgfs.folder / "layout"))
    for words in ([], ["--referrers"]):
        done = imgfs.run("inspect", *words, f"oci:{imgfs.folder}/layout")
        assert (done.status, done.err, "Referrers" in done.out) == (0, "", False)
    found = json.loads(imgfs.run("inspect", "--json", f"oci:{imgfs.folder}/layout").out)
    assert (found["referrers"], found["referrersComplete"]) == (None, None)


def test_what_refers_to_manifest_and_index_is_asked_for_in_two_rounds(
    imgfs: Bench, server: Registry, proxy: Proxy
) -> None:
    layout = Layout()
    digest = push(layout.list(layout.index(layout.image(platform=platform_json(HOST))), "1"), server, "team/app7:1")
    cosigned(server, digest, "sbom", SBOM, "team/app7")
    assert imgfs.run("inspect", "--no-referrers", proxy.image("team/app7:1")).status == 0
    proxy.requests()
    rounds = [threading.Barrier(parties, timeout=10) for parties in (6, 4)]
    lock, begun = threading.Lock(), [0]

    def met(_: Asked, reply: Reply) -> Reply:
        with lock:
            number, begun[0] = begun[0], begun[0] + 1
        rounds[number // 6].wait()
        return reply

    proxy.always["/referrers/"] = proxy.always["/sha256-"] = met
    assert [kind for _, kind, _ in listed(imgfs, proxy.image("team/app7:1"))] == [SBOM]
    assert len({asked.path for asked in proxy.asked}) == len(proxy.asked) == 1 + 6 + 4


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda d: _endless(referrers({d: [DESCRIPTOR]})), (1, "more than 16 pages")),
        (lambda d: referrers({d: [DESCRIPTOR | {"digest": f"sha256:{n:064}"} for n in range(1100)]}, 999),
         (1000, "there are more than 1000")),
        (lambda d: _second_page(referrers({d: [DESCRIPTOR] * 2}, 1), status(404)), (1, "no list of referrers")),
        (lambda d: referrers({d: [{"digest": "sha256:1"}]}), (None, "manifests[0]")),
        (lambda _: status(200, b"<html>", Content_Type="text/html"), (0, "")),
        (lambda _: status(501), (0, "")),
        (lambda _: status(200, b"", Content_Type=OCI_INDEX), (None, "sends nothing")),
        (lambda _: status(200, b"[" * 100_000, Content_Type=OCI_INDEX), (None, "JSON")),
        (lambda _: status(200, b" " * (5 << 20), Content_Type=OCI_INDEX), (None, "more than 4194304 bytes")),
        (lambda _: status(200, b"{}", Content_Type=OCI_INDEX, Link='<//evil/x>; rel="next"'), (None, "another place")),
        (lambda _: status(200, b"{}", Content_Type=OCI_INDEX, Link='<http://[>; rel="next"'), (None, "another place")),
        (lambda _: status(401), (None, "denies access")),
        (lambda _: status(403), (None, "denies access to list of referrers")),
        (lambda _: status(418), (None, "answers 418")),
        (lambda _: status(500), (None, "answers 500")),
        (lambda _: status(429, Retry_After="3600"), (None, "answers 429 Too Many Requests")),
        (lambda _: dropped, (None, "cannot reach the registry")),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_read_is_a_warning(
    imgfs: Bench, server: Registry, proxy: Proxy, fault: Any, expected: tuple[int | None, str]
) -> None:
    count, flaw = expected
    layout = Layout()
    digest = push(layout.list(layout.image(), "1"), server, "team/app5:1")
    image = proxy.image("team/app5:1")
    whole = json.loads(imgfs.run("inspect", "--json", "--no-referrers", image).out)
    proxy.requests()
    proxy.always["referrers/"] = fault(digest)
    done = imgfs.run("inspect", "--progress", "none", "--json", image)
    found = json.loads(done.out)
    assert (done.status, None if found["referrers"] is None else len(found["referrers"])) == (0, count)
    assert found["referrersComplete"] is not bool(flaw)
    warning = f"imgfs: warning: {image}: cannot list all signatures, SBOMs and attestations: "
    assert (done.err.startswith(warning), flaw in done.err, done.err.count("\n")) == (
        (True, True, 1) if flaw else (False, True, 0)
    ), done
    unknown = {"referrers": None, "referrersComplete": None}
    assert found | unknown == whole
    assert len(proxy.requests()) <= 1 + 16 + 4 + 1
    shown = imgfs.run("inspect", "--progress", "none", image)
    assert (shown.status, "unknown: " in shown.out, flaw in shown.out) == (0, bool(flaw), True)


def _endless(lists: Fault) -> Fault:
    def fault(asked: Asked, reply: Reply) -> Reply:
        following = int(parse_qs(urlsplit(asked.path).query).get("n", ["0"])[0]) + 1
        return headers(Link=f'<?n={following}>; rel="next"')(asked, lists(asked, reply))

    return fault


def _second_page(lists: Fault, second: Fault) -> Fault:
    return lambda asked, reply: (second if "last=" in asked.path else lists)(asked, reply)


def test_a_list_whose_pages_go_round_is_asked_for_once(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    layout = Layout()
    digest = push(layout.list(layout.image(), "1"), server, "team/app8:1")
    lists = referrers({digest: [DESCRIPTOR]})
    proxy.always["referrers/"] = lambda asked, reply: headers(Link='<?last=0>; rel="next"')(asked, lists(asked, reply))
    done = imgfs.run("inspect", "--json", proxy.image("team/app8:1"))
    assert (done.status, len(json.loads(done.out)["referrers"]), done.err.count("\n")) == (0, 1, 1)
    assert len([line for line in proxy.requests() if "referrers" in line or "?last" in line]) == 2


def test_a_cosign_tag_with_nonsense_is_a_warning(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    layout = Layout()
    digest = push(layout.list(layout.image(), "1"), server, "team/app6:1")
    attestation = cosigned(server, digest, "att", "application/vnd.dsse.envelope.v1+json", "team/app6")
    proxy.always[".sig"] = status(200, b"{", Content_Type=SIGNATURE)
    done = imgfs.run("inspect", proxy.image("team/app6:1"))
    assert (done.status, done.err.count("\n"), "others are unknown: " in done.out) == (0, 1, True)
    assert f"Referrers    {attestation}" in done.out


def test_a_registry_that_is_gone_is_a_warning(imgfs: Bench, tmp_path: Path) -> None:
    layout = Layout()
    with registry(tmp_path) as made:
        digest = push(layout.list(layout.image(), "1"), made)
        image, by_digest = made.image(), made.image(f"team/app@{digest}")
        assert imgfs.run("inspect", image).status == 0
    gone = f"cannot reach the registry {made.host}: Connection refused\n"
    for name, warning in (
        (image, "using the cached image, which may be old"),
        (by_digest, "cannot list all signatures, SBOMs and attestations"),
    ):
        done = imgfs.run("inspect", name)
        assert (done.status, done.err) == (0, f"imgfs: warning: {name}: {warning}: {gone}")
        assert f"Referrers    unknown: {gone}" in done.out
        assert imgfs.run("inspect", "--no-referrers", by_digest).err == ""


def test_a_registry_that_dies_after_the_manifest_is_a_warning(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    layout = Layout()
    push(layout.list(layout.image(), "1"), server, "team/app9:1")
    proxy.always["blobs/"] = lambda _, reply: _last(proxy, reply)
    done = imgfs.run("inspect", proxy.image("team/app9:1"))
    assert (done.status, done.err.count("\n")) == (0, 1)
    assert "cannot list all signatures, SBOMs and attestations: cannot reach the registry" in done.err


def _last(proxy: Proxy, reply: Reply) -> Reply:
    """Let every further request break."""
    proxy.always[""] = dropped
    return reply


def test_a_registry_that_wants_credentials_meanwhile_is_a_warning(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    layout = Layout()
    digest = push(layout.list(layout.image(), "1"), server, "team/app10:1")
    image = proxy.image(f"team/app10@{digest}")
    assert imgfs.run("inspect", image).err == ""
    proxy.always["/v2/"] = status(401, WWW_Authenticate='Basic realm="registry"')
    done = imgfs.run("inspect", image)
    assert (done.status, done.err.count("\n"), "denies access" in done.err) == (0, 1, True)
    (imgfs.folder / "auth.json").write_text("nonsense")
    done = imgfs.run("inspect", "--authfile", imgfs.folder / "auth.json", image)
    assert (done.status, done.err.count("\n"), "is not JSON" in done.err) == (0, 1, True)


@pytest.mark.parametrize(("columns", "shown"), [(80, "simplesigning"), (40, "000  application/…")])
def test_a_terminal_shows_some_of_many(imgfs: Bench, server: Registry, proxy: Proxy, columns: int, shown: str) -> None:
    layout = Layout()
    digest = push(layout.list(layout.image(), "1"), server, "team/app11:1")
    many = [DESCRIPTOR | {"digest": f"sha256:{n:064}", "artifactType": f"{SIGNATURE}\x1b[2J"} for n in range(30)]
    proxy.always["referrers/"] = referrers({digest: many})
    terminal = Terminal(imgfs, "inspect", "--progress", "none", proxy.image("team/app11:1"), columns=columns)
    assert terminal.end() == 0
    lines = [line for line in terminal.seen.splitlines() if shown in line]
    assert (len(lines), max(map(len, lines)) <= columns) == (20, True)
    assert "and 10 more; --no-trunc lists all" in re.sub("\r\n {13}", "", terminal.seen)
    assert "\x1b" not in re.sub("\x1b\\[[0-9]*m", "", terminal.seen)
