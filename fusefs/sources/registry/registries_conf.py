"""The files of registries.conf, as containers-registries.conf(5) and the code of containers/image have it.

Each entry is checked: one that containers/image refuses is an error, and none that blocks a registry is passed over.
``docker://NAME`` names one image, as for skopeo: unqualified-search-registries and aliases, which resolve short names,
do not concern it.  Podman uses aliases, so `alias_of` tells what a short name is there.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fusefs.errors import UsageError
from fusefs.home import home
from fusefs.pattern import pattern
from fusefs.text import printable

_T = TypeVar("_T")

_SYSTEM = Path("/etc/containers/registries.conf")
_COMMENT = pattern(r"[ \t]*(#[^\x00-\x08\x0a-\x1f\x7f]*)?")
_ALIAS = pattern(r'[ \t]*("[\w./:-]+")[ \t]*=[ \t]*"[\w./:-]+"[ \t]*')
"""A line of a table of aliases, without a comment behind it."""
_V2 = ("registry", "unqualified-search-registries", "credential-helpers", "short-name-mode", "aliases")
AUTH_FILES = "containers-auth.json"
"""The credential helper that stands for the files of credentials."""


class Mirror(NamedTuple):
    """A mirror of a registry."""

    location: str
    insecure: bool
    """That of its own entry, if there is one, does not count here, as for containers/image."""
    serves: str
    """``all`` references, or ``digest-only`` or ``tag-only``."""


class Entry(NamedTuple):
    """What is configured for the names that begin with a prefix."""

    prefix: str
    location: str
    """Empty: the names themselves."""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()


class Configuration(NamedTuple):
    """What all files say together."""

    entries: Mapping[str, Entry]
    """By their prefixes."""
    helpers: tuple[str, ...]
    """The credential helpers for all registries, in the order in which they are asked."""


def read_configuration(environment: Mapping[str, str]) -> Configuration:
    """Return the configuration; UsageError if it is damaged."""
    entries: dict[str, Entry] = {}
    helpers: tuple[str, ...] = ()
    for path, is_addition in _files(environment):
        document = _document(path)
        try:
            entries |= {entry.prefix: entry for entry in reversed(_entries(document, is_addition=is_addition))}
            if "credential-helpers" in document:
                helpers = (*_texts(document, "credential-helpers"),)
        except ValueError as error:
            raise UsageError(f"{printable(str(path))}: {printable(str(error))}") from None
    return Configuration(entries, helpers or (AUTH_FILES,))


def alias_of(name: str, environment: Mapping[str, str]) -> str:
    """Return what the aliases make of *name*, a short name, perhaps with a tag or digest; empty if none does.

    Those that Podman has recorded come first; in other files, a later alias replaces an earlier one.
    """
    folder, slash, last = name.partition("@")[0].rpartition("/")
    short = folder + slash + last.partition(":")[0]
    users = environment.get("XDG_CACHE_HOME") or f"{home(environment)}/.cache"
    files = [Path("/var/cache" if os.geteuid() == 0 else users, "containers", "short-name-aliases.conf")]
    with suppress(UsageError):  # what cannot be read has none
        files += reversed([path for path, _ in _files(environment)])
    for path in files:
        if isinstance(found := _aliases(path).get(short), str):
            return found and found + name.removeprefix(short)
    return ""


def _aliases(path: Path) -> Mapping[str, Any]:
    import tomllib  # noqa: PLC0415 - only an error needs aliases

    try:
        aliases = tomllib.loads(path.read_text("utf-8")).get("aliases")
    except (OSError, ValueError, RecursionError):
        return {}
    return aliases if isinstance(aliases, dict) else {}


def configuration_files(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files and directories that `read_configuration` may read, whether they exist or not."""
    named, user = environment.get("CONTAINERS_REGISTRIES_CONF"), _users_file(environment)
    folders = f"{_SYSTEM}.d", f"{user}.d"
    listed = []
    for folder in folders:
        with suppress(OSError):
            listed += [f"{folder}/{name}" for name in os.listdir(folder)]
    return (named or str(user), str(_SYSTEM), *folders, *listed)


def _users_file(environment: Mapping[str, str]) -> Path:
    config = environment.get("XDG_CONFIG_HOME") or f"{home(environment)}/.config"
    return Path(config, "containers", "registries.conf")


def _files(environment: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """Yield the files, and whether each one adds to others; a later one replaces entries of earlier ones.

    The user's file stands in place of all those of the system.
    """
    user = _users_file(environment)
    named = environment.get("CONTAINERS_REGISTRIES_CONF")
    folders = [Path(f"{_SYSTEM}.d"), Path(f"{user}.d")]
    if named:
        yield Path(named), False
    elif _exists(user):
        yield user, False
        del folders[0]
    elif _exists(_SYSTEM):
        yield _SYSTEM, False
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"cannot read {folder}: {error.strerror}") from None
        yield from ((folder / name, True) for name in names if name.endswith(".conf"))


def _exists(path: Path) -> bool:
    """Return whether there is such a file; UsageError if that cannot be known, as in another user's directory."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    return True


def _document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        if _is_without_settings(text):
            return {}
        import tomllib  # noqa: PLC0415 - takes 10 ms, and files of a distribution do not need it

        return tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {printable(str(error))}") from None


def _is_without_settings(text: str) -> bool:
    """Return whether *text* is TOML of comments and a table of aliases at most, as distributions have it."""
    said = [line for line in text.split("\n") if not _COMMENT.fullmatch(line)]
    names = [name[1] for line in said[1:] if (name := _ALIAS.fullmatch(line))]
    return not said or (said[0].strip(" \t") == "[aliases]" and len(set(names)) == len(said) - 1)


def _entries(document: Mapping[str, Any], *, is_addition: bool) -> list[Entry]:
    """Return the entries of a file; of several with one prefix, the first counts.  Raises ValueError."""
    if "registries" in document:
        if is_addition:
            raise ValueError("format 1 ([registries.…]) is not possible in registries.conf.d")
        if any(key in document for key in _V2):
            raise ValueError("it mixes format 1 ([registries.…]) and format 2")
        found = _entries_of_format_1(document)
    else:
        found = [_entry(table) for table in _tables(document, "registry")]
    settings: dict[str, Entry] = {}
    for entry in found:
        first = settings.setdefault(entry.location or entry.prefix, entry)
        for name in ("insecure", "blocked"):
            if getattr(entry, name) != getattr(first, name):
                raise ValueError(f"{first.location or first.prefix} is defined with two values of {name}")
    return found


def _entries_of_format_1(document: Mapping[str, Any]) -> list[Entry]:
    lists = _typed(document, "registries", dict)
    of = {name: [_location(each) for each in _texts(_typed(lists, name, dict), "registries")] for name in lists}
    blocked, insecure = of.get("block", []), of.get("insecure", [])
    return [Entry(name, name, name in insecure, name in blocked) for name in dict.fromkeys([*blocked, *insecure])]


def _entry(table: Mapping[str, Any]) -> Entry:
    location = _location(_typed(table, "location", str))
    prefix = _location(_typed(table, "prefix", str)) or location
    if not prefix:
        raise ValueError("a registry has neither prefix nor location")
    if not location and not prefix.startswith("*."):
        raise ValueError(f"the registry {prefix} has no location, and its prefix is not of the form *.example.com")
    if prefix.startswith("*.") and any(char in prefix for char in "/@:"):
        raise ValueError(f"the prefix {prefix} is not of the form *.example.com")
    if "pull-from-mirror" in table:
        raise ValueError(f"pull-from-mirror of {prefix} is not that of a mirror")
    by_digest = _typed(table, "mirror-by-digest-only", bool)
    mirrors = (*(_mirror(mirror, prefix, by_digest=by_digest) for mirror in _tables(table, "mirror")),)
    return Entry(prefix, location, _typed(table, "insecure", bool), _typed(table, "blocked", bool), mirrors)


def _mirror(table: Mapping[str, Any], prefix: str, *, by_digest: bool) -> Mirror:
    location, serves = _location(_typed(table, "location", str)), _typed(table, "pull-from-mirror", str)
    if not location:
        raise ValueError(f"a mirror of {prefix} has no location")
    if serves not in ("", "all", "digest-only", "tag-only"):
        raise ValueError(f"pull-from-mirror of {location} is {serves}: not all, digest-only or tag-only")
    if serves and by_digest:
        raise ValueError(f"pull-from-mirror of {location}, and mirror-by-digest-only of {prefix}, exclude each other")
    return Mirror(location, _typed(table, "insecure", bool), serves or ("digest-only" if by_digest else "all"))


def _location(text: str) -> str:
    """Return a location or prefix without trailing slashes; ValueError for a URL."""
    if text.startswith(("http://", "https://")):
        raise ValueError(f"the location {text} is a URL; it must be a name, without http:// or https://")
    return text.rstrip("/")


def _typed(table: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    """Return a value, empty or false without one; ValueError if it is of another type."""
    value = table.get(key, kind())
    if not isinstance(value, kind):
        raise ValueError(f"{key} is not a {_TYPES[kind]}")  # noqa: TRY004 - as for other faults of the file
    return value


_TYPES: dict[type, str] = {str: "string", bool: "boolean", dict: "table", list: "list"}


def _tables(table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    tables = _typed(table, key, list)
    if not all(isinstance(each, dict) for each in tables):
        raise ValueError(f"{key} is not a list of tables")
    return tables


def _texts(table: Mapping[str, Any], key: str) -> list[str]:
    texts = _typed(table, key, list)
    if not all(isinstance(each, str) for each in texts):
        raise ValueError(f"{key} is not a list of strings")
    return texts
