"""The interpreter and imgfs, readable for other users in a mount namespace: both may lie in the home of root."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.requirements import ROOT, need
from tests.support.users import USER

_REPOSITORY = Path(__file__).parents[2]


def as_user(hold: Path, command: Sequence[str], prepare: str = "") -> tuple[str, ...]:
    """Return the words that run *command* as another user without any capability; *hold* is an empty directory.

    *prepare*: commands of the shell that root runs before, in the same mount namespace.
    """
    need(ROOT, "unshare", "setpriv")
    drop = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--ambient-caps=-all")
    script = f'set -e\n{_opened(hold)}\nset +e\n{prepare}\nexec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh", *drop, *command)


def _opened(hold: Path) -> str:
    """Return commands that replace closed folders by ones that have the interpreter and the checkout alone."""
    wanted = {Path(os.path.realpath(path)) for path in (sys.base_prefix, sys.prefix, _REPOSITORY)}
    closed = {path: folder for path in wanted if (folder := _closed(path))}
    kept = [path for path in closed if not wanted & {*path.parents}]
    if not kept:
        return ""
    aside = {path: shlex.quote(f"{hold}/{number}") for number, path in enumerate(kept)}
    lines = [f"mount -t tmpfs t {shlex.quote(str(hold))}"]
    lines += [f"mkdir {to}; mount --bind {shlex.quote(str(path))} {to}" for path, to in aside.items()]
    lines += [f"mount -t tmpfs -o mode=755 t {shlex.quote(folder)}" for folder in {closed[path] for path in kept}]
    for path, to in aside.items():
        back = shlex.quote(str(path))
        lines.append(f"mkdir -p {back}; mount --bind {to} {back}")
    return "\n".join([*lines, f"umount -l {shlex.quote(str(hold))}"])


def _closed(path: Path) -> str:
    """Return the outermost folder above *path* that other users may not enter, empty if there is none."""
    return next((str(folder) for folder in reversed(path.parents) if not folder.stat().st_mode & 0o005), "")
