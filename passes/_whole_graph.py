"""The whole-number graph of a graph of real numbers: one rule an op, built beside the old one. Behind ``quantize``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.integers import Calibration, borders
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.types import REAL, Signal
from ldsnn_compiler.passes._grids import settle_delays
from ldsnn_compiler.passes._scales import Scale, Scales, aligned, refuse, window
from ldsnn_compiler.passes._weights import WEIGHTED
from ldsnn_compiler.passes._whole_neurons import WholeNeuron, whole_neuron


@dataclass(frozen=True)
class Numbers:
    """How fine the whole numbers are; ``fractions``: binary places by neuron, before ``fraction``."""

    weight_bits: int = 8
    input_bits: int = 8
    per_channel: bool = True
    fraction: int | None = None
    fractions: Mapping[str, int] = field(default_factory=dict)

    def places(self, node: Node) -> int | None:
        """Binary places of a neuron's ratios, None where nothing is said."""
        return self.fractions.get(node.name, self.fraction)

    @property
    def qmax(self) -> int:
        """The largest weight."""
        return int(2 ** (self.weight_bits - 1)) - 1

    @property
    def weights(self) -> torch.dtype:
        """What holds a weight."""
        return torch.int8 if self.weight_bits <= 8 else torch.int16


def whole_graph(graph: Graph, numbers: Numbers, calibration: Calibration) -> Graph:
    """The graph in whole numbers.

    Raises:
        LdsnnError: everything that has no whole-number form, by module path.
    """
    return _Rewrite(graph, numbers, calibration).graph()


def scales_of(graph: Graph, numbers: Numbers, calibration: Calibration) -> Scales:
    """The scales that :func:`whole_graph` gives to the values of ``graph``."""
    return _Rewrite(graph, numbers, calibration).scales


@dataclass
class _Rewrite:
    """The graph of whole numbers, built node by node beside the one of real numbers."""

    old: Graph
    numbers: Numbers
    calibration: Calibration
    new: Graph = field(init=False)
    values: dict[Value, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.new = Graph(self.old.name, self.old.base_timesteps, self.old.stage)
        self.problems += self.calibration.misfits(self.old)
        self.steps = {node.name: self._step(node) for node in borders(self.old)}
        ranges = {name: scale for name, (scale, _, _) in self.steps.items()}
        self.scales = Scales(self.old, ranges, self.numbers.qmax, self.numbers.per_channel, self._inner)
        self.neurons: dict[str, WholeNeuron] = {}

    def graph(self) -> Graph:
        """All of it; LdsnnError with everything that stands in the way."""
        if self.problems:
            raise LdsnnError(self.problems)
        failed: set[str] = set()
        for node in self.old.nodes:
            if any(o.node.name in failed for o in node.operands if node.op.name != "delay"):
                failed.add(node.name)
                continue
            try:
                _RULES.get(node.op.name, _Rewrite.moved)(self, node)
            except LdsnnError as error:
                self.problems += [p for p in error.problems if p not in self.problems]
                failed.add(node.name)
        if self.problems:
            raise LdsnnError(self.problems)
        with self.new.edit():
            for delay in self.old.of("delay"):
                self.new.set_operands(self.new.node(delay.name), [self.values[o] for o in delay.operands])
            settle_delays(self.new)
        return self.new

    def _step(self, node: Node) -> tuple[float, int, int]:
        """Scale, least and largest whole number of a real input."""
        low, high = self.calibration.range_of(node)
        largest = 2**self.numbers.input_bits - 1
        if low >= 0:
            return float(torch.tensor((high or 1.0) / largest, dtype=torch.float32)), 0, largest
        largest = 2 ** (self.numbers.input_bits - 1) - 1
        return float(torch.tensor(max(-low, high) / largest, dtype=torch.float32)), -largest, largest

    # ---- building

    def add(self, node: Node, op: str, operands: list[Value], attrs: Mapping[str, Any]) -> Node:
        """A node in place of an old one."""
        return self.new.add(op, operands, path=node.path, name=node.name, **attrs)

    def done(self, node: Node, made: Node) -> None:
        """What the old node's users read from now on."""
        for old, new in zip(node.results, made.results, strict=False):
            self.values[old] = new

    def given(self, node: Node) -> list[Value]:
        """The operands, as whole numbers."""
        return [self.whole(o) for o in node.operands]

    def whole(self, value: Value) -> Value:
        """A value as whole numbers: of an input or a code, what is counted or rounded of it."""
        made = self.values[value]
        if made.type.dtype != "float32":
            return made
        for user, _ in self.new.uses(made):
            if user.op.name == "quantize":
                return user.result
        node, signal = value.node, value.type.signal
        if node.name in self.steps:
            scale, low, high = self.steps[node.name]
        else:
            scale, low, high = signal.unit, 0, signal.levels or 2**24
        return self.new.add("quantize", [made], name=f"{node.name}.whole", path=node.path, scale=scale, low=low,
                            high=high).result  # fmt: skip

    def tensor(self, name: str, value: torch.Tensor, dtype: torch.dtype) -> TensorRef:
        """A tensor of whole numbers."""
        return self.new.tensor(name, value.round().to(dtype))

    # ---- one rule an op

    def border(self, node: Node) -> None:
        """Inputs and codes stay as they are."""
        operands = [self.values[o] for o in node.operands]
        self.done(node, self.add(node, node.op.name, operands, node.attrs))

    def moved(self, node: Node) -> None:
        """Ops that sum or move whole numbers as they are."""
        self.scales.of(node.result)  # refuses what has none
        self.done(node, self.add(node, node.op.name, self.given(node), node.attrs))

    def delay(self, node: Node) -> None:
        """Its operand comes later."""
        counts = Signal(node.type.signal.levels)
        type = node.type.with_(dtype="int32", signal=counts if node.type.signal.is_event else REAL)
        self.done(node, self.add(node, "delay", [], {"steps": node["steps"], "type": type}))

    def synapse(self, node: Node) -> None:
        """Weights and bias in units of the result's scale."""
        scale = self.scales.of(node.result)
        weight, bias = self.scales.weights(node)
        rows = scale.reshape(-1, *[1] * (weight.ndim - 1)) if scale.ndim else scale
        attrs = dict(node.attrs)
        whole = (weight / rows).round().clamp(-self.numbers.qmax, self.numbers.qmax)
        attrs["weight"] = self.tensor(node["weight"].name, whole, self.numbers.weights)
        if bias is not None:
            attrs["bias"] = self.tensor(node["bias"].name, fitting(node, bias / scale), torch.int32)
        self.done(node, self.add(node, node.op.name, self.given(node), attrs))

    def batch_norm(self, node: Node) -> None:
        """One weight for each channel: a depthwise convolution."""
        shape, scale = node.type.shape, self.scales.of(node.result)
        if len(shape) not in (2, 3):
            raise refuse(node, f"is on streams of shape {list(shape)}; channels and one or two axes can be quantized")
        weight, bias = self.scales.weights(node)
        axes, rows = len(shape) - 1, scale.expand(shape[0])
        whole = (weight[:, 0] / rows).round().clamp(-self.numbers.qmax, self.numbers.qmax)
        assert bias is not None
        attrs = {
            "groups": shape[0],
            "stride": (1,) * axes,
            "padding": (0,) * axes,
            "dilation": (1,) * axes,
            "weight": self.tensor(f"{node.name}.weight", whole.reshape(-1, *[1] * (axes + 1)), self.numbers.weights),
            "bias": self.tensor(f"{node.name}.bias", fitting(node, bias / rows), torch.int32),
        }
        self.done(node, self.add(node, f"conv{axes}d", self.given(node), attrs))

    def pool(self, node: Node) -> None:
        """An average becomes a sum."""
        window(node)
        self.scales.of(node.result)
        if node.op.name == "adaptive_avg_pool":
            axes = node.operands[0].type.shape[-len(node["size"]) :]
            kernel = tuple(axis // size for axis, size in zip(axes, node["size"], strict=True))
            attrs = {"kernel": kernel, "stride": kernel, "padding": (0,) * len(kernel)}
        else:
            attrs = {k: node[k] for k in ("kernel", "stride", "padding")}
        self.done(node, self.add(node, "sum_pool", self.given(node), attrs))

    def mean(self, node: Node) -> None:
        """A mean over time becomes a sum."""
        self.scales.of(node.result)
        mode = "sum" if node["mode"] == "mean" else node["mode"]
        self.done(node, self.add(node, node.op.name, self.given(node), {**node.attrs, "mode": mode}))

    def scale(self, node: Node) -> None:
        """Nothing is left of it: its factor is in the scale."""
        self.scales.of(node.result)
        self.values[node.result] = self.whole(node.operands[0])

    def add_(self, node: Node) -> None:
        """Each operand in the units of the sum."""
        total = self.scales.of(node.result)
        self.done(node, self.add(node, "add", [self._joining(node, o, total) for o in node.operands], {}))

    def _joining(self, node: Node, operand: Value, total: Scale) -> Value:
        """An operand of a sum, times a whole number where its scale is not the sum's."""
        ratio = aligned(self.scales.of(operand), 1.0 / total, node.type.shape)
        factor = ratio.round()
        if bool(((ratio - 1.0).abs() < 1e-9).all()):
            return self.whole(operand)
        is_coarse = (ratio - factor).abs() > ratio.abs() / 8
        if not operand.type.signal.is_event and bool(is_coarse.any()):
            hint = "let each sum have currents of its own"
            raise refuse(node, f"%{operand.name} brings real numbers in units that do not fit this sum's", hint)
        name = f"{node.name}.{operand.node.name}"
        if factor.ndim == 0:
            return self.new.add("scale", [self.whole(operand)], name=name, path=node.path, factor=float(factor)).result
        by = self.tensor(f"{name}.by", fitting(node, factor), torch.int32)
        return self.new.add("scale", [self.whole(operand)], name=name, path=node.path, by=by).result

    def constant(self, node: Node) -> None:
        """Rounded to its scale."""
        scale = self.scales.of(node.result)
        value = self.old.tensors[node["value"].name].double()
        whole = value / (scale.reshape(-1, *[1] * (value.ndim - 2)) if scale.ndim == 1 else scale)
        ref = self.tensor(node["value"].name, fitting(node, whole), torch.int32)
        self.done(node, self.add(node, "constant", [], {"value": ref, "dt": node["dt"]}))

    def threshold(self, node: Node) -> None:
        """Compared with the next whole number."""
        scale = self.scales.of(node.operands[0])
        if scale.ndim or scale <= 0:
            raise refuse(node, "compares numbers whose scales differ by channel with one number", "per=layer")
        at = torch.tensor(node["at"], dtype=torch.float64) / scale
        at = at.ceil() if node["compare"] == "ge" else at.floor()
        attrs = {"at": float(at), "compare": node["compare"], "value": 1.0}
        self.done(node, self.add(node, "threshold", self.given(node), attrs))

    def neuron(self, node: Node) -> None:
        """Charges in units of the current, ratios of fixed point."""
        found = self._whole_neuron(node)
        scale = self._fed(node)
        settings = {name: self._setting(node, name, value, found) for name, value in found.settings.items()}
        neuron = found.neuron.with_(None, **settings)
        operands = [self._joining(node, o, scale) for o in node.operands]
        self.done(node, self.add(node, "neuron", operands, {"neuron": neuron, "membrane": node["membrane"]}))

    def _setting(self, node: Node, name: str, value: torch.Tensor, found: WholeNeuron) -> float | TensorRef:
        if value.ndim == 0:
            return float(value)
        stored = f"{node.path or node.name}.{name}"
        if name in found.charges:
            return self.tensor(stored, value, torch.int32)
        return self.new.tensor(stored, value.to(torch.float32))

    def _whole_neuron(self, node: Node) -> WholeNeuron:
        if node.name not in self.neurons:
            self.neurons[node.name] = whole_neuron(self.old, node, self._fed(node), self.numbers.places(node))
        return self.neurons[node.name]

    def _fed(self, node: Node) -> Scale:
        """The scale of a neuron's current."""
        is_alone = len(node.operands) == 1
        scale: Scale = self.scales.of(node.operands[0]) if is_alone else self.scales.group(node)[node.name]
        if bool((scale <= 0).any()):
            raise refuse(node, "is fed by numbers whose scale is not positive")
        return scale

    def _inner(self, node: Node) -> Scale:
        """The scale of a neuron's charges."""
        return self._fed(node) / float(2 ** self._whole_neuron(node).neuron.guard)

    def output(self, node: Node) -> None:
        """Real numbers again, unless it hands on an input."""
        value = self.values[node.operands[0]]
        if value.type.dtype != "float32":
            value = self._real(node, node.operands[0], value)
        self.done(node, self.add(node, "output", [value], {"time": node["time"]}))

    def _real(self, node: Node, old: Value, value: Value) -> Value:
        scale, name = self.scales.of(old), f"{old.name.replace('#', '.')}.real"
        if scale.ndim == 0:
            return self.new.add("dequantize", [value], name=name, path=old.node.path, scale=float(scale)).result
        by = self.new.tensor(f"{name}.scale", scale.to(torch.float32))
        return self.new.add("dequantize", [value], name=name, path=old.node.path, by=by).result


def fitting(node: Node, value: torch.Tensor) -> torch.Tensor:
    """Rounded; refused if it does not fit int32."""
    value = value.round()
    if bool((value.abs() >= 2**31).any()):
        message = f"needs numbers of up to {float(value.abs().max()):.3g}, which int32 cannot hold"
        raise refuse(node, message, "fewer weight_bits or input_bits")
    return value


_RULES: Mapping[str, Callable[[_Rewrite, Node], None]] = {
    "input": _Rewrite.border,
    "encode": _Rewrite.border,
    "output": _Rewrite.output,
    "delay": _Rewrite.delay,
    **dict.fromkeys(WEIGHTED, _Rewrite.synapse),
    "batch_norm": _Rewrite.batch_norm,
    "avg_pool": _Rewrite.pool,
    "adaptive_avg_pool": _Rewrite.pool,
    "resample": _Rewrite.mean,
    "readout": _Rewrite.mean,
    "scale": _Rewrite.scale,
    "add": _Rewrite.add_,
    "constant": _Rewrite.constant,
    "threshold": _Rewrite.threshold,
    "neuron": _Rewrite.neuron,
}
