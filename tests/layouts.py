"""One image, `LAYERS`, as different programs put it into a Docker archive."""

import json
from collections.abc import Callable, Mapping

from tests.builders import (
    LAYERS,
    Archive,
    archive_of,
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
