"""The commands that look at an image, run to their end."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.mounts import COMMAND, Finished


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
