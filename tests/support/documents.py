"""The documents that imgfs generates for the images of `builders`, written down byte by byte."""

from collections.abc import Sequence

from tests.support.builders import compressed, sha256

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def oci_manifest(config: bytes, layers: Sequence[bytes], compression: str | None = None) -> bytes:
    """Return the OCI manifest that is generated for *layers* stored with *compression*."""
    media = "application/vnd.oci.image"
    suffix = f"+{compression}" if compression in ("gzip", "zstd") else ""  # OCI has no other
    entries = ",".join(
        f'{{"mediaType":"{media}.layer.v1.tar{suffix}","size":{len(data)},"digest":"{sha256(data)}"}}'
        for data in (compressed(layer, compression) for layer in layers)
    )
    return (
        f'{{"schemaVersion":2,"mediaType":"{media}.manifest.v1+json",'
        f'"config":{{"mediaType":"{media}.config.v1+json","size":{len(config)},"digest":"{sha256(config)}"}},'
        f'"layers":[{entries}]}}'
    ).encode()


def oci_index(manifest: bytes, tag: str = "1") -> bytes:
    """Return the index.json that lists *manifest*, of an image for linux/amd64."""
    media = "application/vnd.oci.image"
    return (
        f'{{"schemaVersion":2,"mediaType":"{media}.index.v1+json","manifests":[{{'
        f'"mediaType":"{media}.manifest.v1+json","size":{len(manifest)},"digest":"{sha256(manifest)}",'
        f'"platform":{{"architecture":"amd64","os":"linux"}},'
        f'"annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}}}]}}'
    ).encode()
