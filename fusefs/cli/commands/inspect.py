"""imgfs inspect: show the configuration and layers of an image."""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fusefs.cli.opening import opening
from fusefs.cli.output.ages import age_of
from fusefs.cli.output.stdout import BOLD, CYAN, DIM, GREEN, Output, clipped, human_size
from fusefs.cli.output.steps import instruction
from fusefs.cli.output.tables import bar, cut_end, table
from fusefs.errors import UsageError
from fusefs.image.inspection import InspectedLayer, Inspection, as_json, inspect
from fusefs.image.model import Referrer
from fusefs.image.opened import Opened
from fusefs.oci.config import Healthcheck, Step
from fusefs.oci.times import known_time
from fusefs.text import printable

_BAR = 10
"""Columns of the bar of a layer that is the whole image."""
_SHORT = 12
"""Digits of a digest that are shown on a terminal, as in docker."""
_LABEL = 13
"""Columns of the name of a property."""
_LINES = 4
"""Lines of one value that are shown on a terminal."""
_NO_BARS, _DIFF_IDS = 60, 100
"""Columns of a terminal: below, there are no bars; from here on, there are diffIDs."""
_DIGEST = re.compile(r"\b(sha256:|sha512:)([0-9a-f]{12})[0-9a-f]{20,}")


class _Look(NamedTuple):
    """How the output looks."""

    short: bool
    """For a terminal: short digests, and steps without files in one line."""
    columns: int | None
    """Of the terminal; None: nothing is cut."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image, or ask its engine, and print the contents of its documents."""
    output = Output(environment)
    with opening(arguments, environment) as open_image:
        whole = arguments.digests or arguments.referrers
        inspection = None if whole else open_image.described(arguments.image)
        if inspection is None:
            opened = open_image(arguments.image)
            inspection = inspect(opened.image, _referrers(opened) if arguments.referrers else None)
    if arguments.json:
        output.json(as_json(inspection))
    else:
        short = output.terminal and not arguments.no_trunc
        look = _Look(short, output.columns if short else None)
        for name, values in _properties(inspection, look):
            for number, value in enumerate(_lines(values, look)):
                output.line(output.styled(f"{'' if number else name:<{_LABEL}}", BOLD) + value)
        if inspection.layers or inspection.details.history:
            output.line()
            _write_layers(inspection, output, look)
    output.finish()


def _referrers(opened: Opened) -> tuple[Referrer, ...]:
    if opened.referrers is None:
        raise UsageError(f"--referrers: only a registry knows them, and {opened.shown} is not in one (docker://…)")
    return opened.referrers()


def _properties(inspection: Inspection, look: _Look) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the name and the values of each property that the image has."""
    details, digest = inspection.details, inspection.digest
    yield "Name", [inspection.name]
    yield "ID", [str(inspection.id)]
    yield "Digest", ["unknown: the image is not cached; --digests reads it" if digest is None else str(digest)]
    if inspection.generated:
        yield "", ["of a manifest that imgfs generated, as docker and skopeo do; registries have another"]
    yield from _stated("Repo digests", inspection.repo_digests)
    yield from _stated("Media type", [] if look.short else [inspection.media_type or ""])
    yield from _stated("Platform", [] if inspection.platform is None else [str(inspection.platform)])
    created = known_time(inspection.created_ns) or ""
    yield from _stated("Created", [(look.short and age_of(created, brief=False)) or created])
    yield from _stated("Author", [details.author])
    count = len(inspection.layers)
    yield "Size", [f"{human_size(inspection.size)} in {count} layer{'' if count == 1 else 's'}"]
    yield from _stated("Entrypoint", _command(details.entrypoint))
    yield from _stated("Command", _command(details.command))
    yield from _stated("Shell", _command(details.shell))
    yield from _stated("Healthcheck", _healthcheck(details.healthcheck))
    yield from _stated("On build", details.on_build)
    yield from _stated("Directory", [details.working_dir])
    yield from _stated("User", [details.user])
    yield from _stated("Environment", details.environment)
    yield from _stated("Ports", details.ports)
    yield from _stated("Volumes", details.volumes)
    yield from _stated("Stop signal", [details.stop_signal])
    yield from _stated("Labels", [f"{name}={value}" for name, value in details.labels.items()])
    if inspection.referrers is not None:
        yield "Referrers", [_referrer(found) for found in inspection.referrers] or ["none"]


def _referrer(found: Referrer) -> str:
    return f"{found.digest} {found.artifact_type or '-'} ({human_size(found.size)})"


def _stated(name: str, values: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
    found = [value for value in values if value]
    if found:
        yield name, found


def _lines(values: Iterable[str], look: _Look) -> Iterator[str]:
    """Yield the printable lines of *values*: on a terminal, several of its width for a long one."""
    for value in values:
        text = printable(value)
        if look.columns is None:
            yield text
            continue
        text = _DIGEST.sub(r"\2", text) if _DIGEST.fullmatch(text) else _DIGEST.sub(r"\1\2…", text)
        width = max(look.columns - _LABEL, 2 * _LABEL)
        lines = [text[at : at + width] for at in range(0, len(text), width)]
        yield from lines[: _LINES - 1]
        if len(lines) >= _LINES:
            yield clipped("".join(lines[_LINES - 1 :]), width)


def _healthcheck(check: Healthcheck | None) -> list[str]:
    """Return the test and the times that differ from the engine's defaults."""
    if check is None:
        return []
    times = {"interval": check.interval_ns, "timeout": check.timeout_ns, "start period": check.start_period_ns}
    times["start interval"] = check.start_interval_ns
    parts = [json.dumps([*check.test], ensure_ascii=False)]
    parts += [f"{name} {nanoseconds / 1e9:g} s" for name, nanoseconds in times.items() if nanoseconds]
    parts += [f"{check.retries} retries"] if check.retries else []
    return [", ".join(parts)]


def _command(words: Sequence[str]) -> list[str]:
    """Return *words* in the exec form of a Dockerfile."""
    return [json.dumps([*words], ensure_ascii=False)] if words else []


def _write_layers(inspection: Inspection, output: Output, look: _Look) -> None:
    """Write a line for each layer and for each step without one, oldest first."""
    lines = inspection.lines() or tuple((step, None) for step in inspection.details.history)
    columns = look.columns
    cells = [_cells(inspected, step, look) for step, inspected in lines]
    if look.short:
        cells = _folded(cells, [inspected for _, inspected in lines])
    header = _Cells("#", "SIZE", "STORED", "SHARE", "", "DIFF ID", "CREATED BY")
    left_out = {"stored", "diff_id"} if columns is not None and columns < _DIFF_IDS else set()
    left_out |= {"share", "bar"} if columns is not None and columns < _NO_BARS else set()
    names = [name for name in _Cells._fields if name not in left_out]
    rows = [tuple(getattr(row, name) for name in names) for row in (header, *cells)]
    right = [number for number, name in enumerate(names) if name in ("number", "size", "share")]
    first, *others = table(rows, right, columns, {len(names) - 1: cut_end})
    output.line(output.styled(first, BOLD))
    for row, text in zip(cells, others, strict=True):
        output.line(output.styled(text, DIM) if row.number == "-" else _coloured(text, row, output))


class _Cells(NamedTuple):
    """The cells of a line."""

    number: str
    size: str
    stored: str
    share: str
    bar: str
    diff_id: str
    created_by: str


def _cells(layer: InspectedLayer | None, step: Step | None, look: _Look) -> _Cells:
    created_by = instruction(step, short=look.short) or "-"
    if layer is None:
        return _Cells("-", "empty", "", "", "", "-", created_by)
    diff_id = "-" if layer.diff_id is None else str(layer.diff_id)
    if look.short:
        diff_id = diff_id.partition(":")[2][:_SHORT] or diff_id
    size = "-" if layer.size is None else human_size(layer.size)
    share = layer.share
    return _Cells(
        str(layer.number),
        size + ("" if layer.stored else " (not stored)"),
        _stored(layer),
        "-" if share is None else f"{share:.0%}",
        f"{bar(share or 0, _BAR, fine=look.short):<{_BAR}}",
        diff_id,
        created_by,
    )


def _stored(layer: InspectedLayer) -> str:
    return "-" if not layer.stored or layer.digest is None else layer.compression or "plain"


def _folded(cells: Sequence[_Cells], layers: Sequence[InspectedLayer | None]) -> list[_Cells]:
    """Return the lines with those of adjacent steps without a layer as one: ``3 steps: ENV, LABEL, CMD``."""
    folded: list[_Cells] = []
    run: list[_Cells] = []
    for row, layer in (*zip(cells, layers, strict=True), (None, None)):
        if row is not None and layer is None:
            run.append(row)
            continue
        if len(run) > 1:
            words = dict.fromkeys(empty.created_by.partition(" ")[0] for empty in run)
            run = [run[0]._replace(created_by=f"{len(run)} steps: {', '.join(words)}")]
        folded += run
        run = []
        if row is not None:
            folded.append(row)
    return folded


def _coloured(line: str, row: _Cells, output: Output) -> str:
    full = row.bar.rstrip()
    line = line.replace(full, output.styled(full, GREEN), 1) if full else line
    return line.replace(row.diff_id, output.styled(row.diff_id, CYAN), 1) if row.diff_id != "-" else line
