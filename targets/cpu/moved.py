"""Runs of slices and padding that no other value reads in between, as one kernel where the input is channels last."""

from __future__ import annotations

from dataclasses import replace

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.targets.cpu import forms
from ldsnn_compiler.targets.cpu.kernels.move import MoveSpec, Reach, move
from ldsnn_compiler.targets.lower import Lowering

MOVES = ("slice", "pad")


def run_of(graph: Graph, node: Node) -> tuple[Node, ...]:
    """The run that a slice or padding is part of, in order."""
    if not _is_move(node):
        return (node,)
    run = [node]
    while _is_move(before := run[0].operands[0].node) and _next(graph, before) is run[0]:
        run.insert(0, before)
    while (after := _next(graph, run[-1])) is not None:
        run.append(after)
    return tuple(run)


def _is_move(node: Node) -> bool:
    """Not on a cycle, which has a kernel of its own."""
    return node.op.name in MOVES and node.placement is not None and node.placement.order == "inside"


def _next(graph: Graph, node: Node) -> Node | None:
    uses = graph.uses(node.result)
    return uses[0][0] if len(uses) == 1 and _is_move(uses[0][0]) else None


def spec_of(low: Lowering, run: tuple[Node, ...]) -> MoveSpec | None:
    """What the run's kernel does; None where the input is not channels last, or the run not of this kind."""
    value = run[0].operands[0]
    shape = value.type.shape
    is_last = low.has(value, forms.DENSE) or not low.has(value, forms.CANONICAL)
    if low.board.gpu is not None or not is_last or not 1 <= len(shape) <= 3 or not _is_move(run[0]):
        return None
    axes = [Reach.whole(size) for size in shape]
    for node in run:
        if node.op.name == "pad":
            if min(*node["low"], *node["high"]) < 0:
                return None
            axes = [a.padded(b, e) for a, b, e in zip(axes, node["low"], node["high"], strict=True)]
            continue
        axis = node["axis"] % len(axes)
        start, stop, step = slice(node["start"], node["stop"], node["step"]).indices(axes[axis].size)
        if step < 1:
            return None
        axes[axis] = axes[axis].sliced(start, stop, step)
    if axes[0].step != 1:
        return None
    channels, rows, columns = axes[0], *[Reach.whole(1)] * (3 - len(axes)), *axes[1:]
    height, width = ((1, 1) + shape[1:])[-2:]
    number = forms.buffer(value.type, 1, forms.DENSE).dtype
    return MoveSpec(None, low.steps(value), number, (channels, rows, columns), (shape[0], height, width))  # type: ignore[arg-type]


def moved(low: Lowering, run: tuple[Node, ...], spec: MoveSpec) -> None:
    """Add the run's kernel."""
    low.kernel(
        "move",
        ("move", spec),
        lambda batch: move(replace(spec, batch=batch)),
        [low.read(run[0].operands[0], forms.DENSE)],
        [low.write(run[-1].result, forms.DENSE)],
        run,
    )
