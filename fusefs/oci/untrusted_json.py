"""Untrusted JSON, read as Go's encoding/json reads it: engines and registries take what Go takes.

- `field_of` finds a field by its name without regard to case; the last of several fields counts, even after an exact
  match.  Keys of maps, as labels, are compared exactly.
- A byte that is not UTF-8, and half of a surrogate pair, counts as U+FFFD.

A function takes a value and its name for messages, and raises InvalidImage for a value of an unexpected type.
"""

import codecs
import json
from collections.abc import Mapping
from functools import lru_cache

from fusefs.errors import InvalidImage
from fusefs.pattern import pattern
from fusefs.text import printable

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def parse_object(data: bytes, where: str, what: str) -> dict[str, Json]:
    """Return the object in *data*; *what* names the expected document."""
    return as_object(_parsed(data, where), where, what)


def parse_list(data: bytes, where: str, what: str) -> list[Json]:
    """Return the list in *data*; *what* names the expected document."""
    document = _parsed(data, where)
    if not isinstance(document, list):
        raise InvalidImage(f"{where} is {kind(document)}, not {what}")
    return document


def field_of(document: Mapping[str, Json], name: str) -> Json:
    """Return the last field of *document* that is called *name* in any case, None if there is none."""
    keys = _keys(document, name)
    return document[keys[-1]] if keys else None


def has_field(document: Mapping[str, Json], name: str) -> bool:
    """Return whether *document* has a field that is called *name* in any case, even if it is null."""
    return bool(_keys(document, name))


def _keys(document: Mapping[str, Json], name: str) -> list[str]:
    return [key for key in document if key == name or (len(key) == len(name) and _folded(key) == _folded(name))]


def as_object(value: Json, where: str, what: str = "an object") -> dict[str, Json]:
    """Return *value* if it is an object."""
    if not isinstance(value, dict):
        raise InvalidImage(f"{where} is {kind(value)}, not {what}")
    return value


def as_list(value: Json, where: str) -> list[Json]:
    """Return *value* if it is a list; null or a missing value gives an empty list, as in Go."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidImage(f"{where} is {kind(value)}, not a list")
    return value


def as_strings(value: Json, where: str) -> tuple[str, ...]:
    """Return *value* if it is a list of strings; null or a missing value gives an empty tuple."""
    items = as_list(value, where)
    strings = [item for item in items if isinstance(item, str)]
    if len(strings) < len(items):
        raise InvalidImage(f"{where} has an item that is not a string")
    return tuple(strings)


def as_string(value: Json) -> str:
    """Return *value* if it is a string (default: the empty string).  For values that only inform the user."""
    return value if isinstance(value, str) else ""


def kind(value: Json) -> str:
    """Return the type of *value* in words."""
    match value:
        case None:
            return "null or missing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"


_FOLDS = str.maketrans({"\u017f": "s", "\u212a": "k"})
"""The only letters outside of ASCII that Go's foldName takes for letters of ASCII: long s and the Kelvin sign."""
_HALF = pattern("[\ud800-\udfff]")
_HALF_ESCAPED = pattern(r"\\u[dD][89a-fA-F]")


@lru_cache(1024)
def _folded(key: str) -> str:
    """Return *key* as Go compares names of fields; keys with other letters outside of ASCII match no field."""
    folded = key.translate(_FOLDS)
    return folded.lower() if folded.isascii() else key


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd", error.start + 1  # "replace" would take several bytes for one U+FFFD


codecs.register_error("fusefs.each_byte", _each_byte)


def _parsed(data: bytes, where: str) -> Json:
    try:
        # json.loads() alone would also accept UTF-16 and NaN, which JSON forbids.
        text = data.decode("utf-8", "fusefs.each_byte")
        document: Json = json.loads(text, parse_constant=_refuse, object_pairs_hook=_object)
        if _HALF_ESCAPED.search(text):
            document = _without_halves(document)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))
        raise InvalidImage(f"{where} is not JSON: {reason}") from None
    return document


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Return the object of *pairs*; a repeated key stands where it came last."""
    document: dict[str, Json] = {}
    for key, value in pairs:
        document.pop(key, None)
        document[key] = value
    return document


def _without_halves(value: Json) -> Json:
    """Return *value* with U+FFFD for each half of a surrogate pair in its strings."""
    match value:
        case str():
            return _HALF.sub("\ufffd", value)
        case list():
            return [_without_halves(item) for item in value]
        case dict():
            return {_HALF.sub("\ufffd", key): _without_halves(item) for key, item in value.items()}
    return value


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not a JSON value")
