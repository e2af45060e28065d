"""What an image config tells people: how the image is run, and how it was made.

Format: OCI image specification 1.1, "Image Configuration", and what Docker adds.  Nothing that imgfs
does depends on it, so what is not as it should be is left out and never an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusefs.errors import InvalidImage
from fusefs.oci.times import nanoseconds
from fusefs.oci.untrusted_json import Json, as_string, parse_object


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the history."""

    created_ns: int
    """Nanoseconds since 1970, 0 when missing or senseless."""
    created_by: str
    """The command, as it is written there."""
    author: str
    comment: str
    empty: bool
    """It made no layer."""


@dataclass(frozen=True, slots=True)
class Details:
    """An image config's words for people.  All of it comes from outside: control characters included."""

    author: str = ""
    user: str = ""
    working_dir: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """``NAME=value`` each."""
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    history: tuple[Step, ...] = ()

    def steps(self, layers: int) -> tuple[Step | None, ...]:
        """Return the step that made each of so many *layers*, None for all if the history is of others."""
        made = tuple(step for step in self.history if not step.empty)
        return made if len(made) == layers else (None,) * layers


def parse_details(data: bytes) -> Details:
    """Return what *data*, an image config or what stands in its place, tells."""
    try:
        document = parse_object(data, "the image config", "an image config")
    except InvalidImage:
        return Details()
    run = document.get("config")
    run = run if isinstance(run, dict) else {}
    history = document.get("history")
    return Details(
        author=as_string(document.get("author")),
        user=as_string(run.get("User")),
        working_dir=as_string(run.get("WorkingDir")),
        entrypoint=_words(run.get("Entrypoint")),
        command=_words(run.get("Cmd")),
        environment=_words(run.get("Env")),
        ports=_keys(run.get("ExposedPorts")),
        volumes=_keys(run.get("Volumes")),
        labels=_texts(run.get("Labels")),
        stop_signal=as_string(run.get("StopSignal")),
        history=tuple(_step(line) for line in history if isinstance(line, dict)) if isinstance(history, list) else (),
    )


def _step(line: Mapping[str, Json]) -> Step:
    return Step(
        created_ns=nanoseconds(line.get("created")),
        created_by=as_string(line.get("created_by")),
        author=as_string(line.get("author")),
        comment=as_string(line.get("comment")),
        empty=line.get("empty_layer") is True,
    )


def _words(value: Json) -> tuple[str, ...]:
    """Return a list of strings; a single string is one, as old engines wrote it."""
    if isinstance(value, str):
        return (value,)
    return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list) else ()


def _keys(value: Json) -> tuple[str, ...]:
    """Return the keys of what is a set in Go's JSON: an object of empty objects."""
    return tuple(value) if isinstance(value, dict) else ()


def _texts(value: Json) -> dict[str, str]:
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
