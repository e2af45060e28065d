# ruff: noqa: INP001 - a script's module, not a package's
"""Packs the images of scripts/demo into the current directory, as `docker save` writes them.

demo.tar has two layers more than base.tar: one adds a secret, the other deletes it and changes a file.
"""

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Mapping, Sequence

MODES = {"bin/hello": 0o755}
BASE = (
    "ADD hello /bin",
    {"bin/hello": "#!/bin/sh\necho hello\n", "etc/os-release": "ID=demo\n", "etc/motd": "Welcome!\n"},
)
ADDED = ("COPY password /etc", {"etc/password": "correct horse battery staple\n"})
DELETED = (
    "RUN rm /etc/password && echo hello > /etc/motd",
    {"etc/.wh.password": "", "etc/motd": "Hello from imgfs.\n"},
)
NOW = int(time.time())


def tar(files: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed tar of *files*."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), NOW, MODES.get(name, 0o644)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def image(name: str, layers: Sequence[tuple[str, Mapping[str, str]]]) -> bytes:
    """Return a Docker archive of *layers*, each a command and the files that it wrote."""
    tars = [tar({path: text.encode() for path, text in files.items()}) for _, files in layers]
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {"Cmd": ["/bin/hello"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in tars]},
        "history": [{"created": created, "created_by": command} for command, _ in layers],
    }
    names = [f"{number}/layer.tar" for number in range(len(tars))]
    items = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    documents = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(items).encode()}
    return tar(dict(zip(names, tars, strict=True)) | documents)


def main() -> None:
    """Write both archives."""
    for name, layers in (("base", [BASE]), ("demo", [BASE, ADDED, DELETED])):
        with open(f"{name}.tar", "wb") as file:
            file.write(image(f"{name}:latest", layers))


if __name__ == "__main__":
    main()
