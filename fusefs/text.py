"""Untrusted text, made safe to print."""

_MAX_LENGTH = 4096
"""Characters that are shown: as many as the bytes of the longest path (PATH_MAX)."""


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


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, decoded with surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
