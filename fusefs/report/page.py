"""The page: markup, style, script and data in one HTML file that no browser lets ask for anything else."""

import base64
import hashlib
import html
import json
import os
from typing import Any

from fusefs.text import printable

_FOLDER = os.path.dirname(__file__)
_POLICY = "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'"
"""Only the style and the script of this page, by their hashes (CSP 3), and nothing from anywhere."""
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}
"""In a script element, these could end it or begin a comment (HTML, "Restrictions for contents of script elements")."""


def page(title: str, data: dict[str, Any]) -> str:
    """Return the page about *data*, whose text may be anything."""
    style, script = _part("page.css"), _part("page.js")
    parts = {
        "POLICY": _POLICY.format(_hash(style), _hash(script)),
        "TITLE": html.escape(printable(title)),
        "STYLE": style,
        "DATA": json.dumps(data, separators=(",", ":")).translate(_ESCAPES),
        "SCRIPT": script,
    }
    first, *rest = _part("page.html").split("@")  # names and texts between them, in turn
    return first + "".join(parts[text] if at % 2 == 0 else text for at, text in enumerate(rest))


def _part(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding="utf-8") as file:
        return file.read()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
