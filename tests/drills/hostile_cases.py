"""All kinds of hostile cases, by name: a function a kind, which gives its cases in a fixed order."""

from collections.abc import Callable, Iterable

from tests.drills import hostile_engine, hostile_environment, hostile_limits, hostile_locks, hostile_mount_table
from tests.drills.hostile_drill import Case

KINDS: dict[str, Callable[[], Iterable[Case]]] = {
    "engine": hostile_engine.cases,
    "locks": hostile_locks.cases,
    "mount table": hostile_mount_table.cases,
    "environment": hostile_environment.cases,
    "limits": hostile_limits.cases,
}
