"""The commands that look at an image, run to their end."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import Archive, compressed
from tests.support.hostile_image import BASE, CONFIG, UPPER
from tests.support.mounts import COMMAND, Finished


@pytest.fixture(name="own_cache")
def own_cache_fixture(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep nothing of these images where the user's are kept."""
    monkeypatch.setenv("IMGFS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(name="image", scope="module", params=[None, "gzip"])
def archive_of_two_layers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of two layers, stored plain and compressed."""
    stored = [compressed(data, request.param) for data in (BASE, UPPER)]
    return Archive(layers=stored, config=CONFIG).write(tmp_path_factory.mktemp("image") / "image.tar")


def imgfs(*words: str | Path, cwd: Path | None = None, stdin: bytes = b"", **environment: str) -> Finished:
    """Run the command to its end; what it prints must be safe on a terminal."""
    done = subprocess.run(
        [COMMAND, *map(str, words)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env=os.environ | {"TZ": "UTC"} | environment,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def printed(*words: str | Path, **how: Any) -> list[str]:
    """Return the lines that the command prints, which must all be printable."""
    done = imgfs(*words, **how)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line for line in done.out.split("\n") if not line.isprintable()] == []
    return lines


def document(*words: str | Path) -> Any:
    """Return what the command prints as JSON, all of it ASCII without a control character."""
    done = imgfs(*words)
    assert (done.status, done.err) == (0, "")
    assert done.out.isascii()
    assert done.out.replace("\n", "").isprintable()
    return json.loads(done.out)


def refused(*words: str | Path, **how: Any) -> tuple[int, str]:
    """Return the exit status and the one line of an error."""
    done = imgfs(*words, **how)
    assert (done.out, done.err[:7], done.err.count("\n")) == ("", "imgfs: ", 1)
    assert done.err[:-1].isprintable()
    return done.status, done.err[7:-1]
