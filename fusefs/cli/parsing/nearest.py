"""The command or option that a mistyped word means."""

from collections.abc import Iterable

from fusefs.text import printable

_CLOSE = 0.7
"""Similarity, 0 to 1 as difflib counts it: ``insepct`` is inspect, and ``node`` is no command."""
_LEAST = 3
"""Letters that are enough to begin a word."""
_ELSEWHERE = {
    "attach": "mount",
    "config": "inspect",
    "detach": "umount",
    "exec": "shell",
    "history": "inspect",
    "images": "cache list",
    "info": "inspect",
    "layers": "inspect",
    "locate": "find",
    "ps": "list",
    "rm": "umount",
    "run": "shell",
    "show": "inspect",
    "size": "du",
    "tree": "ls",
    "whence": "which",
}
"""Commands of other programs, and those that do the same here."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of *known* that *word* means: begins, or resembles; None if there is none."""
    known = list(known)
    begun = [name for name in known if name.startswith(word)]
    if len(begun) == 1 and len(word.lstrip("-")) >= _LEAST:
        return begun[0]
    import difflib  # noqa: PLC0415 - only mistakes need it

    return next(iter(difflib.get_close_matches(word, known, 1, _CLOSE)), None)


def meant_command(word: str, commands: Iterable[str], group: str = "") -> str | None:
    """Return the command that *word* means, None if it resembles none; *group*: the command that has *commands*."""
    found = nearest(word, commands)
    if group:
        return found and f"{group} {found}"
    return found or _ELSEWHERE.get(word)


def no_command(word: str, commands: Iterable[str], group: str = "") -> str:
    """Return the message for a *word* that is no command; *group*: the command that has *commands*."""
    meant = meant_command(word, commands, group)
    typed = " ".join(filter(None, (group, word)))
    hint = f"did you mean {meant}?" if meant else " ".join(filter(None, ("imgfs", group, "--help lists the commands")))
    return f"no command '{printable(typed)}'; {hint}"
