# ruff: noqa: INP001 - a script's module, not a package's
"""Runs tests with each Python that imgfs supports, and with the oldest and the newest packages that it allows.

scripts/test --matrix runs it.  An interpreter is the machine's, or that of a Debian release in a root of its own.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.debian_roots import debian_root, run_in_copy_of
from tests.support.real_image import kept_folder

SOURCES = Path(__file__).parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
RELEASES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
"""The Debian release whose python3 has a version."""
PINS = ("lowest", "dev")
_PACKAGES = (
    *("python3", "python3-venv", "python3-dev", "gcc", "libc6-dev", "pkg-config", "fuse3", "libfuse3-dev"),
    *("attr", "jq", "strace", "util-linux", "procps", "man-db", "git", "kmod", "xfsprogs", "btrfs-progs", "e2fsprogs"),
    *("mmdebstrap", "systemd", "locales", "util-linux-extra"),
)
_TESTS = ("tests/unit", "tests/system/mount")
_SECONDS = 2 * 3600
_GRACE = 60.0
"""Seconds in which tests that are ended may clean up."""

_RUN = """\
{python} -m venv {venv}
pip="{venv}/bin/python -m pip install -qq --disable-pip-version-check --no-build-isolation --root-user-action=ignore"
cd {sources}
$pip --require-hashes -r requirements/build.txt
$pip --require-hashes -r requirements/dev.txt
[ {pins} = dev ] || $pip --require-hashes -r requirements/{pins}.txt
$pip --no-deps --editable .
set +e
export TMPDIR=/var/tmp  # a disk, also in a root in memory
PATH=$PATH:/usr/sbin:/sbin {venv}/bin/python -m pytest -q -p no:cacheprovider --no-header {tests} > {venv}/output 2>&1
status=$?
grep -E "^(FAILED|ERROR)" {venv}/output
tail -n 1 {venv}/output
exit $status
"""


def interpreter(version: str) -> str | None:
    """Return this machine's Python *version* if it can make virtual environments and has its headers."""
    candidates = [
        shutil.which(f"python{version}"),
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    check = (
        "import sys, venv, ensurepip, sysconfig, os;"
        f"sys.exit('%d.%d' % sys.version_info[:2] != '{version}'"
        " or not os.path.exists(sysconfig.get_path('include') + '/Python.h'))"
    )
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", check], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return None


Done = subprocess.CompletedProcess[str]


def with_interpreter(python: str, values: dict[str, object]) -> Done:
    """Run tests with this machine's interpreter *python*."""
    with tempfile.TemporaryDirectory(prefix="imgfs-matrix-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - other users run imgfs, too
        script = _RUN.format(python=python, venv=f"{folder}/venv", **values)
        return run_group(["bash", "-euc", script], _SECONDS)


def run_group(command: list[str], seconds: float) -> Done:
    """Run a *command* to its end; if it takes longer or is interrupted, end all processes that it has started, too."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))  # until its number is known
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            signal.signal(signal.SIGINT, before)
            if interrupts:
                raise KeyboardInterrupt
            output, errors = process.communicate(timeout=seconds)
        except BaseException:
            _end_group(process)
            raise
    return Done(command, process.returncode, output, errors)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End the group of *process*, which is its first: by ^C, after which tests unmount, and by force after `_GRACE`."""
    try:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(_GRACE)  # it may have left others behind, which hold its output open
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def in_release(release: str, values: dict[str, object]) -> Done:
    """Run tests with the python3 of a *release* of Debian, in a root of its own."""
    root = debian_root(release, "matrix-3", *_PACKAGES)
    script = _RUN.format(python="python3", venv="/opt/venv", **values)
    return run_in_copy_of(root, script, SOURCES, kept_folder(), timeout=_SECONDS)


def row(name: str, run_tests: Callable[[], Done]) -> bool | None:
    """Run a row of the matrix, print its result, and return it; None if the machine lacks what the row needs."""
    try:
        done = run_tests()
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:  # what `need` and `give_up` raise
        print(f"{name}: not tested: {missing.msg}", flush=True)
        return None
    except subprocess.TimeoutExpired as late:
        print(f"{name}: not finished after {late.timeout:.0f} s", flush=True)
        return False
    *failures, last = done.stdout.splitlines() or (done.stderr or "").splitlines()[-5:] or ["no tests ran"]
    print(f"{name}: {last}", *failures, sep="\n", flush=True)
    return done.returncode == 0


def run(version: str, pins: str, tests: list[str]) -> bool | None:
    """Run *tests* with Python *version* and the packages *pins*; None if there is no such Python."""
    values: dict[str, object] = {"sources": SOURCES, "pins": pins, "tests": " ".join(tests)}
    name = f"Python {version}, {pins}.txt"
    python = interpreter(version)
    if python:
        return row(name, lambda: with_interpreter(python, values))
    if version in RELEASES:
        return row(name, lambda: in_release(RELEASES[version], values))
    print(f"{name}: not tested: not found on this machine, and in no release of Debian", flush=True)
    return None


def main(arguments: list[str]) -> int:
    """Run the matrix: *arguments* are versions of Python, names of pins, and tests, if not all.

    The status is 1 if a row failed, or none was tested.
    """
    versions = [version for version in VERSIONS if version in arguments] or VERSIONS
    pins = [name for name in PINS if name in arguments] or PINS
    tests = [word for word in arguments if word not in (*VERSIONS, *PINS)] or [*_TESTS]
    os.chdir(SOURCES)
    results = [run(version, name, tests) for version in versions for name in pins]
    return int(False in results or True not in results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
