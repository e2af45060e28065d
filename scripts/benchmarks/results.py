"""Results of a case: rows with a target, and curves over a size."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["ratio", "difference", "value"]

_SECONDS = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"))
_OTHERS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def human(number: float, unit: str) -> str:
    """Return *number* in *unit* (``s``, ``B``, ``B/s``, ``/s``; ``""`` for a ratio) with three digits."""
    if not unit:
        return f"{number:.2f}"
    scales = _SECONDS if unit == "s" else _OTHERS
    step, prefix = next((scale for scale in scales if abs(number) >= scale[0]), scales[-1])
    digits = max(0, 3 - len(str(int(abs(number) / step))))
    return f"{number / step:.{digits}f} {prefix}{unit}"


def summary(samples: list[float]) -> dict[str, Any]:
    """Return median, extremes and all *samples*."""
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples), "samples": samples}


@dataclass(frozen=True)
class Target:
    """The bound on a median; *kind*: of ours ÷ theirs, of ours - theirs, or of ours alone."""

    relation: Literal["≤", "≥"]
    bound: float
    kind: Kind = "ratio"

    def holds(self, value: float) -> bool:
        """Tell whether *value* is within the bound."""
        return value <= self.bound if self.relation == "≤" else value >= self.bound

    def text(self, unit: str) -> str:
        """Return the target for a table."""
        match self.kind:
            case "ratio":
                return f"{self.relation} {self.bound:g}"
            case "difference":
                return f"{self.relation} +{human(self.bound, unit)}"
            case _:
                return f"{self.relation} {human(self.bound, unit)}"


@dataclass(frozen=True)
class Row:
    """One line of the table.  Samples with the same place were taken in the same round."""

    what: str
    unit: str
    """Of the samples: ``s``, ``B/s``, ``B``, ``/s``; nothing for a plain number."""
    ours: list[float]
    peer: str = ""
    theirs: list[float] | None = None
    """None if the peer is not installed."""
    target: Target | None = None
    cold: str = ""
    """Which caches were cold, and how they were made so."""

    @property
    def compared(self) -> list[float]:
        """Return what the target is about, a sample a round; empty if there is nothing to compare with."""
        pairs = zip(self.ours, self.theirs or [], strict=False)
        match self.target.kind if self.target else "ratio":
            case "ratio":
                return [mine / other for mine, other in pairs]
            case "difference":
                return [mine - other for mine, other in pairs]
            case _:
                return self.ours

    @property
    def holds(self) -> bool | None:
        """Tell whether the target holds; None without a target or a peer."""
        return self.target.holds(statistics.median(self.compared)) if self.target and self.compared else None

    def document(self) -> dict[str, Any]:
        """Return the row for JSON."""
        target = self.target and {
            "kind": self.target.kind,
            "relation": self.target.relation,
            "bound": self.target.bound,
            "text": self.target.text(self.unit),
        }
        return {
            "what": self.what,
            "unit": self.unit,
            "imgfs": summary(self.ours),
            "peer": self.peer or None,
            "peer_samples": summary(self.theirs) if self.theirs else None,
            "compared": summary(self.compared) if self.compared else None,
            "target": target,
            "holds": self.holds,
            "cold": self.cold,
        }


@dataclass(frozen=True)
class Curve:
    """How something grows: lines by their names, each from a place on the x axis to its samples."""

    title: str
    x: str
    y: str
    """Name of the y axis, with its unit."""
    lines: Mapping[str, Mapping[float, list[float]]]

    def document(self) -> dict[str, Any]:
        """Return the curve for JSON; lines without samples are left out."""
        lines = {
            name: [{"x": x, **summary(samples)} for x, samples in points.items()]
            for name, points in self.lines.items()
            if all(points.values())
        }
        return {"title": self.title, "x": self.x, "y": self.y, "lines": lines}
