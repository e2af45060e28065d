"""An image in a registry is mounted as the same image in a layout is, entry for entry."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import LAYERS
from tests.support.layouts import HOST, IMAGE_LAYOUTS, OTHER, Layout, platform_json
from tests.support.mounts import Bench, tree
from tests.support.registries import Registry, push
from tests.support.requirements import need

_SAME = (None, "gzip", "zstd", "xz", "bzip2")


def everything(mountpoint: Path) -> dict[str, tuple[object, ...]]:
    """Return what stat, readlink and the extended attributes show of each path, except the names of the mount."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, names, files in os.walk(mountpoint):
        for name in (*names, *files, "."):
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            attributes = {key: os.getxattr(path, key) for key in os.listxattr(path) if "imgfs" not in key}
            attributes.pop("user.oci.ref", None)
            found[os.path.relpath(path, mountpoint)] = (
                *(stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid, stat.st_size, stat.st_mtime_ns, stat.st_ino),
                os.readlink(path) if os.path.islink(path) else None,
                attributes,
            )
    return found


@pytest.mark.parametrize("name", ["plain", *_SAME[1:], "docker plain", "docker gzip", "two platforms"])
def test_a_mount_from_a_registry_equals_the_mount_of_the_layout(imgfs: Bench, server: Registry, name: str) -> None:
    layout = IMAGE_LAYOUTS[name]()
    push(layout, server, "same/image:1")
    layout.write(str(imgfs.folder / "layout"))
    here = imgfs.mount(f"oci:{imgfs.folder}/layout:1", at=imgfs.mountpoint("here"))
    there = imgfs.mount(server.image("same/image:1"), at=imgfs.mountpoint("there"))
    assert tree(there) == tree(here)
    assert everything(there) == everything(here)


def test_each_command_takes_an_image_in_a_registry(imgfs: Bench, server: Registry) -> None:
    layout = Layout()
    digest = push(layout.list(layout.image(compression="gzip"), "1"), server, "team/app:v1")
    image, by_digest = server.image("team/app:v1"), server.image(f"team/app@{digest}")
    assert imgfs.run("cat", f"{image}:/etc/motd").out == "hello\n"
    assert imgfs.run("ls", f"{image}:/etc").out == "motd\nos-release\n"
    assert imgfs.run("ls", f"{by_digest}:/bin").out == "sh\n"
    assert imgfs.run("diff", image, by_digest).out == ""
    assert "/etc/motd" in imgfs.run("which", image, "/etc/motd").out
    found = json.loads(imgfs.run("inspect", "--json", image).out)
    assert (found["name"], found["digest"], found["repoDigests"]) == (
        image,
        digest,
        [by_digest.removeprefix("docker://")],
    )
    assert imgfs.run("cat", "--no-cache", f"{image}:/etc/motd").out == "hello\n"
    assert imgfs.run("cat", "--verify", f"{image}:/etc/motd").out == "hello\n"
    mounted = imgfs.mount(f"{image}@{digest}")
    assert os.getxattr(mounted, "user.imgfs.source").decode() == f"docker://{server.host}/team/app"
    assert json.loads((mounted / "index.json").read_bytes())["manifests"][0]["annotations"] == {
        "org.opencontainers.image.ref.name": "v1"
    }


def test_the_platform_is_chosen_from_the_index(imgfs: Bench, server: Registry) -> None:
    layout = Layout()
    other = layout.image(LAYERS[:1], "gzip", OTHER, platform=platform_json(OTHER))
    own = layout.image(LAYERS, "gzip", platform=platform_json(HOST))
    push(layout.list(layout.index(other, own), "1"), server, "two/platforms:1")
    image = server.image("two/platforms:1")
    found = json.loads(imgfs.run("inspect", "--json", "--no-referrers", image).out)
    assert found["platform"] == str(HOST)
    # The manifest of the other platform is not fetched: registries count manifests.
    wanted = ["manifests/1", f"manifests/{own['digest'][7:15]}", "blobs/" + found["id"][7:15]]
    assert server.requests() == [f"GET {path} 200" for path in wanted]
    found = json.loads(imgfs.run("inspect", "--json", "--platform", str(OTHER), image).out)
    assert found["platform"] == str(OTHER)


def test_skopeo_copies_a_mounted_image(imgfs: Bench, server: Registry) -> None:
    need("skopeo")
    layout = Layout()
    digest = push(layout.list(layout.image(compression="gzip"), "1"), server, "team/app:v1")
    mounted = imgfs.mount(server.image("team/app:v1"))
    copied = imgfs.folder / "copied"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{mounted}", f"dir:{copied}"], check=True)
    assert (copied / "manifest.json").read_bytes() == layout.files[f"blobs/{digest.replace(':', '/')}"]


def test_an_artifact_is_mounted_by_its_digest(imgfs: Bench, server: Registry) -> None:
    layout = Layout()
    config = layout.blob("application/vnd.example", b"{}")
    title = {"org.opencontainers.image.title": "model.bin"}
    stored = [layout.blob("application/octet-stream", b"weights", annotations=title)]
    push(layout.list(layout.image([], config=config, stored=stored), "1"), server, "team/model:1")
    done = imgfs.run("mount", "--log-file", imgfs.log, server.image("team/model:1"), imgfs.mountpoint())
    assert "is mounted without rootfs/: it is an artifact" in done.err
    assert (imgfs.folder / "mnt" / "files" / "model.bin").read_bytes() == b"weights"
    imgfs.log_is_quiet = False
