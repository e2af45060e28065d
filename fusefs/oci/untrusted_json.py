"""Untrusted JSON, with an error for every value of an unexpected type.

Each function takes a value and its name for messages, and raises InvalidImage if the type is wrong.
"""

import json

from fusefs.errors import InvalidImage
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


def _parsed(data: bytes, where: str) -> Json:
    try:
        # json.loads() alone would also accept UTF-16 and NaN, which JSON forbids.
        document: Json = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))
        raise InvalidImage(f"{where} is not JSON: {reason}") from None
    return document


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not a JSON value")
