"""Kernels for groups of nodes: which emitter serves a region, a cycle, or a single node of each op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.interp.initial import initial
from ldsnn_compiler.ir.graph import Node
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.targets.cpu import fused, moved
from ldsnn_compiler.targets.cpu.cycle import Cycle
from ldsnn_compiler.targets.cpu.plain import op_function, tensor_function
from ldsnn_compiler.targets.cpu.temporal import delay_function, readout_function
from ldsnn_compiler.targets.lower import Lowering, tensors_of
from ldsnn_compiler.targets.plan import BATCH, Buffer, State
from ldsnn_compiler.targets.region import SYNAPSES


def group(low: Lowering, nodes: Sequence[Node]) -> None:
    """Add the kernels of one group: a cycle, a fused region, or a single node."""
    if _is_cycle(nodes):
        cycle(low, nodes)
    elif (root := _root(nodes)) is not None:
        fused.region(low, nodes, root, add_state, partial(_neuron_initial, low, root), readout)
    elif nodes[0].placement is not None and nodes[0].placement.kernel == "event":
        fused.pool(low, nodes[0])
    else:
        _SINGLE.get(nodes[0].op.name, plain)(low, nodes[0])


def _is_cycle(nodes: Sequence[Node]) -> bool:
    """Some node reads what is computed after it, or is a neuron with a second operand, which only this kernel takes."""
    rank = {n.name: i for i, n in enumerate(nodes)}
    fed = any(n.op.name == "neuron" and len(n.operands) > 1 for n in nodes)
    return fed or any(rank.get(o.node.name, -1) >= i for i, n in enumerate(nodes) for o in n.operands)


def _root(nodes: Sequence[Node]) -> Node | None:
    """The node of a region that the others lead to: a neuron, or a synapse not left to its tensor expression."""
    last = nodes[-1]
    if last.op.name == "neuron":
        return last
    is_fast = last.placement is not None and last.placement.kernel != "plain"
    synapses = [n for n in nodes if n.op.name in SYNAPSES]
    return synapses[-1] if is_fast and synapses else None


# ---- single nodes


def entry(low: Lowering, node: Node) -> None:
    """An input of the network."""
    low.plan.inputs.append(low.write(node.result))


def exit_(low: Lowering, node: Node) -> None:
    """An output of the network; an input handed on is copied."""
    source = low.read(node.operands[0])
    if source in low.plan.inputs or source in low.plan.outputs:
        buffer, name = low.plan.buffers[source], f"{node.name}:out"
        low.plan.buffer(name, buffer)
        build = partial(tensor_function, [buffer], compute=lambda x: [x])
        low.kernel("copy", ("copy", buffer), lambda batch: build(batch=batch), [source], [name], [node])
        source = name
    low.plan.outputs.append(source)


def plain(low: Lowering, node: Node) -> None:
    """Any op with a tensor expression."""
    _need_compute(node)
    operands = [low.read(o) for o in node.operands]
    tensors = {name: low.tensor_buffer(name) for name in tensors_of([node])}
    timed = node.op.kind == "scan" and low.carried
    types, steps = tuple(o.type for o in node.operands), low.steps(node.result)
    key = (node.op.name, _code(node), tuple(tensors.values()), types, steps, timed)
    buffers = [low.canonical(o) for o in node.operands]
    call = low.graph.call(node)
    low.kernel(
        node.op.name,
        key,
        lambda batch: op_function(node.op, call, buffers, tensors, timed, batch, node.type.dtype),
        [*operands, *map(low.tensor, tensors), *([low.counter()] if timed else [])],
        [low.write(node.result)],
        [node],
    )


def _need_compute(*nodes: Node) -> None:
    lacking = [n for n in nodes if n.op.compute is None]
    if lacking:
        message = "has no lowering: its declaration lacks compute"
        raise LdsnnError([Problem(message, where=n.path or n.name, kind=n.op.name) for n in lacking])


def _code(node: Node) -> tuple[object, ...]:
    """The attributes as far as code depends on them: tensors by position, not by name."""
    names = {name: i for i, name in enumerate(tensors_of([node]))}
    return tuple((k, names[v.name] if isinstance(v, TensorRef) else v) for k, v in node.attrs.items())


def _neuron_initial(low: Lowering, node: Node, batch: int, name: str) -> torch.Tensor:
    # whole numbers as the interpreter has them
    dtype = torch.float32 if node.type.dtype == "float32" else torch.float64
    like = torch.zeros((batch, *node.type.shape), dtype=dtype)
    return initial(node, low.graph.tensors, {name: like})[name]


def add_state(low: Lowering, node: Node, variable: str, buffer: Buffer, initial: Callable[[int], torch.Tensor],
              sample: tuple[int, ...] | None = None) -> State:  # fmt: skip
    """Declare a state variable that is carried from step to step; ``sample`` as :class:`State` has it."""
    before, after = f"{node.name}.{variable}:before", f"{node.name}.{variable}:after"
    low.plan.buffer(before, buffer)
    low.plan.buffer(after, buffer)
    state = State(node.name, variable, before, after, initial, sample)
    low.plan.states.append(state)
    return state


def _filled(buffer: Buffer, fill: float, batch: int) -> torch.Tensor:
    dtype = getattr(torch, buffer.dtype)
    if buffer.dtype == "int32":  # the least of them in the place of minus infinity
        fill = max(fill, torch.iinfo(dtype).min)
    return torch.full(buffer.sized(batch), fill, dtype=dtype)


def delay(low: Lowering, node: Node) -> None:
    """A delay outside any cycle."""
    shape, steps = (node["steps"], BATCH, *node.type.shape), low.steps(node.result)
    buffer = Buffer(shape, node.type.dtype)
    held = [add_state(low, node, "held", buffer, partial(_filled, buffer, 0.0))] if low.carried else []
    low.kernel(
        "delay",
        ("delay", steps, buffer, low.carried),
        partial(delay_function, low.canonical(node.result), int(node["steps"]), low.carried),
        [low.read(node.operands[0]), *(s.before for s in held)],
        [low.write(node.result), *(s.after for s in held)],
        [node],
    )


def readout(low: Lowering, node: Node) -> None:
    """A readout; in the ``step`` entry a running one."""
    source, mode = low.canonical(node.operands[0]), node["mode"]
    buffer, carried = Buffer((1, BATCH, *node.type.shape), node.type.dtype), low.carried and mode != "last"
    fill = float("-inf") if mode == "max" else 0.0
    kept = [add_state(low, node, "kept", buffer, partial(_filled, buffer, fill))] if carried else []
    timed = carried and mode == "mean"
    low.kernel(
        f"readout_{mode}",
        ("readout", mode, source, carried, node.operands[0].type.dt),
        partial(readout_function, source, mode, carried, node.operands[0].type.dt),
        [low.read(node.operands[0]), *(s.before for s in kept), *([low.counter()] if timed else [])],
        [low.write(node.result), *(s.after for s in kept)],
        [node],
    )


def moves(low: Lowering, node: Node) -> None:
    """A slice or padding: with the run that it ends, nothing before."""
    run = moved.run_of(low.graph, node)
    if node is not run[-1]:
        return
    spec = moved.spec_of(low, run)
    if spec is not None:
        moved.moved(low, run, spec)
        return
    for each in run:
        plain(low, each)


_SINGLE: Mapping[str, Callable[[Lowering, Node], None]] = {
    "input": entry,
    "output": exit_,
    "delay": delay,
    "readout": readout,
    **dict.fromkeys(moved.MOVES, moves),
}


# ---- cycles


def cycle(low: Lowering, nodes: Sequence[Node]) -> None:
    """Nodes on a cycle through delays."""
    _need_compute(*(n for n in nodes if n.op.name not in ("neuron", "delay")))
    names = {n.name for n in nodes}
    outside = {o.name: low.canonical(o) for n in nodes for o in n.operands if o.node.name not in names}
    values = {r.name: r for n in nodes for r in n.results}
    exported = [r for r in values.values() if any(u.name not in names for u, _ in low.graph.uses(r))]
    tensors = {name: low.tensor_buffer(name) for name in tensors_of(nodes)}
    timed = any(n.op.kind == "scan" and n.op.name not in ("neuron", "delay") for n in nodes)
    loop = Cycle(
        low.graph, tuple(nodes), low.steps(nodes[0].result), outside, tensors, tuple(r.name for r in exported), timed
    )
    sources, key = {o.name: o for n in nodes for o in n.operands}, (tuple(sorted(names)), low.carried)
    arguments = [low.tensor(name) for name in tensors]
    before, after = _cycle_states(low, loop, key, arguments)
    low.kernel(
        "cycle",
        ("cycle", *key),
        loop.build,
        [*(low.read(sources[name]) for name in outside), *arguments, *before, *([low.counter()] if timed else [])],
        [*(low.write(r) for r in exported), *after],
        nodes,
    )


def _cycle_states(
    low: Lowering, loop: Cycle, key: tuple[object, ...], tensors: list[str]
) -> tuple[list[str], list[str]]:
    """Buffers of the state before and after: carried, or made by a kernel of their own."""
    variables = loop.states()
    if low.carried:
        states = [_cycle_state(low, low.graph.node(n), k, b) for (n, k), b in variables.items()]
        return [s.before for s in states], [s.after for s in states]
    before = [low.plan.buffer(f"{n}.{k}:before", b) for (n, k), b in variables.items()]
    after = [low.plan.buffer(f"{n}.{k}:after", b) for (n, k), b in variables.items()]
    low.kernel("initial_state", ("initial", *key), loop.build_initial, tensors, before, loop.nodes)
    return before, after


def _cycle_state(low: Lowering, node: Node, variable: str, buffer: Buffer) -> State:
    is_delay = node.op.name == "delay"
    begin = partial(_filled, buffer, 0.0) if is_delay else partial(_neuron_initial, low, node, name=variable)
    return add_state(low, node, variable, buffer, begin)
