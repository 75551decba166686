"""Interval plot: one claim as a small SVG: every seed's difference, their mean, both intervals, the line to be crossed.

It is 360 pixels wide, as a phone is, and has one color of each kind that is read on white and on black, since an SVG in
Markdown does not know which of the two its reader has.
"""

from collections.abc import Sequence
from typing import Any

import markupsafe
from matplotlib.ticker import MaxNLocator

from jaxcnn.studies.study import EXACT
from jaxcnn.studies.units import MINUS, scale, unit

Results = dict[str, Any]
COLORS = {"supported": "#2a9d4e", "contradicted": "#d9534f", "inconclusive": "#b58100"}
INK = "#7a8390"
WIDTH, HEIGHT = 360, 70
LEFT, RIGHT = 14, 304
"""Where the axis begins and ends; its unit stands behind it."""
SEEDS, BAR, AXIS, LABELS = 22, 34, 48, 63
"""Heights, from the top."""
CHARACTER = 6
"""Width of a letter, about, by which labels are kept apart."""


def interval_svg(claim: Results, published: Sequence[float], description: str) -> str | None:
    """A judged claim of study.json as SVG; None if it has no interval, as a counted one.

    Args:
      claim: as judge.judge_claims makes it.
      published: the same difference as sources found it, in the unit of `units.signed` (points, not shares).
      description: what a screen reader says.
    """
    difference = claim["difference"]
    if difference is None or difference["low"] is None or claim["metric"] in EXACT:
        return None
    times = scale(claim["metric"])
    low, high, mean, margin = (
        times * value for value in (difference["low"], difference["high"], difference["mean"], claim["margin"])
    )
    seeds = [times * value for value in difference["values"]]
    wide = [times * value for value in claim["over_images"] or ()]
    within = claim.get("within")
    limits = [margin] if within is None else [-times * within, times * within]
    shown = [low, high, *limits, 0.0, *seeds, *wide, *published]
    start, end = min(shown), max(shown)
    room = 0.05 * (end - start) or 1.0
    start, end = start - room, end + room

    def x(value: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * (value - start) / (end - start):.1f}"

    color, lines = COLORS[claim["verdict"]], [float(x(limit)) for limit in limits]
    line, shade = lines[0], (RIGHT if within is None else lines[1]) - lines[0]
    parts = [
        f"<title>{markupsafe.escape(description)}</title>",
        f'<rect x="{line:.1f}" y="4" width="{shade:.1f}" height="{AXIS - 4}" fill="{INK}" opacity=".14"/>',
        f'<path d="M{LEFT} {AXIS}H{RIGHT}" stroke="{INK}"/>',
        *(f'<path d="M{each:.1f} 4V{AXIS + 4}" stroke="{INK}" stroke-width="2"/>' for each in lines),
    ]
    if shade > 70:
        arrow = " \N{RIGHTWARDS ARROW}" if within is None else ""
        parts.append(f'<text x="{line + 4:.1f}" y="14">as claimed{arrow}</text>')
    if wide:
        parts.append(f'<path d="M{x(wide[0])} {BAR}H{x(wide[1])}" stroke="{color}" stroke-width="1.5"/>')
    parts.append(f'<path d="M{x(low)} {BAR}H{x(high)}" stroke="{color}" stroke-width="6" opacity=".55"/>')
    for number, seed in enumerate(seeds):  # not at one height, or equal ones would be one dot
        height = SEEDS - 3 + 6 * number / max(len(seeds) - 1, 1)
        parts.append(f'<circle cx="{x(seed)}" cy="{height:g}" r="2.5" fill="{color}" opacity=".7"/>')
    parts.append(f'<circle cx="{x(mean)}" cy="{BAR}" r="5" fill="{color}"/>')
    for value in published:
        parts.append(f'<path d="M{x(value)} {BAR - 7}l6 7l-6 7l-6 -7z" fill="none" stroke="{INK}" stroke-width="2"/>')
    parts += _labels(
        [(float(x(value)), value) for value in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(start, end)]
    )
    short = {"milliseconds": "ms"}.get(unit(claim["metric"]), unit(claim["metric"]))
    parts.append(
        f'<text x="{RIGHT + 6}" y="{AXIS + 4}">{short or markupsafe.escape(claim["metric"].split()[-1])}</text>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui,sans-serif" font-size="11" fill="{INK}" role="img">'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _labels(ticks: Sequence[tuple[float, float]]) -> list[str]:
    """Ticks of the axis that lie on it, with labels that do not touch each other."""
    found, last = [], float("-inf")
    inside = [(place, value) for place, value in ticks if LEFT <= place <= RIGHT]
    for place, value in inside:
        label = f"{value:+g}".replace("-", MINUS) if abs(value) > 1e-9 else "0"
        found.append(f'<path d="M{place:.1f} {AXIS}v3" stroke="{INK}"/>')
        if place - CHARACTER * len(label) / 2 > last:
            found.append(f'<text x="{place:.1f}" y="{LABELS}" text-anchor="middle">{label}</text>')
            last = place + CHARACTER * len(label) / 2 + 4
    return found
