"""All kinds of hostile cases, by name: a function a kind, which gives its cases in a fixed order."""

from collections.abc import Callable, Iterable

from tests.drills import hostile_engine, hostile_environment, hostile_limits
from tests.drills.hostile_drill import Case

KINDS: dict[str, Callable[[], Iterable[Case]]] = {
    "engine": hostile_engine.cases,
    "environment": hostile_environment.cases,
    "limits": hostile_limits.cases,
}
