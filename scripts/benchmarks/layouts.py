"""The image of the benchmark as registries have it: an image layout with gzip layers."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TAG = "latest"


def write_gzip_layout(path: Path, layers: Sequence[Path]) -> None:
    """Write an image layout called `TAG` with the tars *layers*, compressed by gzip at its usual level."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def described(blob: Path, media_type: str) -> dict[str, Any]:
        digest = _digest(blob)
        size = blob.stat().st_size
        blob.rename(blobs / digest)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "size": size, "digest": f"sha256:{digest}"}

    def document(value: dict[str, Any], media_type: str) -> dict[str, Any]:
        unnamed = path / "document"
        unnamed.write_text(json.dumps(value))
        return described(unnamed, media_type)

    stored = []
    for layer in layers:
        unnamed = path / "layer"
        with unnamed.open("wb") as file:
            subprocess.run(["gzip", "--no-name", "--stdout", layer], stdout=file, check=True)
        stored.append(described(unnamed, "layer.v1.tar+gzip"))
    diff_ids = [f"sha256:{_digest(layer)}" for layer in layers]
    config = document(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}, "config.v1+json"
    )
    manifest = document({"schemaVersion": 2, "config": config, "layers": stored}, "manifest.v1+json")
    named = manifest | {"annotations": {"org.opencontainers.image.ref.name": TAG}}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (path / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
