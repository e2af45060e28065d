"""imgfs list: the images that are mounted."""

import argparse
from calendar import timegm
from collections.abc import Mapping
from time import strptime
from typing import Any

from fusefs.cli.output.ages import age_of, local_time
from fusefs.cli.output.stdout import BOLD, DIM, RED, YELLOW, Output, human_size
from fusefs.cli.output.tables import cut_beginning, table
from fusefs.mount.mountinfo import identified, mounts
from fusefs.mount.status import MountStatus, State, query_status
from fusefs.text import printable

_STYLES = {State.STALE: RED, State.STUCK: YELLOW, State.DENIED: DIM, State.COVERED: DIM}
_SHORT = 12
"""Characters of an image ID that are shown, as in docker."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """List the imgfs mounts in the kernel's table, with the status of each."""
    output = Output(environment)
    statuses = query_status(identified(mount for mount in mounts() if mount.may_be_image))
    statuses = [status for status in statuses if status.is_image]
    if arguments.json:
        output.json([_json(status) for status in statuses])
    else:
        header, *lines = _wide(statuses) if arguments.wide else _narrow(statuses, output.columns)
        output.line(output.styled(header, BOLD))
        for status, line in zip(statuses, lines, strict=True):
            style = _STYLES.get(status.state)
            output.line(output.styled(line, style) if style else line)
    output.finish()


def _narrow(statuses: list[MountStatus], columns: int | None) -> list[str]:
    """Return the lines of a table that fits 80 columns, or the terminal if it is wider."""
    rows = [("MOUNTPOINT", "IMAGE", "SINCE", "READ", "DRIVER", "STATE"), *map(_row, statuses)]
    return table(rows, right=(3,), columns=columns, cuts={0: cut_beginning, 1: cut_beginning})


def _row(status: MountStatus) -> tuple[str, ...]:
    since = status.attributes.get("since", "")
    return _cells(
        status.mount.mountpoint,
        status.image,
        age_of(since) or since,
        _read(status),
        status.driver,
        status.state.value,
    )


def _wide(statuses: list[MountStatus]) -> list[str]:
    header = ("MOUNTPOINT", "IMAGE", "ID", "SOURCE", "PID", "SINCE", "READ", "DRIVER", "STATE")
    return table([header, *map(_wide_row, statuses)], right=(4, 6))


def _wide_row(status: MountStatus) -> tuple[str, ...]:
    attributes = status.attributes
    return _cells(
        status.mount.mountpoint,
        status.image,
        attributes.get("id", "").partition(":")[2][:_SHORT],
        attributes.get("source", ""),
        attributes.get("pid", ""),
        _local(attributes.get("since", "")),
        _read(status),
        status.driver,
        status.state.value,
    )


def _cells(*cells: str) -> tuple[str, ...]:
    return tuple(printable(cell) or "-" for cell in cells)


def _read(status: MountStatus) -> str:
    read = status.number("bytes_read")
    return "" if read is None else human_size(read)


def _local(since: str) -> str:
    try:
        return local_time(timegm(strptime(since, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return since


def _json(status: MountStatus) -> dict[str, Any]:
    attributes = status.attributes
    in_use = attributes.get("in_use")
    return {
        "mountpoint": status.mount.mountpoint,
        "image": status.image,
        "subdir": attributes.get("subdir"),
        "id": attributes.get("id"),
        "inUse": None if in_use is None else [path for path in in_use.split("\0") if path],
        "platform": attributes.get("platform"),
        "source": attributes.get("source"),
        "pid": status.number("pid"),
        "since": attributes.get("since"),
        "bytesRead": status.number("bytes_read"),
        "driver": status.driver,
        "state": status.state.value,
    }
