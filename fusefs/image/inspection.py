"""The data that `imgfs inspect` shows: the documents of an image, layer by layer."""

from typing import NamedTuple

from fusefs.image.model import Image, Layer, Referrer, Referrers
from fusefs.oci.config import Details, Healthcheck, Step, parse_details
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.platform import Platform
from fusefs.oci.times import known_time
from fusefs.oci.untrusted_json import Json


class InspectedLayer(NamedTuple):
    """One layer."""

    number: int
    """0 is the base."""
    diff_id: DiffID | None
    size: int | None
    """Bytes as they are stored; of an image that only an engine has described, of the files; None if unknown."""
    share: float | None
    """Its share of the size of all layers, 0 to 1; None if unknown."""
    step: Step | None
    """The step that made it, None if the history does not tell."""
    digest: Digest | None = None
    """The digest of the stored bytes, None if unknown."""
    media_type: str | None = None
    """The media type of the stored bytes, None if unknown."""
    compression: str | None = "unknown"
    """The name of a compression, None for a plain layer."""
    stored: bool = True
    """Whether the image has its bytes."""
    plain_size: int | None = None
    """Bytes of the plain tar, None if unknown."""


class Inspection(NamedTuple):
    """All data shown of an image."""

    name: str
    """The user's name for the image."""
    tag: str
    """The name of the image in an image layout."""
    id: Digest
    digest: Digest | None
    """The digest of the manifest; None if it is unknown, since an engine alone has described the image."""
    media_type: str | None
    """The media type of the manifest, None if it is unknown."""
    generated: bool | None
    """Whether imgfs generated the manifest, None if it is unknown."""
    repo_digests: tuple[str, ...]
    platform: Platform | None
    created_ns: int
    """Nanoseconds since 1970, 0 if unknown."""
    details: Details
    size: int
    """Size of all layers in bytes; a repeated layer counts each time."""
    layers: tuple[InspectedLayer, ...]
    referrers: Referrers | None = None
    """What refers to it; None if the image is not in a registry, or nobody wants to know."""

    def lines(self) -> tuple[tuple[Step | None, InspectedLayer | None], ...]:
        """Return each step of the history with the layer it made, oldest first; without a history, the layers alone."""
        if not self.layers or all(layer.step is None for layer in self.layers):
            return tuple((None, layer) for layer in self.layers)
        made = iter(self.layers)
        return tuple((step, None if step.empty else next(made)) for step in self.details.history)


def inspect(image: Image, referrers: Referrers | None = None) -> Inspection:
    """Return the inspection of *image*, to which *referrers* refer; reads no layer."""
    details = parse_details(image.config.content.data)
    size = sum(layer.descriptor.size for layer in image.layers)
    steps = details.steps(len(image.layers))
    return Inspection(
        name=image.name,
        tag=image.tag,
        id=image.config.descriptor.digest,
        digest=image.manifest.descriptor.digest,
        media_type=image.manifest.descriptor.media_type,
        generated=image.generated,
        repo_digests=image.repo_digests,
        platform=image.platform,
        created_ns=image.created_ns,
        details=details,
        size=size,
        layers=tuple(
            _inspected(number, layer, size, step)
            for number, (layer, step) in enumerate(zip(image.layers, steps, strict=True))
        ),
        referrers=referrers,
    )


def _inspected(number: int, layer: Layer, size: int, step: Step | None) -> InspectedLayer:
    stored = layer.descriptor
    return InspectedLayer(
        number=number,
        diff_id=layer.diff_id,
        size=stored.size,
        share=stored.size / size if size else 0.0,
        step=step,
        digest=stored.digest,
        media_type=stored.media_type,
        compression=None if layer.compression is None else layer.compression.value,
        stored=layer.content is not None,
        plain_size=stored.size if layer.readable and layer.compression is None else None,
    )


def as_json(inspection: Inspection) -> dict[str, Json]:
    """Return the document that `--json` prints; docs/json.md specifies its keys."""
    details = inspection.details
    return {
        "name": inspection.name,
        "tag": inspection.tag,
        "id": str(inspection.id),
        "digest": _text(inspection.digest),
        "mediaType": inspection.media_type,
        "platform": _text(inspection.platform),
        "created": known_time(inspection.created_ns),
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
        "generated": inspection.generated,
        "repoDigests": [*inspection.repo_digests],
        "shell": [*details.shell],
        "onBuild": [*details.on_build],
        "healthcheck": None if details.healthcheck is None else _healthcheck_json(details.healthcheck),
        "referrers": _referrers_json(inspection.referrers),
        "referrersComplete": None if inspection.referrers is None else not inspection.referrers.flaw,
    }


def _referrers_json(referrers: Referrers | None) -> list[Json] | None:
    """Return the list; None if nothing is known, so that an empty list means that there are none."""
    if referrers is None or (referrers.flaw and not referrers.found):
        return None
    return [_referrer_json(referrer) for referrer in referrers.found]


def _referrer_json(referrer: Referrer) -> dict[str, Json]:
    return {
        "digest": str(referrer.digest),
        "artifactType": referrer.artifact_type,
        "size": referrer.size,
        "subject": str(referrer.subject),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _healthcheck_json(check: Healthcheck) -> dict[str, Json]:
    return {
        "test": [*check.test],
        "interval": check.interval_ns / 1e9,
        "timeout": check.timeout_ns / 1e9,
        "startPeriod": check.start_period_ns / 1e9,
        "startInterval": check.start_interval_ns / 1e9,
        "retries": check.retries,
    }


def _layer_json(layer: InspectedLayer) -> dict[str, Json]:
    return {
        "number": layer.number,
        "size": layer.size,
        "share": None if layer.share is None else round(layer.share, 4),
        "digest": _text(layer.digest),
        "diffId": _text(layer.diff_id),
        "mediaType": layer.media_type,
        "compression": layer.compression,
        "stored": layer.stored,
        "createdBy": None if layer.step is None else layer.step.created_by,
        "plainSize": layer.plain_size,
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
