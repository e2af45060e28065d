"""Text from outside, made safe to print."""

_SHOWN = 4096
"""Characters of a name that are shown: as many bytes as a path may have."""


def printable(text: bytes | str) -> str:
    """Return a name or message from outside as text that is safe on a terminal and in a log line.

    Bytes that are not UTF-8 and every character that is not printable are shown as escapes:
    names in an image are hostile input, and an escape sequence must not reach a terminal raw.
    """
    if len(text) > _SHOWN:
        return f"{printable(text[:_SHOWN])}…"
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape carried through
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
