"""The page as text: what is in it ends no element, and the policy has the hashes of style and script."""

import base64
import hashlib
import json
import re

from fusefs.report.page import page

EVIL = "</script><!--<script>\u2028\udcff&amp;@STYLE@ @SCRIPT@</title>"


def parts(text: str) -> dict[str, str]:
    """Return the contents of the elements that have raw text."""
    found = re.findall(r"<(style|script|title)([^>]*)>(.*?)</\1>", text, re.DOTALL)
    return {f"{name}{' data' if attributes else ''}": content for name, attributes, content in found}


def test_data_come_back_as_they_are_and_end_nothing() -> None:
    text = page(EVIL, {"images": [EVIL]})
    found = parts(text)
    assert set(found) == {"style", "script", "title", "script data"}
    assert json.loads(found["script data"]) == {"images": [EVIL]}
    assert set("<>&\u2028") & set(found["script data"]) == set()
    assert found["script data"].isascii()
    assert "<" not in found["title"]
    assert text.lower().count("</script>") == 2
    text.encode()


def test_the_policy_allows_this_style_and_this_script_alone() -> None:
    text = page("x", {})
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    hashes = {
        name: f"'sha256-{base64.b64encode(hashlib.sha256(parts(text)[name].encode()).digest()).decode()}'"
        for name in ("style", "script")
    }
    assert policy[1] == (
        f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']}; "
        "base-uri 'none'; form-action 'none'"
    )
    assert "http" not in text.replace("http-equiv", "")
