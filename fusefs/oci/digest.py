"""Digests, as in the OCI image specification, "Descriptors: Digests"."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple, NewType

from fusefs.pattern import pattern

_GRAMMAR = pattern(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<encoded>[A-Za-z0-9=_-]+)")
_ENCODED = {
    "sha256": pattern(r"[0-9a-f]{64}"),
    "sha384": pattern(r"[0-9a-f]{96}"),
    "sha512": pattern(r"[0-9a-f]{128}"),
}


class Digest(NamedTuple):
    """An algorithm and the encoded hash: ``sha256`` and 64 lower-case hexadecimal characters."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Return the digest that *text* spells; ValueError if it is malformed or unsupported."""
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise ValueError(f"malformed digest {text[:150]!r}")
        algorithm, encoded = match["algorithm"], match["encoded"]
        if algorithm not in _ENCODED:
            raise ValueError(f"unsupported digest algorithm {algorithm[:150]!r}")
        if _ENCODED[algorithm].fullmatch(encoded) is None:
            raise ValueError(f"malformed {algorithm} digest {text[:150]!r}")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, chunks: Iterable[bytes | bytearray | memoryview], algorithm: str = "sha256") -> "Digest":
        """Return the digest of the concatenation of *chunks*."""
        hasher = hashlib.new(algorithm)
        for chunk in chunks:
            hasher.update(chunk)
        return cls(algorithm, hasher.hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


DiffID = NewType("DiffID", Digest)
"""The digest of a layer's uncompressed tar (OCI image specification, "Image configuration")."""
