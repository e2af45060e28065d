"""imgfs list: the images that are mounted."""

import argparse
import time
from calendar import timegm
from collections.abc import Mapping
from typing import Any

from fusefs.cli.output.stdout import BOLD, DIM, RED, YELLOW, Output, human_size, table
from fusefs.mount.mountinfo import FILE_SYSTEM, mounts
from fusefs.mount.status import Listed, State, ask
from fusefs.text import printable

_STYLES = {State.STALE: RED, State.STUCK: YELLOW, State.DENIED: DIM, State.COVERED: DIM}
_SHORT = 12
"""Characters of an image ID that are shown, as docker does."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Ask the mounts in the kernel's table what they are."""
    output = Output(environment)
    listed = ask(mount for mount in mounts() if mount.file_system == FILE_SYSTEM)
    if arguments.json:
        output.json([_json(one) for one in listed])
    else:
        heads = ("MOUNTPOINT", "IMAGE", "ID", "SOURCE", "PID", "SINCE", "READ", "STATE")
        header, *lines = table([heads, *map(_row, listed)], right=(4, 6))
        output.line(output.styled(header, BOLD))
        for one, line in zip(listed, lines, strict=True):
            style = _STYLES.get(one.state)
            output.line(output.styled(line, style) if style else line)
    output.finish()


def _row(one: Listed) -> tuple[str, ...]:
    said = one.said
    read = one.number("bytes_read")
    cells = (
        one.mount.mountpoint,
        one.image,
        said.get("id", "").partition(":")[2][:_SHORT],
        said.get("source", ""),
        said.get("pid", ""),
        _local(said.get("since", "")),
        "" if read is None else human_size(read),
        one.state.value,
    )
    return tuple(printable(cell) or "-" for cell in cells)


def _local(since: str) -> str:
    try:
        moment = timegm(time.strptime(since, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return since
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _json(one: Listed) -> dict[str, Any]:
    said = one.said
    return {
        "mountpoint": one.mount.mountpoint,
        "image": one.image,
        "id": said.get("id"),
        "platform": said.get("platform"),
        "source": said.get("source"),
        "pid": one.number("pid"),
        "since": said.get("since"),
        "bytesRead": one.number("bytes_read"),
        "state": one.state.value,
    }
