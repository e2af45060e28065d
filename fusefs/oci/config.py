"""The parts of an image config for people: how the image is run, and how it was made.

Format: OCI image specification 1.1, "Image Configuration", with Docker's additions.  Nothing in imgfs depends on these
parts, so a malformed one is left out and is not an error.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from fusefs.errors import InvalidImage
from fusefs.oci.times import nanoseconds
from fusefs.oci.untrusted_json import Json, as_string, field_of, parse_object


class Step(NamedTuple):
    """One step of the history."""

    created_ns: int
    """Nanoseconds since 1970, 0 if missing or malformed."""
    created_by: str
    """The command, as the history states it."""
    author: str
    comment: str
    empty: bool
    """The step made no layer."""


class Healthcheck(NamedTuple):
    """How an engine finds out whether a container works.  Times are nanoseconds; 0 is the engine's default."""

    test: tuple[str, ...]
    """``CMD`` and its arguments, ``CMD-SHELL`` and a line, or ``NONE``."""
    interval_ns: int
    timeout_ns: int
    start_period_ns: int
    start_interval_ns: int
    retries: int


class Details(NamedTuple):
    """The texts of an image config.  All of them are untrusted and may hold control characters."""

    author: str = ""
    user: str = ""
    working_dir: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """``NAME=value`` each."""
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = MappingProxyType({})
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    """Instructions for the build of an image that is based on this one."""
    healthcheck: Healthcheck | None = None
    history: tuple[Step, ...] = ()

    def steps(self, layers: int) -> tuple[Step | None, ...]:
        """Return the step that made each of the image's *layers*; None for each if the history has another number."""
        made = tuple(step for step in self.history if not step.empty)
        return made if len(made) == layers else (None,) * layers


def parse_details(data: bytes) -> Details:
    """Return the details in *data*, an image config or another document in its place."""
    try:
        document = parse_object(data, "the image config", "an image config")
    except InvalidImage:
        return Details()
    run = field_of(document, "config")
    run = run if isinstance(run, dict) else {}
    history = field_of(document, "history")
    return Details(
        author=as_string(field_of(document, "author")),
        user=as_string(field_of(run, "User")),
        working_dir=as_string(field_of(run, "WorkingDir")),
        entrypoint=_words(field_of(run, "Entrypoint")),
        command=_words(field_of(run, "Cmd")),
        environment=_words(field_of(run, "Env")),
        ports=_keys(field_of(run, "ExposedPorts")),
        volumes=_keys(field_of(run, "Volumes")),
        labels=_texts(field_of(run, "Labels")),
        stop_signal=as_string(field_of(run, "StopSignal")),
        shell=_words(field_of(run, "Shell")),
        on_build=_words(field_of(run, "OnBuild")),
        healthcheck=_healthcheck(field_of(run, "Healthcheck")),
        history=tuple(_step(line) for line in history if isinstance(line, dict)) if isinstance(history, list) else (),
    )


def _step(line: Mapping[str, Json]) -> Step:
    return Step(
        created_ns=nanoseconds(field_of(line, "created")),
        created_by=as_string(field_of(line, "created_by")),
        author=as_string(field_of(line, "author")),
        comment=as_string(field_of(line, "comment")),
        empty=field_of(line, "empty_layer") is True,
    )


def _healthcheck(value: Json) -> Healthcheck | None:
    if not isinstance(value, dict):
        return None
    return Healthcheck(
        test=_words(field_of(value, "Test")),
        interval_ns=_number(field_of(value, "Interval")),
        timeout_ns=_number(field_of(value, "Timeout")),
        start_period_ns=_number(field_of(value, "StartPeriod")),
        start_interval_ns=_number(field_of(value, "StartInterval")),
        retries=_number(field_of(value, "Retries")),
    )


def _number(value: Json) -> int:
    """Return a number, 0 for all that Go's int64 does not hold."""
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if -(1 << 63) <= value < 1 << 63 else 0


def _words(value: Json) -> tuple[str, ...]:
    """Return a list of strings; old engines wrote a single string instead of a list."""
    if isinstance(value, str):
        return (value,)
    return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list) else ()


def _keys(value: Json) -> tuple[str, ...]:
    """Return the keys of a set, which Go writes as an object of empty objects."""
    return tuple(value) if isinstance(value, dict) else ()


def _texts(value: Json) -> dict[str, str]:
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
