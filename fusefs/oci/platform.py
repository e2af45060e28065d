"""Platforms: the kind of machine an image runs on, and the choice of the best of several images.

Names are those of Go's GOOS and GOARCH (OCI image specification, "Image Index").  The order of
fallbacks is that of github.com/containerd/platforms.
"""

import os
import re
from dataclasses import dataclass

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "armv7l": "arm",
    "armv6l": "arm",
    "armv5tel": "arm",
    "armv8l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
_DEFAULT_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
"""The meaning of an absent variant."""
_MACHINE_VARIANTS = {"armv6l": "v6", "armv5tel": "v5"}
_ALSO_RUNS = {"arm64": "arm", "amd64": "386"}

_PART = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture and an optional variant: ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Return the platform that ``OS/ARCH[/VARIANT]`` spells; ValueError if it is malformed."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(map(_PART.fullmatch, parts)):
            raise ValueError(f"bad platform {text!r}: expected OS/ARCH[/VARIANT], as in linux/arm64")
        parts = [part.lower() for part in parts]
        parts[1] = _ARCHITECTURES.get(parts[1], parts[1])
        return cls(*parts)

    @classmethod
    def of_host(cls) -> "Platform":
        """Return the platform of this machine."""
        machine = os.uname().machine
        return cls("linux", _ARCHITECTURES.get(machine, machine), _MACHINE_VARIANTS.get(machine, ""))

    @property
    def known(self) -> bool:
        """Whether it names a machine; attestations are for ``unknown/unknown``."""
        return self.os != "unknown" and self.architecture != "unknown"

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def suitability(image: Platform, wanted: Platform, *, exact: bool) -> int | None:
    """Return how well *image* suits *wanted*: 0 is best, None is unsuitable.

    An older variant suits, and any variant if *wanted* has none.  Unless *exact*, an architecture that the wanted one
    also runs suits.
    """
    if image.os != wanted.os:
        return None
    if image.architecture == wanted.architecture:
        have = _variant(image)
        want = _variant(wanted)
        if have <= want:
            return want - have
        return None if wanted.variant else 100 + have
    if exact or _ALSO_RUNS.get(wanted.architecture) != image.architecture:
        return None
    return 200 + 10 - _variant(image)


def _variant(platform: Platform) -> int:
    """Return a variant as a number: 8 for ``v8``, 0 for an architecture without variants."""
    text = platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "")
    match = re.fullmatch(r"v?([0-9]{1,2})", text)
    return int(match[1]) if match else 0
