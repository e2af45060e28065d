"""Platforms: the kind of machine an image runs on, and the choice of the best of several images.

Names are those of Go's GOOS and GOARCH (OCI image specification, "Image Index").  Other names, platforms as text, and
the order of fallbacks are those of github.com/containerd/platforms.
"""

import os
import re
from typing import NamedTuple

from fusefs.pattern import pattern

_OS = {"macos": "darwin"}
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", ""),
    "armv7l": ("arm", ""),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "loongarch64": ("loong64", ""),
}
"""Other names of an architecture, of kernels and distributions, and the variant that such a name implies."""
_KNOWN_OS = frozenset(
    {"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "linux", "netbsd", "openbsd", "plan9"}
    | {"solaris", "wasip1", "windows", "zos"}
)
_KNOWN_ARCHITECTURES = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le"}
    | {"riscv64", "s390x", "wasm"}
)
_DEFAULT_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
"""The meaning of an absent variant."""
_ALSO_RUNS = {"arm64": "arm", "amd64": "386"}

_PART = pattern(r"[A-Za-z0-9_.-]+")
_SYSTEM = pattern(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?")
"""An operating system, maybe with its version: ``windows(10.0.20348)``."""


class Platform(NamedTuple):
    """An operating system, an architecture and an optional variant: ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    """The version of the operating system, which only Windows images state."""
    os_features: tuple[str, ...] = ()
    """Features that the operating system must have; Linux has none that are defined."""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Return the platform that *text* spells; ValueError if it is malformed.

        ``OS[(VERSION)]/ARCH[/VARIANT]``; ``ARCH[/VARIANT]`` alone is for Linux, ``OS`` alone for this machine.
        """
        system, *rest = text.split("/")
        match = _SYSTEM.fullmatch(system)
        if match is not None and len(rest) < 3 and all(map(_PART.fullmatch, rest)):
            name, version = match[1], match[2] or ""
            if len(rest) < 2 and cls("linux", system).normalized.architecture in _KNOWN_ARCHITECTURES:
                return cls("linux", system, "".join(rest)).normalized
            if not rest and cls(name, "").normalized.os in _KNOWN_OS:
                rest = [cls.of_host().architecture]
            if rest:
                return cls(name, rest[0], "".join(rest[1:]), version).normalized
        raise ValueError(f"bad platform {text!r}: expected OS/ARCH[/VARIANT], as in linux/arm64")

    @classmethod
    def of_host(cls) -> "Platform":
        """Return the platform of this machine."""
        return cls("linux", os.uname().machine).normalized

    @property
    def normalized(self) -> "Platform":
        """The same platform with the names of Go, so that platforms can be compared."""
        system = self.os.lower()
        architecture, variant = self.architecture.lower(), self.variant.lower()
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
        variant = f"v{variant}" if variant[:1].isdigit() else variant
        return self._replace(os=_OS.get(system, system), architecture=architecture, variant=variant or implied)

    @property
    def known(self) -> bool:
        """Whether it names a machine; attestations are for ``unknown/unknown``."""
        return self.os != "unknown" and self.architecture != "unknown"

    def __str__(self) -> str:
        system = f"{self.os}({self.os_version})" if self.os and self.os_version else self.os
        return "/".join(filter(None, (system, self.architecture, self.variant)))


def suitability(image: Platform, wanted: Platform, *, exact: bool) -> int | None:
    """Return how well *image* suits *wanted*: 0 is best, None is unsuitable.

    An older variant suits, and any variant if *wanted* has none.  Unless *exact*, an architecture that the wanted one
    also runs suits.  If *wanted* has a version of the operating system, that version suits, with any revision, and
    an image that states none.
    """
    image, wanted = image.normalized, wanted.normalized
    if image.os != wanted.os or not _is_version(image.os_version, wanted.os_version):
        return None
    rank = _UNSTATED_VERSION if wanted.os_version and not image.os_version else 0
    if image.architecture == wanted.architecture:
        have = _variant(image)
        want = _variant(wanted)
        if have <= want:
            return rank + want - have
        return None if wanted.variant else rank + 100 + have
    if exact or _ALSO_RUNS.get(wanted.architecture) != image.architecture:
        return None
    return rank + 200 + 10 - _variant(image)


_UNSTATED_VERSION = 1000
"""Added to the rank of an image that does not state the version asked for."""


def _is_version(stated: str, wanted: str) -> bool:
    """Return whether *stated* is the version *wanted*, or a revision of it; an unstated one may be."""
    return not stated or not wanted or f"{stated}.".startswith(f"{wanted}.")


def _variant(platform: Platform) -> int:
    """Return a variant as a number: 8 for ``v8`` and ``v8.2``, 0 for an architecture without variants."""
    text = platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "")
    match = re.fullmatch(r"v?([0-9]{1,2})(?:\.[0-9]+)?", text)
    return int(match[1]) if match else 0
