"""The commands that the documents show, and a shell in which they can be run as they stand there."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
README = REPOSITORY / "README.md"
DOCUMENTS = (*sorted(REPOSITORY.glob("*.md")), *sorted(REPOSITORY.glob("docs/*.md")))

PROGRAMS = frozenset(
    (
        *("imgfs", "skopeo", "umoci", "podman", "buildah", "docker", "apt", "pip", "pipx"),
        *("umount", "fusermount3", "mount", "grep", "diff", "tar", "getfattr", "systemctl", "cat"),
        *("chroot", "ls", "jq", "ratarmount", "dive", "command", "source", "dpkg-query", "syft"),
        *("mkdir", "sudo", "git", "ln"),
    )
)
"""Programs whose name begins a command if more words follow; a word alone names a program."""
_BLOCK = re.compile(r"^(?:<!-- run by (\S+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: ``console`` is a session, ``sh`` are commands, ``python`` a doctest, ``text`` anything else."""

    kind: str
    text: str
    runner: str = ""
    """Name of the file that runs it; empty if it can be run as it stands."""

    @property
    def commands(self) -> list[str]:
        """Return the commands of an ``sh`` block, without comments."""
        lines = (line.partition("  #")[0].rstrip() for line in self.text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


@dataclass(frozen=True)
class Step:
    """A command of a session, and what it prints."""

    command: str
    output: str


def blocks(document: Path = README) -> list[Block]:
    """Return the fenced blocks."""
    return [Block(match[2], match[3], match[1] or "") for match in _BLOCK.finditer(document.read_text())]


def session(text: str) -> list[Step]:
    """Return the steps of a session's *text*; one begins at each ``$ ``."""
    steps = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert steps[0] == "", "a session begins with a command"
    return [Step(*step.split("\n", 1)) for step in steps[1:]]


def spans(document: Path) -> list[str]:
    """Return what is marked as code in the prose."""
    return [span.replace("\\|", "|") for span in _SPAN.findall(_BLOCK.sub("", document.read_text()))]


def is_command(text: str) -> bool:
    """Tell whether code in the prose is a command with its words."""
    first, space, _ = text.partition(" ")
    return text.startswith("scripts/") or (first in PROGRAMS and bool(space) and text != "imgfs: …")


@dataclass(frozen=True)
class Said:
    """What a command printed, on stdout and stderr, and its exit status."""

    output: str
    status: int


_MARK = "\x01"
_SETUP = """\
mount -t tmpfs tmpfs /mnt && mount -t tmpfs tmpfs /var/log && mkdir /mnt/img /mnt/tuned /mnt/app || exit
end() { cd /; for path in /mnt/*; do if mountpoint -q "$path"; then imgfs umount -l "$path"; fi; done; }
trap end EXIT
"""


def run_in_shell(commands: Sequence[str], environment: Mapping[str, str], folder: Path) -> list[Said]:
    """Run *commands*, one after the other in one shell, where /mnt is empty and nobody else's; none of it is left."""
    script = [_SETUP]
    for command in commands:
        script += [f"{{ {command}\n}} </dev/null 2>&1", f"printf '{_MARK}%d{_MARK}' $?"]
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", "\n".join(script)],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    parts = done.stdout.split(_MARK)
    assert (len(parts), done.stderr) == (2 * len(commands) + 1, ""), (done.stdout, done.stderr)
    return [Said(output, int(status)) for output, status in zip(parts[:-1:2], parts[1::2], strict=True)]


_PROGRESS = re.compile(r"^imgfs: (?:the engine prepares|saving|indexing) .*\n", re.MULTILINE)
_VARYING = (
    (re.compile(r"[0-9a-f]{64}"), "<digest>"),
    (re.compile(r"; log: .*"), ""),  # named where it is new
    (re.compile(r"\bin [0-9.]+ s\b"), "in <time>"),
    (re.compile(r"\b[0-9.]+ [kMG]?B\b"), "<size>"),
    (re.compile(r"\b\d+(?:\.\d+)+\b"), "<version>"),
)


def stable(output: str) -> str:
    """Return *output* without what another machine or day changes.

    That is progress (of work that takes half a second), digests, versions, times, sizes, and where a mount logs.
    """
    output = _PROGRESS.sub("", output)
    for pattern, word in _VARYING:
        output = pattern.sub(word, output)
    return output
