"""An object store on loopback that answers as S3 does: moto, from an environment of its own.

It checks no signatures, and its signed URLs never expire: a proxy in front of it refuses them.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.processes import until
from tests.support.real_image import kept_folder
from tests.support.registries import free_port
from tests.support.requirements import give_up

_PINNED = Path(__file__).parents[2] / "requirements" / "moto.txt"
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
    python, port = _python(), free_port()
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


def _python() -> Path:
    """Return the Python of an environment with the pinned moto, made once for all sessions."""
    pinned = hashlib.sha256(_PINNED.read_bytes()).hexdigest()[:8]
    path = kept_folder() / f"moto-{sys.version_info.major}.{sys.version_info.minor}-{pinned}"
    if not path.exists():
        unfinished = path.parent / f"unfinished-moto-{os.getpid()}"
        pip = [f"{unfinished}/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        for words in ([sys.executable, "-m", "venv", str(unfinished)], [*pip, "--require-hashes", "-r", str(_PINNED)]):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(unfinished, ignore_errors=True)
                give_up(f"cannot install moto: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        try:
            unfinished.rename(path)
        except OSError:  # another session was faster
            shutil.rmtree(unfinished)
    return path / "bin" / "python"
