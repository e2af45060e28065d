"""The differences of two images in their configuration: in how they are run, not in who made them, when and how."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from fusefs.image.inspection import Inspection, as_json
from fusefs.layers.diff import Change
from fusefs.oci.untrusted_json import Json

_SINGLE = ("platform", "entrypoint", "cmd", "shell", "healthcheck", "workingDir", "user", "stopSignal", "onBuild")
"""Properties with one value, by their keys in `imgfs inspect --json`."""


class ConfigChange(NamedTuple):
    """One property that differs."""

    key: str
    """Its key in the document of `imgfs inspect --json`."""
    name: str
    """Of the variable, the port, the volume or the label; otherwise empty."""
    before: Json
    """The value as in that document; None if there is none."""
    after: Json

    @property
    def change(self) -> Change:
        """How it differs."""
        if self.before is None:
            return Change.ADDED
        return Change.REMOVED if self.after is None else Change.CHANGED


def config_changes(old: Inspection, new: Inspection) -> Iterator[ConfigChange]:
    """Yield the differences, property by property."""
    olds, news = as_json(old), as_json(new)
    for key in _SINGLE:
        before, after = olds[key] or None, news[key] or None
        if before != after:
            yield ConfigChange(key, "", before, after)
    old_details, new_details = old.details, new.details
    yield from _named("env", _variables(old_details.environment), _variables(new_details.environment))
    yield from _named("exposedPorts", _set(old_details.ports), _set(new_details.ports))
    yield from _named("volumes", _set(old_details.volumes), _set(new_details.volumes))
    yield from _named("labels", old_details.labels, new_details.labels)


def _variables(lines: Iterable[str]) -> dict[str, str]:
    """Return the variables by name; of several with one name the last one counts, as in a container."""
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


def _set(names: Iterable[str]) -> dict[str, str]:
    return dict.fromkeys(names, "")


def _named(key: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[ConfigChange]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before != after:
            yield ConfigChange(key, name, before, after)
