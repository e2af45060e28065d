"""`imgfs inspect --referrers` lists the signatures, SBOMs and attestations of an image in a registry."""

import json
from typing import Any

import pytest

from tests.support.fault_proxy import Fault, Proxy, Reply, headers, status
from tests.support.layouts import HOST, Layout, platform_json
from tests.support.mounts import Bench
from tests.support.referrers import OCI_INDEX, referrers
from tests.support.registries import Registry, push

SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"
SBOM = "application/spdx+json"
Json = dict[str, Any]
DESCRIPTOR = {"mediaType": "application/x", "digest": f"sha256:{1:064}", "size": 1}


def artifact(layout: Layout, kind: str, data: bytes) -> Json:
    """Put an artifact with one file of the type *kind* into *layout*; return its descriptor, as lists have it."""
    empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}")
    stored = [layout.blob(kind, data, annotations={"org.opencontainers.image.title": "file"})]
    return layout.image([], config=empty, stored=stored, artifactType=kind)


def cosigned(server: Registry, digest: str, ending: str, kind: str) -> str:
    """Push what cosign pushes for the image *digest*: a manifest with an image config; return its digest."""
    layout = Layout()
    layout.list(layout.image([], stored=[layout.blob(kind, b"payload")]), "1")
    return push(layout, server, f"team/app:{digest.replace(':', '-')}.{ending}")


def listed(imgfs: Bench, image: str) -> list[tuple[str, str, str]]:
    """Return digest, type and subject of each artifact that is listed for *image*."""
    done = imgfs.run("inspect", "--json", "--referrers", image)
    assert not done.err
    found = json.loads(done.out)["referrers"]
    assert all(each["size"] > 0 for each in found)
    return [(each["digest"], each["artifactType"], each["subject"]) for each in found]


def test_those_under_tags_are_listed_and_mounted_by_their_digests(imgfs: Bench, server: Registry) -> None:
    layout = Layout()
    digest = push(layout.list(layout.image(compression="gzip"), "1"), server, "team/app:1")
    image, tag = server.image("team/app:1"), digest.replace(":", "-")
    assert listed(imgfs, image) == []
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
    shown = imgfs.run("inspect", "--referrers", image).out
    assert f"Referrers    {sbom['digest']} {SBOM} ({sbom['size']} B)\n" in shown
    by_digest = server.image(f"team/app@{sbom['digest']}")
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


def test_nothing_is_asked_without_the_option_or_offline(imgfs: Bench, server: Registry) -> None:
    layout = Layout()
    push(layout.list(layout.image(), "1"), server, "team/app4:1")
    image = server.image("team/app4:1")
    assert json.loads(imgfs.run("inspect", "--json", image).out)["referrers"] is None
    assert len(server.requests()) == 2
    done = imgfs.run("inspect", "--referrers", "--offline", image)
    assert (done.status, "--offline asks no registry" in done.err) == (4, True)
    layout.write(str(imgfs.folder / "layout"))
    done = imgfs.run("inspect", "--referrers", f"oci:{imgfs.folder}/layout")
    assert (done.status, "only a registry knows them" in done.err) == (2, True)
    assert server.requests() == []


def _endless(lists: Fault) -> Fault:
    def fault(asked: Any, reply: Reply) -> Reply:
        return headers(Link='<?last=0>; rel="next"')(asked, lists(asked, reply))

    return fault


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda d: _endless(referrers({d: [DESCRIPTOR]})), (0, "more than 16 pages")),
        (lambda d: referrers({d: [DESCRIPTOR | {"digest": f"sha256:{n:064}"} for n in range(1100)]}, 999), (0, "1000")),
        (lambda d: referrers({d: [{"digest": "sha256:1"}]}), (5, "manifests[0]")),
        (lambda _: status(200, b"<html>", Content_Type="text/html"), (0, "")),
        (lambda _: status(200, b"", Content_Type=OCI_INDEX), (3, "sends nothing")),
        (lambda _: status(200, b"[" * 100_000, Content_Type=OCI_INDEX), (5, "JSON")),
        (lambda _: status(200, b" " * (5 << 20), Content_Type=OCI_INDEX), (5, "more than 4194304 bytes")),
        (lambda _: status(200, b"{}", Content_Type=OCI_INDEX, Link='<//evil/x>; rel="next"'), (3, "another place")),
        (lambda _: status(200, b"{}", Content_Type=OCI_INDEX, Link='<http://[>; rel="next"'), (3, "another place")),
        (lambda _: status(401), (4, "denies access")),
        (lambda _: status(403), (4, "denies access to list of referrers")),
        (lambda _: status(418), (3, "answers 418")),
    ],
)  # fmt: skip
def test_a_bad_list_is_one_line(
    imgfs: Bench, server: Registry, proxy: Proxy, fault: Any, expected: tuple[int, str]
) -> None:
    layout = Layout()
    digest = push(layout.list(layout.image(), "1"), server, "team/app5:1")
    proxy.always["referrers/"] = fault(digest)
    done = imgfs.run("inspect", "--progress", "none", "--timeout", "1", "--referrers", proxy.image("team/app5:1"))
    assert (done.status, expected[1] in done.err, done.err.count("\n") <= 1) == (expected[0], True, True), done
    assert len(proxy.requests()) <= 2 + 16 + 4 + 8


def test_a_cosign_tag_with_nonsense_is_one_line(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    layout = Layout()
    push(layout.list(layout.image(), "1"), server, "team/app6:1")
    proxy.always[".sig"] = status(200, b"{", Content_Type=SIGNATURE)
    done = imgfs.run("inspect", "--referrers", proxy.image("team/app6:1"))
    assert (done.status, done.err.count("\n")) == (5, 1)
