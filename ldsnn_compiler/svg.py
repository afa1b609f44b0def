"""Drawing a graph as a self-contained SVG: layers from top to bottom, long edges routed between the boxes.

The layout is the layered one of Sugiyama, Tagawa and Toda (IEEE Trans. SMC 11, 1981): each node one layer below its
lowest operand, an unseen point in every layer that an edge passes, and a few barycentre sweeps against crossings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from ldsnn_compiler.inspect import COLOURS, NodeCost, colour, edge_label, node_label
from ldsnn_compiler.ir.graph import Graph

LINE, PAD, GAP_X, GAP_Y, FONT = 15, 8, 28, 34, 12
CHARACTER = 6.6
"""Width of one character at that font size, in pixels."""
SWEEPS = 6


@dataclass
class _Box:
    """A node, or an unseen point of a long edge (no label)."""

    layer: int
    label: tuple[str, ...] = ()
    fill: str = ""
    x: float = 0.0
    y: float = 0.0
    above: list[_Box] = field(default_factory=list, repr=False)
    below: list[_Box] = field(default_factory=list, repr=False)

    @property
    def width(self) -> float:
        return max((len(line) for line in self.label), default=0) * CHARACTER + 2 * PAD if self.label else 4.0

    @property
    def height(self) -> float:
        return len(self.label) * LINE + PAD if self.label else 0.0


@dataclass(frozen=True)
class _Edge:
    points: tuple[_Box, ...]
    label: str
    back: bool


def svg(graph: Graph, costs: Sequence[NodeCost]) -> str:
    """The drawing as text of an SVG file that needs nothing else."""
    boxes, edges = _boxes(graph, costs)
    layers = _layers(boxes, edges)
    for _ in range(SWEEPS):
        _order(layers)
    _place(layers)
    return _document(graph.name, layers, edges)


def _boxes(graph: Graph, costs: Sequence[NodeCost]) -> tuple[dict[str, _Box], list[_Edge]]:
    by_name = {c.name: c for c in costs}
    boxes: dict[str, _Box] = {}
    for node in graph.nodes:
        above = [boxes[o.node.name].layer for o in node.operands if o.node.name in boxes]
        label = tuple(node_label(by_name[node.name]))
        boxes[node.name] = _Box(1 + max(above, default=-1), label, colour(graph, node.name))
    edges = []
    for node in graph.nodes:
        for operand in node.operands:
            path = _route(boxes[operand.node.name], boxes[node.name])
            back = boxes[operand.node.name].layer >= boxes[node.name].layer
            edges.append(_Edge(path, edge_label(by_name[operand.node.name]), back))
    return boxes, edges


def _route(source: _Box, target: _Box) -> tuple[_Box, ...]:
    """The boxes an edge passes; an edge that closes a cycle goes straight back."""
    if source.layer >= target.layer:
        return (source, target)
    path = [source, *(_Box(layer) for layer in range(source.layer + 1, target.layer)), target]
    for upper, lower in pairwise(path):
        upper.below.append(lower)
        lower.above.append(upper)
    return tuple(path)


def _layers(boxes: dict[str, _Box], edges: list[_Edge]) -> list[list[_Box]]:
    layers: list[list[_Box]] = [[] for _ in range(1 + max((b.layer for b in boxes.values()), default=0))]
    unseen = [b for e in edges for b in e.points[1:-1]]
    for box in [*boxes.values(), *unseen]:
        layers[box.layer].append(box)
    return layers


def _order(layers: list[list[_Box]]) -> None:
    """One sweep down and one up: every layer sorted by the mean position of its neighbours."""
    for direction, sequence in (("above", layers), ("below", layers[::-1])):
        for layer in sequence:
            for i, box in enumerate(layer):
                box.x = float(i)
            keys = {id(b): _mean([n.x for n in getattr(b, direction)], b.x) for b in layer}
            layer.sort(key=lambda b: keys[id(b)])
            for i, box in enumerate(layer):
                box.x = float(i)


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _place(layers: list[list[_Box]]) -> None:
    """Coordinates: boxes under the middle of their operands where there is room, never overlapping."""
    y = GAP_Y / 2
    for layer in layers:
        height, right = max(b.height for b in layer), float("-inf")
        for box in layer:
            wanted = _mean([n.x for n in box.above], 0.0 if right == float("-inf") else right)
            box.x = max(wanted, right + GAP_X + box.width / 2) if right > float("-inf") else wanted
            box.y, right = y + height / 2, box.x + box.width / 2
        shift = _mean([_mean([n.x for n in b.above], b.x) - b.x for b in layer], 0.0)
        for box in layer:
            box.x += shift
        y += height + GAP_Y
    left = min(b.x - b.width / 2 for layer in layers for b in layer) - GAP_X
    for layer in layers:
        for box in layer:
            box.x -= left


def _document(name: str, layers: list[list[_Box]], edges: list[_Edge]) -> str:
    width = max(b.x + b.width / 2 for layer in layers for b in layer) + 4 * GAP_X
    height = max(b.y + b.height / 2 for layer in layers for b in layer) + GAP_Y + LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="DejaVu Sans Mono, monospace" font-size="{FONT - 1}">',
        f"<title>{escape(name)}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#666"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
    ]
    parts += [_edge(e) for e in edges]
    parts += [_box(b) for layer in layers for b in layer if b.label]
    parts.append(_legend(height))
    return "\n".join(parts) + "\n</svg>\n"


def _box(box: _Box) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    rect = (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="5" '
        f'fill="{box.fill}" stroke="#777"/>'
    )
    lines = (
        f'<text x="{box.x:.1f}" y="{top + PAD / 2 + LINE * (i + 0.75):.1f}" text-anchor="middle" '
        f'font-weight="{"normal" if i else "bold"}">{escape(line)}</text>'
        for i, line in enumerate(box.label)
    )
    return rect + "".join(lines)


def _edge(edge: _Edge) -> str:
    first, last = edge.points[0], edge.points[-1]
    stops = [(first.x, first.y + first.height / 2)]
    stops += [(p.x, p.y) for p in edge.points[1:-1]]
    stops.append((last.x, last.y - last.height / 2))
    path = f"M{stops[0][0]:.1f},{stops[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(stops):
        middle = (y0 + y1) / 2
        path += f" C{x0:.1f},{middle:.1f} {x1:.1f},{middle:.1f} {x1:.1f},{y1:.1f}"
    dashed = ' stroke-dasharray="5,3"' if edge.back else ""
    line = f'<path d="{path}" fill="none" stroke="#666"{dashed} marker-end="url(#arrow)"/>'
    (x0, y0), (x1, y1) = stops[-2], stops[-1]
    at = f'x="{(x0 + x1) / 2 + 6:.1f}" y="{(y0 + y1) / 2 + 4:.1f}"'
    # A white rim keeps the label readable where an edge passes under it.
    rim = 'paint-order="stroke" stroke="white" stroke-width="3"'
    return line + f'<text {at} {rim} fill="#666" font-size="{FONT - 3}">{escape(edge.label)}</text>'


def _legend(height: float) -> str:
    parts, x = [], float(PAD)
    for kind, fill in COLOURS.items():
        y = height - LINE
        parts.append(f'<rect x="{x:.0f}" y="{y - 9:.0f}" width="11" height="11" fill="{fill}" stroke="#777"/>')
        parts.append(f'<text x="{x + 15:.0f}" y="{y:.0f}" font-size="{FONT - 3}">{kind}</text>')
        x += 15 + (len(kind) + 2) * CHARACTER
    return "".join(parts)
