"""Scatter plots of accuracy against a cost, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from ldsnn_compiler.results import Interval, amount

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40
COLOURS = {"baseline": "#6b7280", "binary": "#0f766e", "graded": "#b45309"}
"""Colour by kind of mark."""


@dataclass(frozen=True)
class Mark:
    """A point: cost and accuracy, the accuracy's interval if it has one; ``big`` for a row of the report split, small
    for a point of the calibration split's frontier."""

    name: str
    kind: str
    cost: float
    accuracy: float
    interval: Interval | None = None
    big: bool = False


@dataclass(frozen=True)
class _Axes:
    low: float
    high: float
    bottom: float
    top: float

    def x(self, cost: float) -> float:
        share = (log10(cost) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, accuracy: float) -> float:
        share = (min(max(accuracy, self.bottom), self.top) - self.bottom) / (self.top - self.bottom)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def scatter(marks: Sequence[Mark], cost: str, accuracy: str) -> str:
    """The plot as an ``<svg>`` element; the cost axis is logarithmic. A line joins the small marks that none beats in
    accuracy and this cost; small marks far below the big ones are cut."""
    shown = [m for m in marks if m.cost > 0]
    if not shown:
        return ""
    axes = _axes(shown)
    shown = [m for m in shown if m.accuracy >= axes.bottom]
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(accuracy)} against {escape(cost)}">']
    parts += _grid(axes, cost, accuracy)
    for kind in COLOURS:
        small = sorted((m for m in shown if m.kind == kind and not m.big), key=lambda m: m.cost)
        front = [m for i, m in enumerate(small) if all(m.accuracy > other.accuracy for other in small[:i])]
        parts += [_line(axes, front, COLOURS[kind])] if len(front) > 1 else []
        parts += [_mark(axes, m) for m in small]
    parts += [_mark(axes, m) for m in shown if m.big]
    return "".join(parts) + "</svg>"


def _axes(marks: Sequence[Mark]) -> _Axes:
    rows = [m for m in marks if m.big] or list(marks)
    ends = [end for m in rows for end in (m.interval or (m.accuracy, m.accuracy))]
    least, most = min(ends), max([*ends, *(m.accuracy for m in marks)])
    bottom = floor((least - 0.5 * (most - least) - 0.005) * 100) / 100
    top = min(1.0, ceil((most + 0.002) * 100) / 100)
    visible = [m.cost for m in marks if m.accuracy >= bottom]
    return _Axes(min(visible) / 1.25, max(visible) * 1.25, max(0.0, bottom), max(top, bottom + 0.01))


def _grid(axes: _Axes, cost: str, accuracy: str) -> list[str]:
    right, floor_y = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in _ticks(axes.low, axes.high):
        x = axes.x(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor_y}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor_y + 15}" text-anchor="middle">{amount(value)}</text>')
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (axes.top - axes.bottom) / s <= 6.5)
    for i in range(ceil(axes.bottom / step - 1e-9), floor(axes.top / step + 1e-9) + 1):
        y = axes.y(i * step)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        digits = 1 if step < 0.01 else 0
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * i * step:.{digits}f}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(cost)}</text>')
    middle = (TOP + floor_y) / 2
    turned = f'transform="rotate(-90 12 {middle})" text-anchor="middle"'
    parts.append(f'<text x="12" y="{middle}" {turned}>{escape(accuracy)}, %</text>')
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten; only powers of ten where those are many."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    fine = [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]
    coarse = [10.0**d for d in decades if low <= 10.0**d <= high]
    return coarse if len(fine) > 7 and len(coarse) > 1 else fine


def _line(axes: _Axes, marks: Sequence[Mark], colour: str) -> str:
    points = " ".join(f"{axes.x(m.cost):.1f},{axes.y(m.accuracy):.1f}" for m in marks)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-opacity="0.45"/>'


def _mark(axes: _Axes, mark: Mark) -> str:
    x, y, colour = axes.x(mark.cost), axes.y(mark.accuracy), COLOURS[mark.kind]
    title = f"<title>{escape(mark.name)}: {100 * mark.accuracy:.2f} %, {amount(mark.cost)}</title>"
    if not mark.big:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="white" stroke="{colour}">{title}</circle>'
    low, high = mark.interval or (mark.accuracy, mark.accuracy)
    bar = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{axes.y(low):.1f}" y2="{axes.y(high):.1f}" stroke="{colour}"/>'
    return bar + f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}">{title}</circle>'
