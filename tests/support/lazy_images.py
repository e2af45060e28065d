"""Images whose layers can be read piece by piece, made by the programs that make them: skopeo 1.18 and ctr-remote."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.chunked_layers import Chunked, estargz, zstd_chunked
from tests.support.layouts import Layout
from tests.support.modern_engines import debian_13, inside
from tests.support.requirements import ROOT, need

_PACKAGES = "skopeo,ca-certificates,containerd,stargz-snapshotter"
_CONVERT = """
containerd --root /var/lib/c --state /run/c --address /run/c.sock >/run/log 2>&1 &
until ctr --address /run/c.sock version >/dev/null 2>&1; do sleep 0.05; done
tar -C "$1" -c . | ctr-remote --address /run/c.sock images import --no-unpack --base-name plain -
ctr-remote --address /run/c.sock images convert --oci --estargz plain:1 lazy:1
ctr-remote --address /run/c.sock images export "$2" lazy:1
"""


def lazy_root() -> Path:
    """Return the root of a Debian 13 with both programs."""
    need(ROOT, "unshare")
    return debian_13("lazy-1", _PACKAGES)


@pytest.fixture(scope="session", name="lazy_root")
def lazy_root_fixture() -> Path:
    """Give the root of a Debian 13 with both programs."""
    return lazy_root()


def by_skopeo(root: Path, folder: Path, layout: Layout) -> Layout:
    """Return *layout*, whose only image is called 1, with layers in zstd:chunked; *folder* is below ``/var/tmp``."""
    layout.write(str(folder / "plain"))
    arguments = ["--dest-compress-format", "zstd:chunked", f"oci:{folder}/plain:1", f"oci:{folder}/converted:1"]
    _run(root, folder, "skopeo", "--insecure-policy", "copy", *arguments)
    return _read(folder / "converted")


def by_ctr_remote(root: Path, folder: Path, layout: Layout) -> Layout:
    """Return *layout*, whose only image is called 1, with layers in eStargz; *folder* is below ``/var/tmp``."""
    layout.write(str(folder / "plain"))
    archive, converted = folder / "converted.tar", folder / "converted"
    _run(root, folder, "bash", "-euc", _CONVERT, "convert", f"{folder}/plain", str(archive))
    converted.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", converted], check=True)  # tarfile's filters are newer than 3.11.2
    return _read(converted)


def of_layers(*layers: Chunked) -> Layout:
    """Return a layout of an image of *layers*, called 1."""
    layout = Layout()
    media_type = "application/vnd.oci.image.layer.v1.tar+" + ("zstd" if layers[0].blob[:1] == b"\x28" else "gzip")
    stored = [layout.blob(media_type, layer.blob, annotations=layer.annotations) for layer in layers]
    return layout.list(layout.image([layer.tar for layer in layers], stored=stored), "1")


def _run(root: Path, folder: Path, *command: str) -> None:
    done = subprocess.run(inside(root, [folder], *command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _read(folder: Path) -> Layout:
    """Return the layout in *folder*."""
    layout = Layout()
    for path in (folder / "blobs").rglob("*"):
        if path.is_file():
            layout.files[str(path.relative_to(folder))] = path.read_bytes()
    (entry,) = json.loads((folder / "index.json").read_bytes())["manifests"]
    entry.pop("annotations", None)
    return layout.list(entry, "1")


def _gzip(*tars: bytes) -> Layout:
    layout = Layout()
    return layout.list(layout.image(tars, compression="gzip"), "1")


FORMATS: dict[str, Callable[..., Layout]] = {
    "gzip": _gzip,
    "zstd-chunked": lambda *tars: of_layers(*map(zstd_chunked, tars)),
    "estargz": lambda *tars: of_layers(*map(estargz, tars)),
}
"""What makes an image, called 1, of layers with these plain tars, by their format: the first is read whole."""
