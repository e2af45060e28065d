"""The inspection of an image that an engine alone has described: in milliseconds, without a save.

Format of the answers: Docker Engine API, "Inspect an image" and "Get the history of an image".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusefs.image.inspection import InspectedLayer, Inspection
from fusefs.oci.config import Details, parse_details
from fusefs.oci.platform import Platform
from fusefs.oci.times import nanoseconds, rfc3339
from fusefs.oci.untrusted_json import as_string, field_of
from fusefs.sources.engine.checked import image_tag
from fusefs.sources.engine.inspected import Target

_METADATA = re.compile(
    r"(?:/bin/sh -c #\(nop\) +)?"
    r"(?:ARG|CMD|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR)\b"
)
"""Instructions that make no layer; WORKDIR makes one if it makes a directory."""
_MAX_SIZE = 1 << 60
_MAX_TIME = 1 << 40
"""Seconds."""


def described(target: Target, history: Sequence[Any]) -> Inspection:
    """Return the inspection from the engine's answers: that in *target*, and *history*, the newest step first."""
    inspected = target.inspected
    steps = [step for step in reversed(history) if isinstance(step, dict)]
    made = _layers_made(steps, len(inspected.diff_ids))
    details = _details(inspected.answer, steps, made)
    sizes = [_size(step) for step, makes in zip(steps, made or (), strict=False) if makes]
    known: Sequence[int | None] = sizes if made is not None else [None] * len(inspected.diff_ids)
    total = sum(sizes)
    return Inspection(
        name=target.name,
        tag=image_tag(target.name, inspected),
        id=inspected.image_id,
        digest=None,
        media_type=None,
        generated=None,
        repo_digests=inspected.repo_digests,
        platform=_platform(inspected.platform),
        created_ns=nanoseconds(field_of(inspected.answer, "Created")),
        details=details,
        size=total if made is not None else inspected.size,
        layers=tuple(
            InspectedLayer(number, diff_id, size, None if size is None else size / total if total else 0.0, step)
            for number, (diff_id, size, step) in enumerate(
                zip(inspected.diff_ids, known, details.steps(len(inspected.diff_ids)), strict=True)
            )
        ),
    )


def _platform(platform: Platform | None) -> Platform | None:
    """Return the *platform* as an image states it: podman has the version of a builder in that of Linux."""
    return platform._replace(os_version="") if platform is not None and platform.os == "linux" else platform


def _layers_made(steps: Sequence[Mapping[str, Any]], layers: int) -> list[bool] | None:
    """Return of each step whether it made one of so many *layers*; None if that cannot be told.

    An engine states sizes of steps, but not which of them made a layer without files.
    """
    for makes in (_has_files, _is_no_metadata):
        made = [makes(step) for step in steps]
        if sum(made) == layers:
            return made
    return None


def _has_files(step: Mapping[str, Any]) -> bool:
    return _size(step) > 0


def _is_no_metadata(step: Mapping[str, Any]) -> bool:
    return _has_files(step) or not _METADATA.match(as_string(field_of(step, "CreatedBy")))


def _size(step: Mapping[str, Any]) -> int:
    size = field_of(step, "Size")
    return size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _MAX_SIZE else 0


def _details(answer: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], made: Sequence[bool] | None) -> Details:
    """Return the details, from an image config made of the answers: both have the same keys."""
    config = {
        "author": field_of(answer, "Author"),
        "config": field_of(answer, "Config"),
        "history": list(_history(steps, made or [True] * len(steps))),
    }
    return parse_details(json.dumps(config).encode())


def _history(steps: Sequence[Mapping[str, Any]], made: Sequence[bool]) -> Iterator[dict[str, Any]]:
    for step, makes in zip(steps, made, strict=True):
        created = field_of(step, "Created")
        yield {
            "created": rfc3339(created * 10**9) if isinstance(created, int) and 0 < created < _MAX_TIME else None,
            "created_by": field_of(step, "CreatedBy"),
            "comment": field_of(step, "Comment"),
            "empty_layer": not makes,
        }
