"""Links of answers to the next page of a list (RFC 8288)."""

import re
from collections.abc import Iterable
from urllib.parse import urljoin, urlsplit

from fusefs.pattern import pattern

_QUOTED = r'"((?:[^"\\]|\\.)*+)["\\]?+'
_LINK = pattern(rf'<([^<>]*+)>((?:[^<>",]|{_QUOTED})*+)', re.DOTALL)
"""The target of a link, and its parameters (RFC 8288)."""
_PARAMETER = pattern(rf';\s*+([^\s;,="]++)\s*+=\s*+(?:{_QUOTED}|([^\s;,"]*+))', re.DOTALL)


def next_query(links: Iterable[str], url: str, *, anywhere: bool = False) -> str | None:
    """Return the query of the page after *url*, empty without one, None if it is at another place (RFC 8288).

    That is, unless *anywhere* is right, another host or scheme.  The path does not count: behind a proxy, registries
    state one that is not theirs.
    """
    for target, parameters, _ in _LINK.findall(", ".join(links)):
        if "next" not in _relations(parameters):
            continue
        try:
            here, there = urlsplit(url), urlsplit(urljoin(url, target))
        except ValueError:
            return None
        return there.query if anywhere or there[:2] == here[:2] else None
    return ""


def _relations(parameters: str) -> list[str]:
    """Return the types of relation in the *parameters* of a link, of which the first ``rel`` counts, in lower case."""
    for name, quoted, plain in _PARAMETER.findall(parameters):
        if name.lower() == "rel":
            types: str = quoted or plain
            return types.lower().split()
    return []
