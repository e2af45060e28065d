"""The interpreter of the tests, readable for other users in a mount namespace: it may lie in root's home."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.requirements import ROOT, need
from tests.support.users import USER

_SCRIPT = """
hold=$1 closed=$2 kept=$3; shift 3
if [ -n "$closed" ]; then
    mount --bind "$kept" "$hold" && mount -t tmpfs -o mode=755 t "$closed" && mkdir -p "$kept" &&
    mount --bind "$hold" "$kept" && umount "$hold" || exit 99
fi
eval "$PREPARE"
exec "$@"
"""


def as_user(hold: Path, command: Sequence[str], prepare: str = "") -> tuple[str, ...]:
    """Return the words that run *command* as another user without any capability; *hold* is an empty directory.

    *prepare*: commands of the shell that root runs before, in the same mount namespace.
    """
    need(ROOT, "unshare", "setpriv")
    kept = Path(os.path.realpath(sys.base_prefix))
    closed = next((str(path) for path in reversed(kept.parents) if not path.stat().st_mode & 0o005), "")
    drop = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--ambient-caps=-all")
    script = f"PREPARE={prepare!r}\n{_SCRIPT}"
    return ("unshare", "--mount", "sh", "-c", script, "sh", str(hold), closed, str(kept), *drop, *command)
