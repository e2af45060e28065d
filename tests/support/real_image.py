"""A real image: a Debian with nginx, built into several layers, one of them twice."""

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

from tests.support.requirements import give_up, need

NGINX = "nginx:latest"
OTHER = "other:1"
SMALL = "small:1"
EMPTY = "empty:1"
"""An image without layers, which Docker's classic store refuses to save."""

# Into the root, whose times no layer has: those of another folder would be the hour of the build.
_DOCKERFILE = """\
FROM base:1
LABEL org.example.purpose="a test"
ENV GREETING=hello
COPY --chown=33:33 again /again
ADD noise /noise
COPY other /other
COPY --chown=33:33 again /again
CMD ["nginx"]
"""
_OTHER = 'FROM base:1\nCOPY other /other\nCMD ["sh"]\n'
_EMPTY = "FROM scratch\nLABEL nothing=here\n"


def kept_folder() -> Path:
    """Return the folder of what is made once for all sessions."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgfs-tests"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def root_file_system() -> Path:
    """Return a tar of a Debian with nginx, made once for all sessions."""
    cache = kept_folder()
    path = cache / "debian-12-nginx-1.tar"
    if not path.exists():
        need("mmdebstrap")
        unfinished = cache / f"unfinished-{os.getpid()}.tar"
        command = ["mmdebstrap", "--variant=minbase", "--include=nginx-light,curl", "bookworm", str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            unfinished.unlink(missing_ok=True)
            give_up(f"mmdebstrap fails: {done.stderr.strip().splitlines()[-1]}")
        unfinished.rename(path)
    return path


def import_small(folder: Path, environment: dict[str, str]) -> None:
    """Make the small image in the engine that *environment* names."""
    with tarfile.open(folder / "small.tar", "w") as tar:
        member = tarfile.TarInfo("hello")
        member.size = 6
        tar.addfile(member, io.BytesIO(b"hello\n"))
    command = ["docker", "import", str(folder / "small.tar"), SMALL]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def build(folder: Path, environment: dict[str, str]) -> None:
    """Build the images in the engine that *environment* names; *folder* is for the context."""
    subprocess.run(["docker", "import", root_file_system(), "base:1"], env=environment, check=True, capture_output=True)
    files = {"again": b"the same\n", "other": b"x" * 70_000, "noise": random.Random(3).randbytes(20_000_000)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    for tag, text in ((NGINX, _DOCKERFILE), (OTHER, _OTHER), (EMPTY, _EMPTY)):
        (folder / "Dockerfile").write_text(text)
        # Not BuildKit: classic storage and its repeated layers are what is wanted.
        subprocess.run(
            ["docker", "build", "-q", "-t", tag, folder],
            env=environment | {"DOCKER_BUILDKIT": "0"},
            check=True,
            capture_output=True,
        )
