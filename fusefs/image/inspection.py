"""The data that `imgfs inspect` shows: the documents of an image, layer by layer."""

from typing import NamedTuple

from fusefs.image.model import Image, Layer, Referrer
from fusefs.oci.config import Details, Healthcheck, Step, parse_details
from fusefs.oci.times import known_time
from fusefs.oci.untrusted_json import Json


class InspectedLayer(NamedTuple):
    """One layer."""

    number: int
    """0 is the base."""
    layer: Layer
    share: float
    """Its share of the size of all layers, 0 to 1."""
    step: Step | None
    """The step that made it, None if the history does not tell."""


class Inspection(NamedTuple):
    """All data shown of an image."""

    image: Image
    details: Details
    size: int
    """Stored size of all layers in bytes; a repeated layer counts each time."""
    layers: tuple[InspectedLayer, ...]
    referrers: tuple[Referrer, ...] | None = None
    """What refers to it; None if nobody asked."""

    def lines(self) -> tuple[tuple[Step | None, InspectedLayer | None], ...]:
        """Return each step of the history with the layer it made, oldest first; without a history, the layers alone."""
        if not self.layers or all(layer.step is None for layer in self.layers):
            return tuple((None, layer) for layer in self.layers)
        made = iter(self.layers)
        return tuple((step, None if step.empty else next(made)) for step in self.details.history)


def inspect(image: Image, referrers: tuple[Referrer, ...] | None = None) -> Inspection:
    """Return the inspection of *image*, to which *referrers* refer; reads no layer."""
    details = parse_details(image.config.content.data)
    size = sum(layer.descriptor.size for layer in image.layers)
    steps = details.steps(len(image.layers))
    layers = tuple(
        InspectedLayer(number, layer, layer.descriptor.size / size if size else 0.0, step)
        for number, (layer, step) in enumerate(zip(image.layers, steps, strict=True))
    )
    return Inspection(image, details, size, layers, referrers)


def as_json(inspection: Inspection) -> dict[str, Json]:
    """Return the document that `--json` prints; docs/json.md specifies its keys."""
    image, details = inspection.image, inspection.details
    return {
        "name": image.name,
        "tag": image.tag,
        "id": str(image.config.descriptor.digest),
        "digest": str(image.manifest.descriptor.digest),
        "mediaType": image.manifest.descriptor.media_type,
        "platform": None if image.platform is None else str(image.platform),
        "created": known_time(image.created_ns),
        "author": details.author,
        "size": inspection.size,
        "user": details.user,
        "workingDir": details.working_dir,
        "entrypoint": [*details.entrypoint],
        "cmd": [*details.command],
        "env": [*details.environment],
        "exposedPorts": [*details.ports],
        "volumes": [*details.volumes],
        "labels": {**details.labels},
        "stopSignal": details.stop_signal,
        "layers": [_layer_json(layer) for layer in inspection.layers],
        "history": [_step_json(step, layer) for step, layer in inspection.lines() if step is not None]
        or [_step_json(step, None) for step in details.history],
        "generated": image.generated,
        "repoDigests": [*image.repo_digests],
        "shell": [*details.shell],
        "onBuild": [*details.on_build],
        "healthcheck": None if details.healthcheck is None else _healthcheck_json(details.healthcheck),
        "referrers": None
        if inspection.referrers is None
        else [_referrer_json(referrer) for referrer in inspection.referrers],
    }


def _referrer_json(referrer: Referrer) -> dict[str, Json]:
    return {
        "digest": str(referrer.digest),
        "artifactType": referrer.artifact_type,
        "size": referrer.size,
        "subject": str(referrer.subject),
    }


def _healthcheck_json(check: Healthcheck) -> dict[str, Json]:
    return {
        "test": [*check.test],
        "interval": check.interval_ns / 1e9,
        "timeout": check.timeout_ns / 1e9,
        "startPeriod": check.start_period_ns / 1e9,
        "startInterval": check.start_interval_ns / 1e9,
        "retries": check.retries,
    }


def _layer_json(inspected: InspectedLayer) -> dict[str, Json]:
    layer, step = inspected.layer, inspected.step
    return {
        "number": inspected.number,
        "size": layer.descriptor.size,
        "share": round(inspected.share, 4),
        "digest": str(layer.descriptor.digest),
        "diffId": None if layer.diff_id is None else str(layer.diff_id),
        "mediaType": layer.descriptor.media_type,
        "compression": None if layer.compression is None else layer.compression.value,
        "stored": layer.content is not None,
        "createdBy": None if step is None else step.created_by,
        "plainSize": layer.descriptor.size if layer.readable and layer.compression is None else None,
    }


def _step_json(step: Step, made: InspectedLayer | None) -> dict[str, Json]:
    return {
        "created": known_time(step.created_ns),
        "createdBy": step.created_by,
        "author": step.author,
        "comment": step.comment,
        "emptyLayer": step.empty,
        "layer": None if made is None else made.number,
    }
