"""The picture of the pipeline, with the numbers of the study in it, as inline SVG."""

from __future__ import annotations

from html import escape

from distillery.report.results import Results

WIDTH, HEIGHT, GAP = 128, 58, 26


def picture(results: Results) -> str:
    """Draw the six stages in a row."""
    study = results.study
    source = results.first().get("data", {}).get("source", study.data.source)
    tables = "view table" if study.cache.enabled else "switched off"
    stages = [
        ("data", str(source)),
        ("teacher", f"{len(study.teachers)} network{'s' if len(study.teachers) != 1 else ''}"),
        ("cache", tables),
        ("distill", f"{len(study.runs())} students"),
        ("evaluate", f"{sum(len(cell.runs) for cell in results)} measured"),
        ("tables", f"{len(results.cells)} cells"),
    ]
    parts = []
    for i, (name, text) in enumerate(stages):
        x, y = 2 + i * (WIDTH + GAP), 2 + HEIGHT / 2
        label = f'x="{x + WIDTH / 2}" text-anchor="middle"'
        parts.append(f'<rect x="{x}" y="2" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#f6f7f9" stroke="#9aa5b1"/>')
        parts.append(f'<text {label} y="27" font-weight="600" fill="#1c2430">{name}</text>')
        parts.append(f'<text {label} y="46" font-size="12" fill="#5b6675">{escape(text)}</text>')
        if i:
            arrow = f"M{x - GAP + 4} {y}H{x - 4}m-6 -4l6 4l-6 4"
            parts.append(f'<path d="{arrow}" fill="none" stroke="#5b6675" stroke-width="1.5"/>')
    width = 4 + len(stages) * WIDTH + (len(stages) - 1) * GAP
    return (
        f'<svg class="pipeline" viewBox="0 0 {width} {HEIGHT + 4}" role="img" aria-label="the pipeline" '
        f'font-family="system-ui, sans-serif" font-size="14">{"".join(parts)}</svg>'
    )
