"""The picture of the README: bars of the time until the first file of an image, as an SVG for light and dark pages."""

from html import escape
from pathlib import Path
from typing import Any

from benchmarks.results import human

CASE = "first-file-engine"
_WIDTH, _LEFT, _BAR, _STEP, _TOP = 760, 290, 18, 30, 46
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.note { font-size: 12px; fill: #59636e }
.imgfs { fill: #1a7f37 }
.peer { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #9198a1 }
  .imgfs { fill: #3fb950 }
  .peer { fill: #6e7681 }
}"""


def picture(document: dict[str, Any]) -> str:
    """Return the SVG of the results in *document*, which has rows of the case; the bars show medians."""
    rows = [row for row in document["rows"] if row["case"] == CASE]
    bars = {f"imgfs: {row['what'].partition(', ')[2]}": ("imgfs", row["imgfs"]["median"]) for row in rows}
    for row in rows:
        if row["peer_samples"]:
            bars.setdefault(row["peer"], ("peer", row["peer_samples"]["median"]))
    ordered = sorted(bars.items(), key=lambda bar: bar[1][1])
    scale = (_WIDTH - _LEFT - 80) / ordered[-1][1][1]
    height = _TOP + _STEP * len(ordered) + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<style>\n{_STYLE}\n</style>",
        '<text class="title" x="8" y="22">Time until the first file of an engine\'s image can be read</text>',
    ]
    for number, (name, (kind, seconds)) in enumerate(ordered):
        y = _TOP + _STEP * number
        width = max(1, round(seconds * scale))
        lines += [
            f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width}" height="{_BAR}" rx="2"/>',
            f'<text x="{_LEFT + width + 8}" y="{y + 13}">{human(seconds, "s")}</text>',
        ]
    note = f"Median of {document['runs']} paired runs, 400 MB image, {document['machine']['cores']} cores, "
    lines.append(f'<text class="note" x="8" y="{height - 8}">{escape(note + document["date"][:10])}</text>')
    return "\n".join([*lines, "</svg>", ""])


def draw(document: dict[str, Any], path: Path) -> bool:
    """Write the picture to *path*; return False if the run did not include the case."""
    if not any(row["case"] == CASE for row in document["rows"]):
        return False
    path.write_text(picture(document))
    return True
