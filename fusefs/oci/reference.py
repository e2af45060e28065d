"""Names of images.

Grammar: github.com/distribution/reference.
"""

import re

from fusefs.errors import UsageError
from fusefs.text import printable

_MAX_NAME = 255
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{1,64}")


def check_reference(text: str) -> None:
    """Raise UsageError unless *text* is a name, with tag or digest or neither, or an image ID."""
    match = _REFERENCE.fullmatch(text)
    if match is None and _IMAGE_ID.fullmatch(text) is None:
        hint = ": repository names are lower case" if _REFERENCE.fullmatch(text.lower()) else ""
        raise UsageError(f"bad reference '{printable(text)}'{hint}")
    if match is not None and len(match["name"]) > _MAX_NAME:
        raise UsageError(f"bad reference: the name has {len(match['name'])} characters, more than {_MAX_NAME}")


def tagged(reference: str) -> str:
    """Return *reference* in its full form, with registry, folder and tag: names are compared in this form."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        return reference
    first, slash, path = match["name"].partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        first, path = "docker.io", match["name"]
    if first == "index.docker.io":
        first = "docker.io"
    if first == "docker.io" and "/" not in path:
        path = f"library/{path}"
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return f"{first}/{path}" + (f":{tag}" if tag else "") + (f"@{match['digest']}" if match["digest"] else "")


def same_image(asked: str, name: str) -> bool:
    """Return whether *asked* means the image *name*; podman looks for one without a registry in ``localhost``, too."""
    return tagged(name) in (tagged(asked), tagged(f"localhost/{asked}"))


def tag_of(reference: str) -> str:
    """Return the tag in *reference*, empty without one."""
    match = None if _IMAGE_ID.fullmatch(reference) else _REFERENCE.fullmatch(reference)
    return (match["tag"] or "") if match else ""
