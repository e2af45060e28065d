"""How a directory of a registry's catalog spells the name of an image."""

from typing import NamedTuple

from fusefs.oci.reference import is_digest, is_repository, is_tag


class Spelled(NamedTuple):
    """The last part of the name of a repository, and a tag, a digest or neither."""

    base: str
    separator: str = ""
    """``@`` in a listed name, ``:`` in a reference."""
    tag: str = ""
    digest: str = ""

    def at(self) -> bytes:
        """Return the listed name of the tag."""
        return f"{self.base}@{self.tag}".encode()


def spelled(name: bytes) -> Spelled | None:
    """Return what *name* spells: ``app@v1``, ``app:v1``, ``app@sha256:…``, ``app``; None for another name."""
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        return None
    separator = "@" if "@" in text else ":" if ":" in text else ""
    base, _, rest = text.partition(separator) if separator else (text, "", "")
    if not is_repository(base) or "/" in base:
        return None
    if not separator:
        return Spelled(base)
    if is_tag(rest):
        return Spelled(base, separator, tag=rest)
    return Spelled(base, separator, digest=rest) if separator == "@" and is_digest(rest) else None
