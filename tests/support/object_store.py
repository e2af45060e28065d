"""An object store on loopback that answers as S3 does: moto, from an environment of its own.

It checks no signatures, and its signed URLs never expire: a proxy in front of it refuses them.
"""

import contextlib
import http.client
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.environments import pinned_environment
from tests.support.processes import until
from tests.support.registries import free_port

_BUCKET = "images"
_ACCESS_KEY = "somebody"
_AUTHORIZATION = f"AWS4-HMAC-SHA256 Credential={_ACCESS_KEY}/20200101/us-east-1/s3/aws4_request"
_SERVE = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"


def s3_storage(host: str) -> dict[str, Any]:
    """Return the storage of a registry's configuration: the store at *host*.  Blobs are redirected to it."""
    return {
        "s3": {
            "region": "us-east-1",
            "regionendpoint": f"http://{host}",
            "bucket": _BUCKET,
            "accesskey": _ACCESS_KEY,
            "secretkey": "a secret",
            "secure": False,
        },
        "maintenance": {"uploadpurging": {"enabled": False}},
    }


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[str]:
    """Run a store with an empty bucket, and give its host; *folder* is for its log."""
    python, port = pinned_environment("moto") / "bin" / "python", free_port()
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen([python, "-c", _SERVE, str(port)], stdout=log, stderr=log, env={"PATH": "/usr/bin"})
    try:
        until(lambda: _makes_bucket(port), "the store makes a bucket", 60)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _makes_bucket(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(ConnectionRefusedError):
        connection.request("PUT", f"/{_BUCKET}", headers={"Authorization": _AUTHORIZATION})
        return connection.getresponse().status == http.client.OK
    return False
