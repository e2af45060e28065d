"""Images in real engines that are no file system images: artifacts, and Podman's manifest lists."""

import subprocess
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.support.builders import compressed, sha256
from tests.support.engines import RealEngine
from tests.support.layouts import Json, Layout
from tests.support.mounts import Bench, tree

_TITLE = "org.opencontainers.image.title"


class Artifact(NamedTuple):
    """What an artifact consists of."""

    config_type: str
    config: bytes
    layers: Mapping[str, bytes]
    """The bytes of each layer, by its media type."""
    annotations: Mapping[str, str] = {}
    why: str = ""
    """Why there is no file system, where the layers decide."""

    def layout(self, name: str) -> tuple[Layout, Json]:
        """Return an image layout that holds the artifact under *name*, and the descriptor of its manifest."""
        layout = Layout()
        config = layout.blob(self.config_type, self.config)
        stored = [layout.blob(kind, data, annotations={**self.annotations}) for kind, data in self.layers.items()]
        manifest = layout.image(config=config, stored=stored)
        layout.list(manifest, "1", **{"io.containerd.image.name": f"docker.io/{name}:1"})
        return layout, manifest


ARTIFACTS = {
    "helm": Artifact(
        "application/vnd.cncf.helm.config.v1+json",
        b'{"name":"chart"}',
        {"application/vnd.cncf.helm.chart.content.v1.tar+gzip": compressed(b"chart", "gzip")},
    ),
    "wasm": Artifact("application/vnd.wasm.config.v0+json", b'{"os":"wasip1"}', {"application/wasm": b"\0asm\1\0\0\0"}),
    "cosign": Artifact(
        "application/vnd.oci.image.config.v1+json",
        b'{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' % (b"0" * 64),
        {"application/vnd.dev.cosign.simplesigning.v1+json": b'{"critical":{}}'},
        why="layer 0 (application/vnd.dev.cosign.simplesigning.v1+json)",
    ),
    "titled": Artifact(
        "application/vnd.oci.empty.v1+json", b"{}", {"text/plain": b"hello\n"}, {_TITLE: "docs/hello.txt"}
    ),
}


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_artifact_in_a_containerd_store_shows_its_documents_and_blobs(
    imgfs: Bench, docker26_containerd: RealEngine, name: str
) -> None:
    artifact, reference = ARTIFACTS[name], f"artifacts/{name}"
    layout, manifest = artifact.layout(reference)
    path = imgfs.folder / "artifact.tar"
    path.write_bytes(layout.tar())
    docker26_containerd.docker("load", "-i", path)
    try:
        mountpoint = imgfs.mountpoint()
        options = ["--log-file", imgfs.log, "--host", docker26_containerd.host]
        mounted = imgfs.run("mount", *options, f"{reference}:1", mountpoint)
        shown = tree(mountpoint)
    finally:
        docker26_containerd.docker("rmi", "-f", f"{reference}:1")
    why = mounted.err.splitlines()[-2].removeprefix(f"imgfs: warning: {reference}:1 is mounted without rootfs/: ")
    assert why.startswith(artifact.why or f"it is an artifact, its config is {artifact.config_type}")
    assert shown["config"] == artifact.config
    assert sha256(shown["manifest.json"] or b"") == manifest["digest"]
    blobs = {sha256(data): data for data in (artifact.config, *artifact.layers.values())}
    assert {f"sha256:{name[13:]}" for name in shown if name.startswith("blobs/sha256/")} == {*blobs, manifest["digest"]}
    assert all(shown[f"blobs/{digest.replace(':', '/')}"] == data for digest, data in blobs.items())
    assert "rootfs" not in shown
    titled = {path: data for path, data in shown.items() if path.startswith("files/") and data is not None}
    assert titled == ({"files/docs/hello.txt": b"hello\n"} if artifact.annotations else {})


def test_a_manifest_list_of_podman_is_called_so(imgfs: Bench, podman_engine: RealEngine) -> None:
    podman = ["podman", "--remote", "--url", podman_engine.host, "manifest"]
    subprocess.run([*podman, "create", "both:1"], check=True, capture_output=True)
    try:
        failed = imgfs.run("inspect", "--host", podman_engine.host, "both:1")
    finally:
        subprocess.run([*podman, "rm", "both:1"], check=True, capture_output=True)
    hint = "podman manifest inspect both:1 lists its images"
    expected = f"imgfs: both:1 is a manifest list of podman and not an image; {hint}\n"
    assert (failed.status, failed.err) == (4, expected)
