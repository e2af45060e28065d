"""One image, `LAYERS`, as different programs put it into an archive or an image layout."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusefs.oci.platform import Platform
from tests.support.builders import (
    COMPRESSIONS,
    LAYERS,
    Archive,
    archive_of,
    compressed,
    directory,
    hard_link,
    header,
    image_config,
    member,
    padded,
    pax,
    sha256,
    symlink,
)


def _classic_docker() -> bytes:
    """Return what docker save wrote before 25: a folder a layer, a repeated one as a link to the first."""
    names = [f"{sha256(b'%d' % n)[7:]}/layer.tar" for n in range(len(LAYERS))]
    archive = Archive(layer_names=names)
    parts = []
    first: dict[bytes, str] = {}
    for name, data in zip(names, LAYERS, strict=True):
        folder = name.partition("/")[0]
        parts += [directory(f"{folder}/"), member(f"{folder}/VERSION", b"1.0"), member(f"{folder}/json", b"{}")]
        parts.append(symlink(name, f"../{first[data]}") if data in first else member(name, data))
        first.setdefault(data, name)
    config = member(archive.item()["Config"], archive.config_data)
    repositories = member("repositories", json.dumps({"test/image": {"1": names[-1][:64]}}).encode())
    return archive_of(*parts, config, member("manifest.json", archive.manifest_data()), repositories)


def _docker_25() -> bytes:
    """Return what docker save writes since 25: an OCI image layout that also has a manifest list."""
    archive = Archive(
        config_name=f"blobs/sha256/{sha256(image_config(LAYERS))[7:]}",
        layer_names=[f"blobs/sha256/{sha256(data)[7:]}" for data in LAYERS],
    )
    media_type = "application/vnd.oci.image.layer.v1.tar"
    sources = {sha256(data): {"mediaType": media_type, "size": len(data), "digest": sha256(data)} for data in LAYERS}
    return archive_of(
        *(directory("blobs/"), directory("blobs/sha256/")),
        *archive.blobs(),
        member("index.json", b'{"schemaVersion":2,"manifests":null}'),
        member("manifest.json", json.dumps([archive.item() | {"LayerSources": sources}]).encode()),
        member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        member("repositories", b'{"test/image":{"1":"0"}}'),
    )


def _podman() -> bytes:
    """Return what podman, skopeo and buildah write: layers by digest, legacy folders with links to them."""
    archive = Archive()
    legacy = []
    for n, data in enumerate(LAYERS):
        folder = sha256(b"%d" % n)[7:]
        legacy += [
            member(f"{folder}/VERSION", b"1.0"),
            symlink(f"{folder}/layer.tar", f"../{sha256(data)[7:]}.tar"),
            member(f"{folder}/json", b"{}"),
        ]
    manifest = member("manifest.json", archive.manifest_data())
    return archive_of(*archive.blobs(), *legacy, member("repositories", b"{}"), manifest)


def _linked() -> bytes:
    """Return an archive whose layers are hard links, links to links, and links from the root."""
    archive = Archive(layer_names=["a/hard", "a/b/to-link", "a/rooted", "a/b/again"])
    return archive_of(
        *(member(f"store/{n}", data) for n, data in enumerate(LAYERS[:3])),
        hard_link("a/hard", "store/0"),
        symlink("a/b/to-link", "../link"),
        symlink("a/link", "./../store//1"),
        symlink("a/rooted", "/store/2"),
        hard_link("a/b/again", "./a/b/to-link"),
        member(archive.item()["Config"], archive.config_data),
        symlink("manifest.json", "elsewhere/list"),
        member("elsewhere/list", archive.manifest_data()),
    )


def _prefixed(prefix: str) -> bytes:
    """Return an archive as tar itself makes one of a folder: all names begin alike."""
    archive = Archive()
    parts = {archive.item()["Config"]: archive.config_data, "manifest.json": archive.manifest_data()}
    parts |= zip(archive.item()["Layers"], LAYERS, strict=True)
    return archive_of(directory(prefix), *(member(prefix + name, data) for name, data in parts.items()))


def _nix() -> bytes:
    """Return what nix's dockerTools write: a folder a layer, directories as members."""
    names = [f"{sha256(data)[7:]}/layer.tar" for data in LAYERS]
    archive = Archive(layer_names=names)
    folders = (directory(f"./{name[:65]}") for name in dict.fromkeys(names))
    files = dict(zip(names, LAYERS, strict=True)) | {archive.item()["Config"]: archive.config_data}
    blobs = (member(f"./{name}", data) for name, data in files.items())
    return archive_of(directory("./"), *folders, *blobs, member("./manifest.json", archive.manifest_data()))


def _bazel() -> bytes:
    """Return what bazel writes: the manifest list comes first."""
    archive = Archive(layer_names=[f"blobs/sha256/{sha256(data)[7:]}.tar.gz" for data in LAYERS])
    return archive_of(member("manifest.json", archive.manifest_data()), *archive.blobs())


_GZ_NAMES = [f"{sha256(data)[7:]}.tar.gz" for data in LAYERS]
_LONG_NAMES = [f"{'long/' * 30}{sha256(data)[7:]}/layer.tar" for data in LAYERS]


def _pax() -> bytes:
    """Return an archive in which only PAX records say names, link targets and sizes."""
    archive = Archive(layer_names=[*_LONG_NAMES[:3], "repeated"])
    parts = [
        pax({"path": name, "size": str(len(data)), "mtime": "1.5"}) + header("short", 0) + padded(data)
        for name, data in dict(zip(_LONG_NAMES, LAYERS, strict=True)).items()
    ]
    link = pax({"linkpath": _LONG_NAMES[1]}) + header("repeated", 0, b"1", "short")
    documents = [
        member(archive.item()["Config"], archive.config_data),
        member("manifest.json", archive.manifest_data()),
    ]
    return archive_of(pax({"comment": "of all"}, b"g"), *parts, link, *documents)


LAYOUTS: Mapping[str, Callable[[], bytes]] = {
    "docker save before 25": _classic_docker,
    "docker save since 25": _docker_25,
    "podman, skopeo, buildah": _podman,
    "bazel": _bazel,
    "jib": Archive(config_name="config.json", layer_names=_GZ_NAMES).data,
    "crane, kaniko": Archive(config_name=sha256(image_config(LAYERS)), layer_names=_GZ_NAMES).data,
    "nix": _nix,
    "tar of ./": lambda: _prefixed("./"),
    "tar of /": lambda: _prefixed("/"),
    "links": _linked,
    "GNU long names": Archive(layer_names=_LONG_NAMES).data,
    "PAX": _pax,
}
"""How to build each, by the names of the programs."""

HOST = Platform.of_host()
MEDIA_TYPES = {
    "oci": {
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "index": "application/vnd.oci.image.index.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "layer": "application/vnd.oci.image.layer.v1.tar",
        "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
        "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
        "xz": "application/vnd.oci.image.layer.v1.tar",
        "bzip2": "application/vnd.oci.image.layer.v1.tar",
    },
    "docker": {
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "layer": "application/vnd.docker.image.rootfs.diff.tar",
        "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
    },
}
Json = dict[str, Any]


def platform_json(platform: Platform) -> Json:
    """Return *platform* as a descriptor has it."""
    parts = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return {key: value for key, value in parts.items() if value}


class Layout:
    """An image layout in the making: put blobs in, list them, then ask for a tar or a directory."""

    def __init__(self, *, kind: str = "oci", algorithm: str = "sha256") -> None:
        self.types = MEDIA_TYPES[kind]
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.entries: list[Json] = []
        self._algorithm = algorithm

    def digest(self, data: bytes) -> str:
        """Return the digest of *data* by this layout's algorithm."""
        return f"{self._algorithm}:{hashlib.new(self._algorithm, data).hexdigest()}"

    def blob(self, media_type: str, data: bytes, **more: Any) -> Json:
        """Put a blob in and return its descriptor, changed by *more*."""
        digest = self.digest(data)
        self.files[f"blobs/{digest.replace(':', '/')}"] = data
        return {"mediaType": self.types.get(media_type, media_type), "digest": digest, "size": len(data)} | more

    def document(self, media_type: str, document: Json, **more: Any) -> Json:
        """Put a JSON document in and return its descriptor."""
        return self.blob(media_type, json.dumps(document).encode(), **more)

    def image(
        self,
        layers: Sequence[bytes] = LAYERS,
        compression: str | None = None,
        runs_on: Platform = HOST,
        config: Json | None = None,
        stored: Sequence[Json] | None = None,
        **more: Any,
    ) -> Json:
        """Put an image in and return its manifest's descriptor; *config* and *stored* are other descriptors."""
        diff_ids = {"type": "layers", "diff_ids": [self.digest(data) for data in layers]}
        if config is None:
            config = self.blob("config", image_config([], rootfs=diff_ids, **platform_json(runs_on)))
        if stored is None:
            media_type = compression or "layer"
            stored = [self.blob(media_type, compressed(data, compression)) for data in layers]
        manifest = {"schemaVersion": 2, "mediaType": self.types["manifest"], "config": config, "layers": [*stored]}
        return self.document("manifest", manifest, **more)

    def index(self, *below: Json, **more: Any) -> Json:
        """Put an index in and return its descriptor."""
        index = {"schemaVersion": 2, "mediaType": self.types["index"], "manifests": [*below]}
        return self.document("index", index, **more)

    def list(self, descriptor: Json, name: str | None = None, **annotations: str) -> "Layout":
        """List *descriptor* in index.json, under a *name*, and return the layout."""
        if name is not None:
            annotations["org.opencontainers.image.ref.name"] = name
        entry = descriptor | ({"annotations": annotations} if annotations else {})
        self.entries.append(entry)
        return self

    @property
    def all_files(self) -> dict[str, bytes]:
        """Every file, index.json too unless the layout has another one."""
        return {"index.json": json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode()} | self.files

    def tar(self, *more: bytes) -> bytes:
        """Return the layout as a tar, with *more* members."""
        return archive_of(*(member(name, data) for name, data in self.all_files.items()), *more)

    def write(self, path: str) -> None:
        """Write the layout as a directory called *path*."""
        for name, data in self.all_files.items():
            (Path(path) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(path) / name).write_bytes(data)

    def remove(self, descriptor: Json) -> None:
        """Take the blob that *descriptor* describes out again."""
        del self.files[_path(descriptor)]

    def replace(self, descriptor: Json, data: bytes) -> None:
        """Store other *data* where *descriptor* says that its blob is."""
        self.files[_path(descriptor)] = data


def attestation(layout: Layout, image: Json) -> Json:
    """Put an attestation of *image* in, as buildkit does, and return its manifest's descriptor."""
    statement = layout.blob("application/vnd.in-toto+json", b"{}")
    annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}
    platform = {"architecture": "unknown", "os": "unknown"}
    return layout.image([], stored=[statement], platform=platform, annotations=annotations)


def saved_layout(layout: Layout, *images: Json, tags: Sequence[str] | None = ("test/image:1",)) -> bytes:
    """Return *layout* as newer engines save it: with a manifest list of *images*."""
    items = []
    for image in images:
        manifest = json.loads(layout.files[_path(image)])
        layers = [_path(one) for one in manifest["layers"]]
        items.append({"Config": _path(manifest["config"]), "RepoTags": tags, "Layers": layers})
    return layout.tar(member("manifest.json", json.dumps(items).encode()))


def _path(descriptor: Json) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


OTHER = Platform("linux", "mips64le")
"""A platform that no machine running these tests has, nor suits."""


def _one(compression: str | None = None, kind: str = "oci", algorithm: str = "sha256") -> Callable[[], Layout]:
    def build() -> Layout:
        layout = Layout(kind=kind, algorithm=algorithm)
        return layout.list(layout.image(compression=compression), "1")

    return build


def two_platforms(kind: str = "oci", compression: str | None = "gzip") -> tuple[Layout, Json, Json, Json]:
    """Return a layout, an index in it and its images for this platform and another, attestations besides."""
    layout = Layout(kind=kind)
    other = layout.image(LAYERS[:1], compression, OTHER, platform=platform_json(OTHER))
    own = layout.image(LAYERS, compression, platform=platform_json(HOST))
    index = layout.index(other, own, attestation(layout, other), attestation(layout, own))
    return layout, index, own, other


def _of_two_platforms(kind: str) -> Layout:
    layout, index, _, _ = two_platforms(kind)
    return layout.list(index, "1")


def _other_platform_missing() -> Layout:
    layout, index, _, other = two_platforms()
    layout.remove(other)
    return layout.list(layout.index(index), "1")


IMAGE_LAYOUTS: Mapping[str, Callable[[], Layout]] = {
    "plain": _one(),
    **{compression: _one(compression) for compression in COMPRESSIONS},
    "docker plain": _one(kind="docker"),
    "docker gzip": _one("gzip", "docker"),
    "docker zstd": _one("zstd", "docker"),
    "sha512": _one("gzip", algorithm="sha512"),
    "sha384": _one(algorithm="sha384"),
    "two platforms": lambda: _of_two_platforms("oci"),
    "docker, two platforms": lambda: _of_two_platforms("docker"),
    "nested, the other platform is missing": _other_platform_missing,
}
"""How to build each, always with `LAYERS` for this machine, called 1."""


def _kaniko(compression: str) -> Callable[[], bytes]:
    stored = [COMPRESSIONS[compression](data) for data in LAYERS]
    return Archive(layers=stored, config=image_config(LAYERS), config_name="config.json").data


def _containerd_store(kind: str, compression: str) -> bytes:
    layout, index, own, _ = two_platforms(kind, compression)
    layout.list(index, "1", **{"io.containerd.image.name": "docker.io/test/image:1"})
    return saved_layout(layout, own)


COMPRESSED_LAYOUTS: Mapping[str, Callable[[], bytes]] = {
    **{f"kaniko, {compression}": _kaniko(compression) for compression in COMPRESSIONS},
    "containerd store, gzip": lambda: _containerd_store("oci", "gzip"),
    "containerd store, zstd": lambda: _containerd_store("oci", "zstd"),
    "containerd store, docker's types": lambda: _containerd_store("docker", "gzip"),
}
"""Docker archives with `LAYERS` compressed."""
