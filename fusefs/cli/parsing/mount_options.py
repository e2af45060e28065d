"""Mount options: the words after ``-o``, as mount(8) passes them."""

import re
from collections.abc import Iterable, Sequence

from fusefs.errors import UsageError
from fusefs.pattern import pattern
from fusefs.text import printable

AUTO, FUSE, EROFS = "auto", "fuse", "erofs"
"""Drivers: FUSE and then the kernel, FUSE alone, the kernel at once."""
BACKGROUND, ALL = "background", "all"
"""How layers of a registry are prefetched."""

_FOR_LIBFUSE = frozenset({"allow_other", "allow_root", "noexec", "noatime"})
_ALWAYS = frozenset({"ro", "nosuid", "nodev"})
_IGNORED = frozenset(
    {"rw", "dev", "suid", "exec", "defaults", "auto", "noauto", "user", "users", "owner", "group", "nofail", "_netdev"}
    | {"relatime", "strictatime", "nodiratime", "norelatime", "nostrictatime", "diratime", "atime"}
    | {"lazytime", "nolazytime", "sync", "async", "dirsync", "iversion", "noiversion", "mand", "nomand"}
    | {"silent", "loud", "nouser", "nousers", "noowner", "nogroup", "_rnetdev"}
)
_NUMBERS = frozenset({"uid", "gid", "umask"})
_SLOPPY = "sloppy"
"""Unknown options are ignored (mount -s)."""
_NEVER = frozenset({"remount"})
"""Refused even with ``sloppy``, since imgfs would mount a second time."""
_OURS = frozenset({"transform_symlinks", _SLOPPY})
_MAX_NUMBERS = {10: 0xFFFFFFFE, 8: 0o777}
"""The largest number for each base: an ID (decimal, not -1), and permission bits (octal)."""
_IGNORED_BEGINNINGS = ("x-", "comment=")
_LONG = {"host": True, "context": True, "tmpdir": True, "log-file": True, "platform": True, "timeout": True} | {
    "shared-blob-dir": True,
    "driver": True,
    "subdir": True,
    "all": False,
    "filter": True,
    "max-saves": True,
    "idle": True,
    "authfile": True,
    "insecure": False,
    "strict": False,
    "offline": False,
    "cache-dir": True,
    "cache-size": True,
    "progress": True,
    "no-cache": False,
    "verify": False,
    "no-trees": False,
    "index": False,
    "prefetch": False,
    "quiet": False,
    "verbose": False,
    "foreground": False,
}
"""Long options that are accepted after ``-o``, and whether they take a value."""

_WORD = pattern(r"(?:[^\\,]|\\.?)+", re.DOTALL)
_ESCAPE = pattern(r"\\(.)", re.DOTALL)


def split_options(text: str) -> list[str]:
    r"""Split *text* at commas; ``\,`` is a comma within a word."""
    return [_ESCAPE.sub(r"\1", word) for word in _WORD.findall(text)]


def long_options(words: Iterable[str]) -> list[str]:
    """Return those of *words* that are long options, as arguments: ``--host=…``."""
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        takes_value = _LONG.get(name)
        if word == f"prefetch={ALL}":
            found.append(f"--{word}")
            continue
        if takes_value is None:
            continue
        if takes_value != bool(equals):
            takes = "a value" if takes_value else f"no value or {ALL}" if name == "prefetch" else "no value"
            raise UsageError(f"option {name} takes {takes}")
        found.append(f"--{name}={value}" if takes_value else f"--{name}")
    return found


def number_option(words: Iterable[str], name: str, base: int) -> int | None:
    """Return NUMBER of the last ``NAME=NUMBER`` in *words*, None if the option is missing."""
    value = None
    for word in words:
        key, equals, text = word.partition("=")
        if key != name:
            continue
        # int() alone also accepts spaces, signs, underscores and digits of other scripts.
        digits = re.fullmatch(rf"[0-{base - 1}]{{1,20}}", text)
        value = int(text, base) if digits else -1
        if not equals or not 0 <= value <= _MAX_NUMBERS[base]:
            raise UsageError(f"option {name} takes a number, not {printable(text)!r}")
    return value


def libfuse_flags(words: Sequence[str]) -> tuple[str, ...]:
    """Return those of *words* that are passed to libfuse; raise UsageError for an unknown one, unless ``sloppy``."""
    flags = []
    for word in words:
        if word in _FOR_LIBFUSE:
            flags.append(word)
        elif not (
            word in _ALWAYS
            or word in _IGNORED
            or word in _OURS
            or word.partition("=")[0] in _NUMBERS
            or word.startswith(_IGNORED_BEGINNINGS)
            or word.partition("=")[0].replace("_", "-") in _LONG
            or (_SLOPPY in words and word not in _NEVER)
        ):
            raise UsageError(f"unknown mount option '{printable(word)}'")
    return tuple(flags)


def offered() -> list[str]:
    """Return the options that completions offer; those with a value end with ``=``."""
    long = (f"{name}=" if takes_value else name for name, takes_value in _LONG.items())
    return sorted([*_FOR_LIBFUSE, *_OURS, f"prefetch={ALL}", *(f"{name}=" for name in _NUMBERS), *long])
