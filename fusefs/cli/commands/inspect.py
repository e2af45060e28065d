"""imgfs inspect: show the configuration and layers of an image."""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fusefs.cli.opening import opening
from fusefs.cli.output.stdout import BOLD, CYAN, DIM, GREEN, Output, clipped, human_size, table
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
"""Characters of a digest that are shown on a terminal, as in docker."""
_VENDOR = re.compile(r"application/vnd\.(oci|docker)\.image\.(?:layer\.v1\.|layer\.|rootfs\.)?(?:diff\.)?")


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and print the contents of its documents."""
    output = Output(environment)
    with opening(arguments, environment) as open_image:
        opened = open_image(arguments.image)
        inspection = inspect(opened.image, _referrers(opened) if arguments.referrers else None)
    if arguments.json:
        output.json(as_json(inspection))
    else:
        for name, values in _properties(inspection):
            for number, value in enumerate(values):
                label = f"{'' if number else name:<13}"
                output.line(output.styled(label, BOLD) + printable(value))
        if inspection.layers or inspection.details.history:
            output.line()
            _write_layers(inspection, output, short=output.terminal and not arguments.no_trunc)
    output.finish()


def _referrers(opened: Opened) -> tuple[Referrer, ...]:
    if opened.referrers is None:
        raise UsageError(f"--referrers: only a registry knows them, and {opened.shown} is not in one (docker://…)")
    return opened.referrers()


def _properties(inspection: Inspection) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the name and the values of each property that the image has."""
    image, details = inspection.image, inspection.details
    yield "Name", [image.name]
    yield "ID", [str(image.config.descriptor.digest)]
    yield "Digest", [str(image.manifest.descriptor.digest)]
    if image.generated:
        yield "", ["of a manifest that imgfs generated, as docker and skopeo do; registries have another"]
    yield from _stated("Repo digests", image.repo_digests)
    yield "Media type", [image.manifest.descriptor.media_type]
    yield from _stated("Platform", [] if image.platform is None else [str(image.platform)])
    created = known_time(image.created_ns)
    yield from _stated("Created", [] if created is None else [created])
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


def _write_layers(inspection: Inspection, output: Output, *, short: bool) -> None:
    """Write a line for each step of the history, oldest first."""
    lines = inspection.lines() or tuple((step, None) for step in inspection.details.history)
    full = "█" if output.terminal else "#"
    rows: list[tuple[str, ...]] = [("#", "SIZE", "STORED", "SHARE", "", "DIFF ID", "MEDIA TYPE", "CREATED BY")]
    rows += [_row(step, inspected, full, short=short) for step, inspected in lines]
    shown = table(rows, right=(0, 1, 3))
    start = shown[0].index("CREATED BY")
    width = None if output.columns is None or not short else max(16, output.columns - start)
    for number, (text, row) in enumerate(zip(shown, rows, strict=True)):
        line = text[:start] + clipped(text[start:], width)
        if not number:
            line = output.styled(line, BOLD)
        elif lines[number - 1][1] is None:
            line = output.styled(line, DIM)
        else:
            bar, diff_id = row[4].rstrip(), row[5]
            line = line.replace(bar, output.styled(bar, GREEN), 1) if bar else line
            line = line.replace(diff_id, output.styled(diff_id, CYAN), 1) if diff_id != "-" else line
        output.line(line)


def _row(step: Step | None, inspected: InspectedLayer | None, full: str, *, short: bool) -> tuple[str, ...]:
    """Return the cells of a line; *full* is the character for one column of a bar."""
    created_by = "-" if step is None else printable(_one_line(step.created_by or step.comment)) or "-"
    if inspected is None:
        return "-", "empty", "", "", "", "-", "-", created_by
    layer = inspected.layer
    diff_id = "-" if layer.diff_id is None else str(layer.diff_id)
    media_type = printable(layer.descriptor.media_type)
    if short:
        diff_id = diff_id.partition(":")[2][:_SHORT] or diff_id
        media_type = _VENDOR.sub(r"\1 ", media_type)
    bar = full * max(round(inspected.share * _BAR), 1 if inspected.share else 0)
    size = human_size(layer.descriptor.size) + ("" if layer.content is not None else " (not stored)")
    stored = "-" if layer.content is None else "plain" if layer.compression is None else layer.compression.value
    return (
        str(inspected.number),
        size,
        stored,
        f"{inspected.share:.0%}",
        f"{bar:<{_BAR}}",
        diff_id,
        media_type,
        created_by,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
