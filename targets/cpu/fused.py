"""Fused regions: from the nodes of a region to the description that the fast kernels take, and their arguments.

Numbers that reach a kernel as counts in bits have their unit in the weights (or in a shortcut's scale), and so has the
divisor of a mean over whole steps: sources of more steps than the region are summed there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import prod
from typing import Any

import torch

from ldsnn_compiler.ir.graph import Node, Value
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.cpu import forms, kernels, whole
from ldsnn_compiler.targets.cpu.kernels import tune
from ldsnn_compiler.targets.cpu.kernels.dot import dots
from ldsnn_compiler.targets.cpu.kernels.pool import PoolSpec, max_pool, sum_pool
from ldsnn_compiler.targets.cuda import kernels as gpu_kernels
from ldsnn_compiler.targets.lower import Lowering
from ldsnn_compiler.targets.narrow import in_halves
from ldsnn_compiler.targets.plan import BATCH, Buffer, State
from ldsnn_compiler.targets.region import Addend, addends

Pair = tuple[int, int]


@dataclass(frozen=True)
class _Input:
    """One source with the buffer that it reads and what its weights are multiplied by."""

    source: kernels.Source
    buffer: str
    gain: float
    addend: Addend

    @property
    def synapse(self) -> Node | None:
        """The node whose weights it goes through."""
        return self.addend.synapse


def region(low: Lowering, nodes: Sequence[Node], root: Node, add_state: Callable[..., State],
           initial: Callable[[int, str], torch.Tensor], readout: Callable[[Lowering, Node], None]) -> None:  # fmt: skip
    """Add the kernel of a region. In the ``step`` entry a readout inside it runs on its own, since it carries state."""
    names = {n.name for n in nodes}
    for node in nodes:
        if low.carried and node.op.name == "readout":
            readout(low, node)
            names.discard(node.name)
    steps = low.steps(root.result)
    inputs = [_input(low, a, steps) for a in addends(root, lambda n: n.name in names)]
    spec = _spec(low, root, inputs, steps)
    states = _states(low, root, spec, add_state, initial)
    form = forms.BITS if spec.output == "bits" else forms.DENSE
    results = [low.write(root.result, form), *(low.write(r, forms.DENSE) for r in root.results[1:])]
    low.kernel(
        _name(spec),
        spec,
        partial(_function, spec, low.board),
        [*_arguments(low, spec, inputs, root), *(s.before for s in states)],
        [*results, *(s.after for s in states)],
        nodes,
    )


def _function(spec: kernels.RegionSpec, board: Board, batch: int | None) -> Any:
    """The region as TIR: a loop over tasks, or blocks of threads where the board has a GPU."""
    sized = replace(spec, batch=batch)
    if board.gpu is None:
        return kernels.region(sized)
    return gpu_kernels.region(sized, gpu_kernels.launch(sized, board.gpu.multiprocessors))


def _name(spec: kernels.RegionSpec) -> str:
    kinds = [s.method if s.kind == "conv" else s.kind for s in spec.sources]
    return "_".join([*dict.fromkeys(kinds), *(["scan"] if spec.neuron else [])])


def plane(shape: Sequence[int]) -> Pair:
    """Height and width of a per-sample shape's space; further axes are folded into the width."""
    space = tuple(shape[1:])
    return (space[0], space[1]) if len(space) == 2 else (1, prod(space))


def pair(values: Sequence[int], fill: int) -> Pair:
    """One number per axis of a plane, for ops of one axis or two."""
    return (values[0], values[1]) if len(values) == 2 else (fill, values[0])


def _input(low: Lowering, addend: Addend, steps: int) -> _Input:
    value, synapse = addend.value, addend.synapse
    given = low.steps(value)
    share = 1.0 if addend.time == "sum" else float(Fraction(min(steps, given), given))
    walks = synapse is not None and synapse.placement is not None and synapse.placement.kernel == "event"
    in_bits = value.type.signal.is_bounded and (walks or low.has(value, forms.BITS))
    form = forms.BITS if in_bits else forms.DENSE
    gain, is_whole = share * (value.type.signal.unit if in_bits else 1.0), value.type.dtype != "float32"
    shape = value.type.shape
    least, most = whole.extent(value, low.bounds) if is_whole and not in_bits else (0, 0)
    if synapse is not None and synapse.op.name == "linear" and not addend.flattened:
        shape = (prod(shape),)
    common = {
        "channels": shape[0] if shape else 1,
        "space": plane(shape),
        "timesteps": given,
        "form": "bits" if in_bits else "dense",
        "planes": max(1, value.type.signal.planes) if in_bits else 1,
        "values": kernels.count_number(value.type.signal) if is_whole else "float32",
        "most": most,
        "least": least,
    }
    if synapse is None:
        kind, scales = "identity" if in_bits else "current", _scales(low, addend.scale)
        plain = kernels.Source(kind, **{"scale": gain, **common, **scales})  # type: ignore[arg-type]
        return _Input(plain, low.read(value, form), gain, addend)
    method = "event" if walks else "dense"
    source = kernels.Source("conv", method=method, **_window(synapse, plane(shape)), **common)  # type: ignore[arg-type]
    return _Input(source, low.read(value, form), gain, addend)


def _scales(low: Lowering, scale: Node | None) -> dict[str, object]:
    """The whole number, or one for each channel, that multiplies an addend."""
    if scale is None:
        return {}
    if scale["by"] is None:
        return {"scale": scale["factor"]}
    return {"per_channel": True, "weights": low.tensor_buffer(scale["by"].name).dtype}


def _window(synapse: Node, space: Pair) -> dict[str, object]:
    """Kernel, stride, padding, dilation and groups; a linear layer is a convolution whose window is the whole input."""
    if synapse.op.name == "linear":
        return {"kernel": space}
    return {
        "kernel": (0, 0),
        "stride": pair(synapse["stride"], 1),
        "padding": pair(synapse["padding"], 0),
        "dilation": pair(synapse["dilation"], 1),
        "groups": synapse["groups"],
    }


def _spec(low: Lowering, root: Node, inputs: Sequence[_Input], steps: int) -> kernels.RegionSpec:
    shape, is_neuron = root.type.shape, root.op.name == "neuron"
    neuron = _nameless(root["neuron"]) if is_neuron else None
    tensors = (
        {k: low.graph.tensors[v.name] for k, v in root["neuron"].params.items() if isinstance(v, TensorRef)}
        if is_neuron
        else {}
    )
    in_bits = is_neuron and root.placement is not None and root.placement.form != "dense"
    given = [_sized(low, i) for i in inputs]
    sums, sources = whole.typed(given, steps, low.bounds, narrow=low.board.gpu is None)
    if low.board.gpu is not None:
        sources = tuple(_halved(s, g.weight, i.gain) for s, g, i in zip(sources, given, inputs, strict=True))
    spec = kernels.RegionSpec(
        batch=None,
        timesteps=steps,
        channels=shape[0] if shape else 1,
        space=plane(shape),
        sources=sources,
        neuron=neuron,
        bias=any(i.synapse is not None and i.synapse["bias"] is not None for i in inputs),
        output="bits" if in_bits else "dense",
        state_io=is_neuron and low.carried,
        membrane=len(root.results) > 1,
        per_channel=tuple(k for k, v in tensors.items() if v.ndim == 1),
        per_neuron=tuple(k for k, v in tensors.items() if v.ndim != 1),
        accumulator=sums,
        ratios=whole.ratios(low.graph, root),
        products=whole.products(root, low.bounds),
        quotients=whole.quotients(root, low.bounds),
    )
    usual = tuned(spec, low.board)
    return replace(usual, tuning=low.tunings.get(tune.region_key(usual), usual.tuning))


def _sized(low: Lowering, given: _Input) -> whole.Given:
    """The source with its kernel's size, which the weight tells."""
    if given.synapse is None:
        return whole.Given(given.source, given.addend, None)
    weight, source = low.graph.tensors[given.synapse["weight"].name], given.source
    if given.synapse.op.name != "linear":
        source = replace(source, kernel=pair(weight.shape[2:], 1))
    return whole.Given(source, given.addend, weight)


def _halved(source: kernels.Source, weight: torch.Tensor | None, gain: float) -> kernels.Source:
    """The source with weights in half precision, if none of them is another number there."""
    if weight is None or source.weights != "float32":
        return source
    return replace(source, weights="float16") if in_halves(weight, gain) else source


def tuned(spec: kernels.RegionSpec, board: Board) -> kernels.RegionSpec:
    """The region with the loop structure that suits a board."""
    if board.gpu is not None:
        return gpu_kernels.tuned(spec, board.gpu)
    lanes = min(16, max(4, board.lanes()))
    return tune.tuned(spec, board.cores, lanes, board.l2_kib * 1024, dots(board.has, lanes))


def _nameless(neuron: Neuron) -> Neuron:
    """The neuron with its tensors called after the parameters, so that layers that differ in names share code."""
    settings = tuple((k, TensorRef(k) if isinstance(v, TensorRef) else v) for k, v in neuron.settings)
    return replace(neuron, settings=settings)


# ---- arguments


def _arguments(low: Lowering, spec: kernels.RegionSpec, inputs: Sequence[_Input], root: Node) -> list[str]:
    names: list[str] = []
    for source, given in zip(spec.sources, inputs, strict=True):
        names.append(given.buffer)
        if given.synapse is not None:
            names.append(_weight(low, spec, source, given))
        elif source.per_channel:
            assert given.addend.scale is not None
            names.append(low.tensor(given.addend.scale["by"].name))
    if spec.bias:
        names.append(_bias(low, [i.synapse for i in inputs if i.synapse is not None], spec))
    params = root["neuron"].params if spec.neuron is not None else {}
    names += [_parameter(low, spec, k, params[k].name) for k in spec.per_channel]
    names += [_parameter(low, spec, k, params[k].name) for k in spec.per_neuron]
    return names


def _weight(low: Lowering, spec: kernels.RegionSpec, source: kernels.Source, given: _Input) -> str:
    assert given.synapse is not None
    name: str = given.synapse["weight"].name
    value, shape = low.graph.tensors[name], kernels.weight_shape(spec, source)
    buffer = Buffer(shape, kernels.weight_number(spec, source))

    def make() -> torch.Tensor:
        scaled = value if given.gain == 1.0 else value * given.gain
        return torch.from_numpy(kernels.pack_weights(spec, source, scaled))

    layout = f"{list(shape)} {buffer.dtype} * {given.gain!r} groups {source.groups}"
    if shift := spec.shift(source):
        layout += f" shift {shift}"
    return low.plan.argument(f"@{name} as {layout}", buffer, make)


def _bias(low: Lowering, synapses: Sequence[Node], spec: kernels.RegionSpec) -> str:
    names = [s["bias"].name for s in synapses if s["bias"] is not None]
    values = [low.graph.tensors[n] for n in names]

    def make() -> torch.Tensor:
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total.to(getattr(torch, spec.number))

    return low.plan.argument(" + ".join(f"@{n}" for n in names), Buffer((spec.channels,), spec.number), make)


def _parameter(low: Lowering, spec: kernels.RegionSpec, parameter: str, name: str) -> str:
    """A neuron's tensor, per channel or channels last; ratios of whole numbers as multiples of their last place."""
    value, places = low.graph.tensors[name], dict(spec.ratios).get(parameter)
    is_map = parameter in spec.per_neuron
    if not is_map and places is None:
        return low.tensor(name)

    def make() -> torch.Tensor:
        counted = value if places is None else (value.double() * 2**places).round()
        shaped = counted.reshape(spec.channels, spec.pixels).T if is_map else counted
        return shaped.to(getattr(torch, spec.number)).contiguous()

    shape = (spec.pixels, spec.channels) if is_map else (spec.channels,)
    what = (" channels last" if is_map else "") + (f" * 2**{places}" if places is not None else "")
    return low.plan.argument(f"@{name}{what}", Buffer(shape, spec.number), make)


def _states(low: Lowering, root: Node, spec: kernels.RegionSpec, add_state: Callable[..., State],
            initial: Callable[[int, str], torch.Tensor]) -> list[State]:  # fmt: skip
    if not spec.state_io:
        return []
    buffer = Buffer((BATCH, spec.pixels, spec.channels), spec.number)
    return [
        add_state(low, root, name, buffer, partial(_initial, initial, name), root.type.shape)
        for name, _ in root["neuron"].program.state
    ]


def _initial(make: Callable[[int, str], torch.Tensor], name: str, batch: int) -> torch.Tensor:
    return make(batch, name)


# ---- pools


def pool(low: Lowering, node: Node) -> None:
    """A pool on bits, over space or timesteps: sums and averages add counts, the divisor is in the result's unit."""
    source: Value = node.operands[0]
    shape, out, steps = source.type.shape, node.type.shape, 1
    if node.op.name == "resample":
        steps, kernel, stride, padding = int(node.type.dt / source.type.dt), (1, 1), (1, 1), (0, 0)
    elif node.op.name == "adaptive_avg_pool":
        window = tuple(d // s for d, s in zip(shape[1:], out[1:], strict=True))
        kernel, stride, padding = pair(window, 1), pair(window, 1), (0, 0)
    else:
        kernel, stride = pair(node["kernel"], 1), pair(node["stride"], 1)
        padding = pair(node["padding"], 0)
    channels, left = shape[0] if shape else 1, low.steps(node.result)
    spec = PoolSpec(None, left, channels, plane(shape), source.type.signal.planes, kernel, stride, padding, steps)
    build = max_pool if node.op.name == "max_pool" else sum_pool
    low.kernel(
        f"{node.op.name}_bits",
        (node.op.name == "max_pool", spec),
        lambda batch: build(replace(spec, batch=batch)),
        [low.read(source, forms.BITS)],
        [low.write(node.result, forms.BITS)],
        [node],
    )
