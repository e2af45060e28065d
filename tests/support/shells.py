"""Real shells on a terminal, in which a test presses keys."""

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.requirements import need

_PATIENCE = 20
_DUMP = "\x18\x14"
"""Keys, Ctrl-X Ctrl-T, at which the shell shows the line that it edits."""
_READY = re.compile("(ready> )")
_SHOWN = re.compile(r"<<<(.*?)>>>", re.DOTALL)

_BEGINNINGS = {
    "bash": r"""
PS1='ready> '
show() { printf '<<<%s>>>' "$READLINE_LINE"; }
bind -x '"\C-x\C-t": show'
bind 'set bell-style none'
bind 'set completion-query-items -1'
bind 'set page-completions off'
""",
    "zsh": r"""
PS1='ready> '
autoload -Uz compinit && compinit -u -d "$ZDOTDIR/dump"
show() { printf '<<<%s>>>' "$BUFFER"; }
zle -N show
bindkey '^X^T' show
bindkey '^I' expand-or-complete
unsetopt BEEP
LISTMAX=1000
""",
}


class Shell:
    """A shell that waits for keys."""

    def __init__(self, terminal: int) -> None:
        """Wait until it does."""
        self._terminal = terminal
        self._said(_READY)

    def completed(self, typed: str, keys: str = "\t") -> str:
        """Return what the line is after *typed* and *keys*; it is cleared then."""
        self._send(typed + keys + _DUMP)
        line = self._said(_SHOWN)
        self._send("\x15")  # Ctrl-U: nothing is run
        return line

    def _send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _said(self, what: re.Pattern[str]) -> str:
        said = ""
        deadline = time.monotonic() + _PATIENCE
        while not (found := what.search(said)):
            ready, _, _ = select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"the shell says only: {said!r}"
            said += os.read(self._terminal, 65536).decode(errors="replace")
        return found[1]


@contextlib.contextmanager
def shell(
    name: str, folder: Path, environment: Mapping[str, str], before: str = "", *, load: bool = True
) -> Iterator[Shell]:
    """Give *name*, bash or zsh, in *folder*; *before* comes first, and completions are loaded last if *load*."""
    need(name)
    script = f"source <(imgfs completion {name})\n" if load else ""
    home = Path(tempfile.mkdtemp(prefix="home", dir=folder.parent))
    (home / (".zshrc" if name == "zsh" else "bashrc")).write_text(before + _BEGINNINGS[name] + script)
    words = ["bash", "--noprofile", "--rcfile", str(home / "bashrc"), "-i"] if name == "bash" else ["zsh", "-d", "-i"]
    program = shutil.which(name) or name
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(program, words, variables(environment) | {"HOME": str(home), "ZDOTDIR": str(home)})
    try:
        yield Shell(terminal)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(pid, 0)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a shell that finds the command, and no engine but what *environment* names."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    none = {"DOCKER_HOST": "unix:///nowhere"}
    return kept | none | {"PATH": path, "TERM": "xterm", "LC_ALL": "C.UTF-8"} | dict(environment)
