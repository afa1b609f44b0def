"""What one whole number of every stream stands for: the scales that ``quantize`` gives to a graph of real numbers.

A scale is a float64 tensor: one number, one per channel ``[C]``, or one per element ``[*shape]``; a stream's numbers
are its whole numbers times it. Events are counts of their unit. A layer's scale follows from its largest weight; layers
whose currents meet in one ``add`` share theirs, which a pool or a mean on the way divides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.passes._weights import WEIGHTED, per_weight

Scale = torch.Tensor
JOINS = ("add",)
COARSER = 8
"""Layers whose scales differ by more than this do not share one."""
EXACT = 1 << 10
"""Steps of the largest number where streams without weights meet."""
FAINTEST = 2.0**-14
"""Least scale of a channel, as a share of its layer's largest: trained networks have channels whose weights all but
vanished, and in units of those a threshold or bias is beyond int32."""


@dataclass(frozen=True)
class Leaf:
    """What a sum of currents is made of: a layer, a constant, or a stream whose scale is settled (``node`` None).

    The sum's scale is the leaf's times ``factor``. ``moved``: channels are not where they were, so the scale has to be
    one number.
    """

    value: Value
    node: Node | None
    factor: float = 1.0
    moved: bool = False


def one(value: float) -> Scale:
    """A scale of one number."""
    return torch.tensor(float(value), dtype=torch.float64)


def refuse(node: Node, message: str, hint: str = "", attribute: str = "") -> LdsnnError:
    """The error of a node that has no whole-number form."""
    return LdsnnError(Problem(message, node.path or f"%{node.name}", node.op.name, attribute, hint))


def passed_on(node: Node) -> float | None:
    """The factor between the scales of a node's result and its only operand, for nodes that sum or move numbers."""
    name, kind = node.op.name, node.operands[0].type if node.operands else None
    if kind is None or len(node.operands) != 1:
        return None
    if name in ("avg_pool", "adaptive_avg_pool"):
        return 1.0 / window(node)
    if name == "resample":
        return 1.0 / (node["dt"] / kind.dt).numerator if node["mode"] == "mean" else 1.0
    if name == "readout":
        return 1.0 / kind.timesteps if node["mode"] == "mean" else 1.0
    if name == "scale" and node["by"] is None and node["factor"] != 0:
        return float(node["factor"])
    moves = ("sum_pool", "max_pool", "slice_time", "delay", "flatten", "reshape", "slice", "pad")
    return 1.0 if name in moves else None


def window(node: Node) -> int:
    """Numbers in each window of an average."""
    if node.op.name == "adaptive_avg_pool":
        axes = node.operands[0].type.shape[-len(node["size"]) :]
        if any(axis % size for axis, size in zip(axes, node["size"], strict=True)):
            hint = f"its input is {list(axes)}: let the size divide it"
            raise refuse(node, "averages windows of different sizes, so sums have no common divisor", hint, "size")
        return prod(axis // size for axis, size in zip(axes, node["size"], strict=True))
    if any(node["padding"]) and not node["count_include_pad"]:
        hint = "count the padding (count_include_pad=True), or pool without padding"
        raise refuse(node, "averages fewer numbers at the border, so sums have no common divisor", hint)
    return prod(node["kernel"])


@dataclass
class Scales:
    """Scales of the values of ``graph``. ``ranges``: scale of each real input by node name; ``qmax``: the largest
    weight as a whole number; ``per_channel``: one scale for each output channel."""

    graph: Graph
    ranges: Mapping[str, float]
    qmax: int
    per_channel: bool
    inner: Callable[[Node], Scale]
    _known: dict[str, Scale] = field(default_factory=dict)
    _groups: dict[str, dict[str, Scale]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def of(self, value: Value) -> Scale:
        """The scale of a value; LdsnnError names the node that has none."""
        if value.name not in self._known:
            if value.name in self._open:
                raise refuse(value.node, "carries real numbers around a cycle, whose scale depends on itself",
                             "put a spiking neuron into the cycle")  # fmt: skip
            self._open.append(value.name)
            try:
                self._known[value.name] = self._found(value)
            finally:
                self._open.pop()
        return self._known[value.name]

    def _found(self, value: Value) -> Scale:
        node, signal = value.node, value.type.signal
        if node.op.name in ("input", "encode"):
            if node.op.name == "encode" and not signal.is_event:
                raise refuse(node, "hands on real numbers of unknown range", "remove it: a direct code changes nothing")
            return one(signal.unit if signal.is_event else self.ranges[node.name])
        if node.op.name == "neuron":
            return self._of_neuron(value)
        if node.op.name in (*WEIGHTED, "batch_norm", "constant", *JOINS):
            return self.group(self.root(node))[node.name]
        if node.op.name == "threshold":
            return one(node["value"])
        if node.op.name == "concat":
            return self._of_concat(node)
        if node.op.name in ("multiply", "matmul"):
            return self._of_product(node)
        return self._moved(node)

    def _of_neuron(self, value: Value) -> Scale:
        node, signal = value.node, value.type.signal
        neuron = node["neuron"]
        if value.index or not neuron.family.spiking:
            return self.inner(node) / (1 if value.index else neuron.substeps)
        if signal.is_event:
            return one(signal.unit)
        unit = neuron.params["spike_value"]
        stored: Scale = one(unit) if isinstance(unit, float) else self.graph.tensors[unit.name].double()
        return stored / float(neuron.substeps)

    def _of_concat(self, node: Node) -> Scale:
        parts = [self.of(o) for o in node.operands]
        if all(p.ndim == 0 and torch.equal(p, parts[0]) for p in parts):
            return parts[0]
        axis, shapes = node["axis"] % len(node.type.shape), [o.type.shape for o in node.operands]
        if axis == 0 and all(p.ndim <= 1 for p in parts):
            return torch.cat([p.expand(s[0]) for p, s in zip(parts, shapes, strict=True)])
        return torch.cat([full(p, s) for p, s in zip(parts, shapes, strict=True)], dim=axis)

    def _of_product(self, node: Node) -> Scale:
        a, b = (self.of(o) for o in node.operands)
        if node.op.name == "multiply" and a.ndim < 2 and b.ndim < 2:
            return a * b
        if a.ndim or b.ndim:
            raise refuse(node, "multiplies streams whose scales differ by channel", "quantize with per=layer")
        return a * b

    def _moved(self, node: Node) -> Scale:
        """Through nodes that sum or move numbers."""
        if node.op.name == "scale":
            by = self.graph.tensors[node["by"].name].double() if node["by"] is not None else one(node["factor"])
            return aligned(self.of(node.operands[0]), by, node.type.shape)
        factor = passed_on(node)
        if factor is None:
            raise refuse(node, "has no whole-number form")
        scale = self.of(node.operands[0]) * factor
        takes_largest = node.op.name == "max_pool" or (node.op.name == "readout" and node["mode"] == "max")
        if takes_largest and bool((scale <= 0).any()):
            raise refuse(node, "takes the largest of numbers that are scaled by a negative one")
        is_shaped = node.op.name in ("flatten", "reshape", "slice", "pad")
        return self._shaped(node, scale) if is_shaped and scale.ndim else scale

    def _shaped(self, node: Node, scale: Scale) -> Scale:
        """Scales move as the numbers do; padding may have any."""
        every = full(scale, node.operands[0].type.shape)
        (moved,) = node.op.evaluate(self.graph.call(node), every[None, None])
        moved = moved[0, 0]
        moved = torch.where(moved == 0, torch.ones_like(moved), moved)
        by_channel = moved.flatten(1)[:, 0] if moved.ndim > 1 else moved
        return by_channel if torch.equal(full(by_channel, tuple(moved.shape)), moved) else moved

    # ---- sums of currents

    def root(self, node: Node) -> Node:
        """The last sum that a layer's current becomes part of, or the layer itself."""
        found = at = node
        seen = {node.name}
        while len(uses := self.graph.uses(at.result)) == 1:
            user = uses[0][0]
            if user.name in seen:
                return found
            if user.op.name in JOINS or (user.op.name == "neuron" and len(user.operands) > 1):
                found = user
            elif user.op.name == "neuron" or passed_on(user) is None:
                return found
            if user.op.name == "neuron":
                return found
            seen.add(user.name)
            at = user
        return found

    def group(self, root: Node) -> Mapping[str, Scale]:
        """Scales of a root and of all that is settled with it, by node name."""
        if root.name not in self._groups:
            self._groups[root.name] = self._settled(root)
        return self._groups[root.name]

    def _settled(self, root: Node) -> dict[str, Scale]:
        is_join = root.op.name in JOINS or root.op.name == "neuron"
        inner = {root.name: 1.0}
        leaves = list(self._leaves(root, inner)) if is_join else [Leaf(root.result, root)]
        total, times = self._total(leaves)
        found = {name: total / factor for name, factor in inner.items()}
        return {name: scale * times.get(name, 1.0) for name, scale in found.items()}

    def _leaves(self, join: Node, inner: dict[str, float]) -> Iterator[Leaf]:
        """What a sum is made of; the factors of the nodes on the way go to ``inner``."""
        for operand in join.operands:
            yield from self._behind(operand, inner[join.name], False, inner, {join.name})

    def _behind(
        self, value: Value, factor: float, moved: bool, inner: dict[str, float], seen: set[str]
    ) -> Iterator[Leaf]:
        node = value.node
        if len(self.graph.uses(value)) != 1 or node.name in seen or len(node.results) != 1:
            yield Leaf(value, None, factor, moved)
        elif node.op.name in (*WEIGHTED, "batch_norm", "constant"):
            inner[node.name] = factor
            yield Leaf(value, node, factor, moved)
        elif node.op.name in JOINS:
            inner[node.name] = factor
            for operand in node.operands:
                yield from self._behind(operand, factor, moved, inner, seen | {node.name})
        elif (own := passed_on(node)) is not None and not value.type.signal.is_event:
            moves = moved or node.op.name in ("flatten", "reshape", "slice", "pad")
            yield from self._behind(node.operands[0], factor * own, moves, inner, seen | {node.name})
        else:
            yield Leaf(value, None, factor, moved)

    def _total(self, leaves: list[Leaf]) -> tuple[Scale, dict[str, Scale]]:
        """The scale of the sum, and what whole number of it the scale of a layer is, by name, where not one.

        It is the largest that a layer asks for. Where others ask for far smaller ones (pixels next to spikes), it is
        the smallest, and the currents of the coarser layers are multiplied.
        """
        layers = [leaf for leaf in leaves if leaf.node is not None and leaf.node.op.name != "constant"]
        layers = layers or [leaf for leaf in leaves if leaf.node is not None]
        if not layers:
            return self._of_streams([self.of(leaf.value) * leaf.factor for leaf in leaves]), {}
        asked = [self._asked(leaf.node) * abs(leaf.factor) for leaf in layers]
        if not self.per_channel or any(leaf.moved for leaf in leaves):
            asked = [each.max() for each in asked]
        largest, smallest = asked[0], asked[0]
        for other in asked[1:]:
            largest, smallest = torch.maximum(largest, other), torch.minimum(smallest, other)
        if bool((largest <= COARSER * smallest).all()):
            return largest, {}
        whole = {
            leaf.node.name: (each / smallest).ceil() for leaf, each in zip(layers, asked, strict=True) if leaf.node
        }
        return smallest, whole

    def _of_streams(self, units: list[Scale]) -> Scale:
        """Streams of events alone: their common unit, or one that is fine enough for all."""
        if all(torch.equal(u, units[0]) for u in units):
            return units[0]
        sizes = torch.stack([u.abs().max() for u in units])
        smallest = torch.stack([u.abs()[u != 0].min() for u in units if bool((u != 0).any())] or [one(1.0)]).min()
        ratios = torch.cat([(u / smallest).flatten() for u in units])
        if bool((ratios == ratios.round()).all()):
            return smallest
        return sizes.max() / EXACT

    def _asked(self, node: Node | None) -> Scale:
        """A layer's largest weight as ``qmax``, per output channel, but no fainter than :data:`FAINTEST`; of a layer
        without weights its largest bias."""
        assert node is not None
        if node.op.name == "constant":
            largest = self.graph.tensors[node["value"].name].double().abs().max()
            return (largest if largest > 0 else one(1.0)) / EXACT
        weight, bias = self.weights(node)
        largest = weight.abs().flatten(1).amax(1)
        if bias is not None:
            largest = torch.where(largest == 0, bias.abs(), largest)
        known = largest[largest > 0]
        largest = torch.where(largest == 0, known.min() if len(known) else one(1.0), largest)
        largest = largest.clamp(min=largest.max() * FAINTEST)
        is_first_axis = node.op.name != "linear" or len(node.type.shape) == 1
        return (largest if self.per_channel and is_first_axis else largest.max()) / self.qmax

    def weights(self, node: Node) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A layer's weights on whole-number inputs, and its bias, in float64."""
        given = self.of(node.operands[0])
        if node.op.name == "batch_norm":
            mean, var, weight, bias = (self._tensor(node, k) for k in ("mean", "var", "weight", "bias"))
            assert mean is not None and var is not None
            gain = (1.0 if weight is None else weight) / (var + node["eps"]).sqrt()
            shift = (0.0 if bias is None else bias) - mean * gain
            if given.ndim > 1:
                raise refuse(node, "reads numbers whose scale differs within a channel", "quantize with per=layer")
            return (gain * given).reshape(-1, 1), shift
        weight, bias = self._tensor(node, "weight"), self._tensor(node, "bias")
        assert weight is not None
        if given.ndim == 0:
            return weight * given, bias
        if given.ndim > 1 or (node.op.name == "linear" and len(node.operands[0].type.shape) != 1):
            raise refuse(node, "reads numbers whose scale differs within a channel", "quantize with per=layer")
        groups = node["groups"] if node.op.name != "linear" else 1
        return weight * per_weight(given, weight, groups), bias

    def _tensor(self, node: Node, name: str) -> torch.Tensor | None:
        return None if node[name] is None else self.graph.tensors[node[name].name].double()


def full(scale: Scale, shape: tuple[int, ...]) -> Scale:
    """One scale for every element of ``shape``."""
    return by_axis(scale, shape).expand(shape)


def aligned(a: Scale, b: Scale, shape: tuple[int, ...]) -> Scale:
    """The product of two scales of a stream of that shape."""
    if a.ndim < 2 and b.ndim < 2:
        return a * b
    return by_axis(a, shape) * by_axis(b, shape)


def by_axis(scale: Scale, shape: tuple[int, ...]) -> Scale:
    """Made to broadcast over ``shape``."""
    return scale.reshape(-1, *[1] * (len(shape) - 1)) if scale.ndim == 1 else scale
