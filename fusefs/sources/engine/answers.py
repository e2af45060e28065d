"""The parts of requests to an engine, and of its answers, that every client of it needs."""

import json
import re

from fusefs.errors import EngineError
from fusefs.oci.platform import Platform, suitability
from fusefs.sources.engine.inspected import NONSENSE, Target
from fusefs.text import printable

PLATFORM_VERSION = (1, 48)
"""The first version of the API whose save takes a platform; earlier versions ignore the parameter."""
_MAX_WHY = 500
"""Maximum length of an engine's reason in a message, in characters."""
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}")


def requested_platform(platform: Platform) -> str:
    """Return *platform* as the API takes it."""
    wanted = {
        "os": platform.os,
        "architecture": platform.architecture,
        "variant": platform.variant,
        "os.version": platform.os_version,
    }
    return json.dumps({key: value for key, value in wanted.items() if value})


def is_version(text: str) -> bool:
    """Return whether *text* is a version of the API, as in ``1.41``."""
    return bool(_VERSION.fullmatch(text))


def version_numbers(version: str) -> tuple[int, ...]:
    """Return a version of the API as numbers, which can be compared."""
    return tuple(map(int, version.split(".")))


def refusal(shown: str, name: str, why: str, hint: str = "") -> EngineError:
    """Return the error for the engine at *shown* that refuses a request, with a *hint* for the user."""
    cut = why if len(why) <= _MAX_WHY else f"{why[:_MAX_WHY]}…"
    return EngineError(f"the engine at {shown} refuses {printable(name)}: {printable(cut)}{hint}")


def platform_hint(target: Target) -> str:
    """Return a hint for an engine that has only another platform of an image, and cannot save the others."""
    platform = target.inspected.platform
    if target.platform is not None or platform is None:
        return ""
    if suitability(platform, Platform.of_host(), exact=False) is not None:
        return ""
    return f"; --platform {platform} asks for the one that the engine has"


def message_of(answer: bytes, status: str) -> str:
    """Return why an engine refuses: the message in its JSON, otherwise its text, otherwise the HTTP *status*."""
    try:
        return str(json.loads(answer)["message"])
    except (RecursionError, *NONSENSE):
        return answer.decode("utf-8", "replace").strip() or status


def unanswered(shown: str, timeout: float | None) -> EngineError:
    """Return the error for the engine at *shown* that takes too long to answer."""
    return EngineError(f"the engine at {shown} did not answer within {timeout:g} s; --timeout waits longer")
