"""Untrusted text, made safe to print."""

import re
from collections.abc import Sequence

from fusefs.pattern import pattern

_PASSWORD = pattern(r"(^|://)([^/?#@:]*):(?!//).*@", re.DOTALL)
"""User and password of a URL (RFC 3986, 3.2.1), with or without its scheme, up to the last ``@``: also if the
password contains characters that it may not contain."""

_MAX_LENGTH = 4096
"""Characters that are shown: as many as the bytes of the longest path (PATH_MAX)."""
_PLAIN = pattern(r"[\w@%+=:,./-]+", re.ASCII)
"""A word that needs no quotes in a shell; as in `shlex`, which loads slowly."""
_MAX_LISTED = 10
"""Texts that a message lists."""


def listing(texts: Sequence[str], separator: str = "; ") -> str:
    """Return *texts* in one line: ten of them, and the number of the others."""
    more = len(texts) - _MAX_LISTED
    return separator.join([*texts[:_MAX_LISTED], *([f"and {more} more"] if more > 0 else [])])


def printable(text: bytes | str) -> str:
    """Return an untrusted name or message as text that is safe on a terminal and in a log line.

    Bytes that are not UTF-8 and characters that are not printable become escapes: names in an image are
    hostile input, and an escape sequence must not reach a terminal.
    """
    if len(text) > _MAX_LENGTH:
        return f"{printable(text[:_MAX_LENGTH])}…"
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def quoted(word: str) -> str:
    r"""Return an untrusted *word* as it can be pasted into a command of a POSIX shell, on one printable line.

    A word with unprintable characters becomes an escape of bash, zsh and ksh: ``$'a\n'``.
    """
    if len(word) > _MAX_LENGTH:
        word = f"{word[:_MAX_LENGTH]}…"
    if not word.isprintable():
        escaped = word.replace("\\", r"\\").replace("'", r"\'")
        return f"$'{printable(escaped)}'"
    inner = word.replace("'", r"'\''")
    return word if _PLAIN.fullmatch(word) else f"'{inner}'"


def without_password(url: str) -> str:
    """Return *url* with its password replaced by ``***``."""
    return _PASSWORD.sub(r"\1\2:***@", url)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, decoded with surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
