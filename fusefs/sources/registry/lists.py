"""The lists of a registry: its repositories and their tags, page by page.

OCI distribution specification 1.1, "Listing Tags"; ``_catalog`` is docker's.  A registry may list anything, without
end: what is no name is left out, and names, pages and time are bounded.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fusefs.oci.reference import is_repository, is_tag
from fusefs.oci.untrusted_json import Json, as_list, field_of, parse_object
from fusefs.sources.registry.transfer import Transfers

MAX_NAMES = 50_000
"""Names of a list that are used."""
_MAX_PAGES = 256
_MAX_SECONDS = 60.0
_PAGE = "n=1000"
"""How many names a registry is asked for at a time; many give fewer."""
_OF_REFERRERS = re.compile(r"sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})(?:\..*)?")
"""Tags of signatures and other referrers, by the specification and by cosign."""


class NameList(NamedTuple):
    """A list of names, in the registry's order, without duplicates."""

    names: tuple[str, ...]
    flaw: str = ""
    """What is left out, empty if nothing is."""


def list_tags(transfers: Transfers) -> NameList:
    """Return the tags of a repository, without those of referrers.

    Raises Unavailable (Missing for a repository or a registry without a list), RegistryError or InvalidImage.
    """
    found = _listed(transfers, "tags/list", "tags", is_tag)
    return found._replace(names=tuple(tag for tag in found.names if not is_of_referrer(tag)))


def is_of_referrer(tag: str) -> bool:
    """Return whether a tag is that of a signature or another referrer, and none of an image."""
    return _OF_REFERRERS.fullmatch(tag) is not None


def list_repositories(transfers: Transfers) -> NameList:
    """Return the repositories of a registry.  Raises as `list_tags` does."""
    return _listed(transfers, "_catalog", "repositories", is_repository)


def _listed(transfers: Transfers, path: str, key: str, is_name: Callable[[str], bool]) -> NameList:
    names: dict[str, None] = {}
    others = 0
    flaw = ""
    for page in _pages(transfers, path, key):
        if isinstance(page, str):
            flaw = page
            break
        for name in page:
            if isinstance(name, str) and is_name(name):
                names[name] = None
            else:
                others += 1
        if len(names) > MAX_NAMES:
            flaw = f"it has more than {MAX_NAMES} names"
            break
    if others:
        flaw = f"{flaw}{flaw and '; '}{others} of its names are none"
    return NameList((*names,)[:MAX_NAMES], flaw)


def _pages(transfers: Transfers, path: str, key: str) -> Iterator[list[Json] | str]:
    """Yield the names of each page, of any type; in place of pages that are left out, why they are."""
    query: str | None = _PAGE
    asked = set[str]()
    deadline = time.monotonic() + _MAX_SECONDS
    while query:
        if query in asked or len(asked) >= _MAX_PAGES or time.monotonic() > deadline:
            yield f"it has more than {_MAX_PAGES} pages, or takes more than {_MAX_SECONDS:.0f} s"
            return
        asked.add(query)
        data, query = transfers.ask(
            lambda repository, retries, query=query: repository.names(path, query, retries)  # type: ignore[misc]
        )
        where = f"the registry's answer to {path}"
        yield as_list(field_of(parse_object(data, where, f"a list of {key}"), key), where)
    if query is None:
        yield "the link to its next page is malformed"
