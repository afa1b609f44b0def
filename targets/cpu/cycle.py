"""The plain kernel of a cycle through delays: all its nodes step together, one serial loop over time around their
bodies.

Two functions are built from tensor expressions, the initial state and one step, and joined into one:
``state = initial; for t: values[t], next = step(inputs[t], state); state = next``. Code size does not grow with T.
Whole numbers are kept in int32 and computed with in float64, where they are exact, as they are in the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.ir.program import Expr, fold
from ldsnn_compiler.targets.cpu.plain import batch_size, first_step, scheduled, wide
from ldsnn_compiler.targets.cuda import bind
from ldsnn_compiler.targets.emitting import on_gpu
from ldsnn_compiler.targets.plan import BATCH, Buffer

Env = dict[str, Callable[..., Any]]


@dataclass(frozen=True)
class Cycle:
    """Nodes that step together, in graph order. ``outside`` maps the values they read to buffers ``[T, N, *shape]``.

    ``tensors`` are the graph tensors they use; ``exported`` the results that others read; ``timed``: some op asks the
    step number, so the counter of base steps comes last among the operands.
    """

    graph: Graph
    nodes: tuple[Node, ...]
    steps: int
    outside: Mapping[str, Buffer]
    tensors: Mapping[str, Buffer]
    exported: tuple[str, ...]
    timed: bool

    def states(self) -> dict[tuple[str, str], Buffer]:
        """(node, variable) of all state, with its buffer."""
        found: dict[tuple[str, str], Buffer] = {}
        for node in self.nodes:
            if node.op.name == "delay":
                found[node.name, "held"] = Buffer((node["steps"], BATCH, *node.type.shape), node.type.dtype)
            elif node.op.name == "neuron":
                buffer = Buffer((BATCH, *node.type.shape), node.type.dtype)
                found |= {(node.name, k): buffer for k, _ in node["neuron"].program.state}
        return found

    def build(self, batch: int | None) -> Any:
        """The PrimFunc: outside values, tensors, state, counter if timed; then exported values, state."""
        return _Builder(self, batch_size(batch)).function()

    def build_initial(self, batch: int | None) -> Any:
        """The PrimFunc that gives the initial state from the tensors."""
        return _Builder(self, batch_size(batch)).initial()


class _Builder:
    def __init__(self, cycle: Cycle, batch: Any) -> None:
        self.cycle, self.batch = cycle, batch

    def function(self) -> Any:
        """One step is a function of its own; its parameters for state and results become local buffers here."""
        from tvm import te, tirx

        cycle, states = self.cycle, list(self.cycle.states().values())
        counter = [Buffer((1,), "int32")] if cycle.timed else []
        data = self._placeholders([*cycle.outside.values(), *cycle.tensors.values(), *states, *counter])
        t = tirx.Var("t", "int32")
        results = {r.name: r.type for n in cycle.nodes for r in n.results}
        wanted = [*(results[name].dtype for name in cycle.exported), *(s.dtype for s in states)]
        made = [_typed(r, dtype) for r, dtype in zip(self._step(data, t), wanted, strict=True)]
        step = scheduled(te.create_prim_func([*data, *made, t]))
        inputs, rest = _split(step.params, len(cycle.outside) + len(cycle.tensors))
        kept, rest = _split(rest, len(states))
        count, rest = _split(rest, len(counter))
        now, rest = _split(rest, len(cycle.exported))
        after, (variable,) = _split(rest, len(states))
        before, left = self._buffers("before", states), self._buffers("after", states)
        types = [results[name] for name in cycle.exported]
        given = self._buffers("y", [Buffer((cycle.steps, BATCH, *t.shape), t.dtype) for t in types])
        loop = [
            step.body,
            *(_copy(dst, src) for dst, src in zip(kept, after, strict=True)),
            *(_copy(dst, src, at=variable) for dst, src in zip(given, now, strict=True)),
        ]
        body = [
            *(_copy(dst, src) for dst, src in zip(kept, before, strict=True)),
            _loop(variable, cycle.steps, tirx.SeqStmt(loop)),
            *(_copy(dst, src) for dst, src in zip(left, kept, strict=True)),
        ]
        return _prim_func([*inputs, *before, *count, *given, *left], [*kept, *now, *after], tirx.SeqStmt(body))

    def initial(self) -> Any:
        from tvm import te

        data = self._placeholders(list(self.cycle.tensors.values()))
        return scheduled(te.create_prim_func([*data, *self._initial(data)]))

    def _placeholders(self, specs: Sequence[Buffer]) -> list[Any]:
        from tvm import te

        return [te.placeholder(s.sized(self.batch), s.dtype, name=f"x{i}") for i, s in enumerate(specs)]

    def _buffers(self, name: str, specs: Sequence[Buffer]) -> list[Any]:
        from tvm import tirx

        return [tirx.decl_buffer(s.sized(self.batch), s.dtype, name=f"{name}{i}") for i, s in enumerate(specs)]

    # ---- tensor expressions

    def _initial(self, data: Sequence[Any]) -> list[Any]:
        from tvm import tirx

        tensors = dict(zip(self.cycle.tensors, map(wide, data), strict=True))
        inits: list[Any] = []
        for (name, variable), spec in self.cycle.states().items():
            node, shape = self.cycle.graph.node(name), spec.sized(self.batch)
            if node.op.name == "delay":
                inits.append(_stage(shape, lambda i, zero: zero, tirx.const(0, spec.dtype)))
                continue
            env = _parameters(node["neuron"], tensors)
            init = dict(node["neuron"].program.state)[variable]
            number = arithmetic(node["neuron"])
            first = _stage(shape, lambda i, *given: value_at(given[0], given[1], (0, *i), given[2]), init, env, number)
            inits.append(_typed(first, spec.dtype))
        return inits

    def _step(self, data: Sequence[Any], t: Any) -> list[Any]:
        numbers = len(data) - self.cycle.timed
        given, rest = _split([*map(wide, data[:numbers]), *data[numbers:]], len(self.cycle.outside))
        outside = dict(zip(self.cycle.outside, given, strict=True))
        given, rest = _split(rest, len(self.cycle.tensors))
        tensors = dict(zip(self.cycle.tensors, given, strict=True))
        state = dict(zip(self.cycle.states(), rest, strict=False))
        now: dict[str, Any] = {
            name: _stage((1, *x.shape[1:]), lambda i, x: x(t + i[0], *i[1:]), x) for name, x in outside.items()
        }
        after: dict[tuple[str, str], Any] = {}
        for node in self.cycle.nodes:
            self._node(node, now, tensors, state, after, (t, rest[-1]))
        for node in self.cycle.nodes:
            if node.op.name == "delay":
                held = state[node.name, "held"]
                after[node.name, "held"] = _shifted(held, now[node.operands[0].name], int(node["steps"]))
        return [now[name] for name in self.cycle.exported] + [after[key] for key in state]

    def _node(self, node: Node, now: dict[str, Any], tensors: Mapping[str, Any], state: Mapping[tuple[str, str], Any],
              after: dict[tuple[str, str], Any], time: tuple[Any, Any]) -> None:  # fmt: skip
        if node.op.name == "delay":
            held = state[node.name, "held"]
            now[node.name] = _stage((1, *held.shape[1:]), lambda i: held(*i))
            return
        data = [now[o.name] for o in node.operands]
        if node.op.name == "neuron":
            mine = {k: v for (name, k), v in state.items() if name == node.name}
            results, left = neuron_step(node["neuron"], tensors, data, mine)
            now.update({r.name: y for r, y in zip(node.results, results, strict=False)})
            after.update({(node.name, k): v for k, v in left.items()})
            return
        call = self.cycle.graph.call(node)
        first = first_step(time[1], call.types[0].dt) + time[0] if self.cycle.timed else 0
        assert node.op.compute is not None
        call = replace(call, tensors=tensors, first_step=first, batch=self.batch)
        now[node.name] = node.op.compute(call, *data)


def neuron_step(
    neuron: Neuron, tensors: Mapping[str, Any], inputs: Sequence[Any], state: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """One timestep of a neuron over inputs ``[1, N, *shape]`` and state ``[N, *shape]``: (values, membrane), new
    state."""
    from tvm import tirx

    program, signal, x, number = neuron.program, neuron.signal, inputs[0], arithmetic(neuron)
    env: Env = {**dict(zip(program.inputs, inputs, strict=True)), **_parameters(neuron, tensors)}
    env |= {k: _per_sample(s) for k, s in state.items()}
    total: Any = None
    for _ in range(neuron.substeps):
        for assign in program.steps:
            known = dict(env)
            value = assign.value
            env[assign.target] = _stage(x.shape, lambda i, *at: value_at(at[0], at[1], i, number), value, known)
        part = env["n" if signal.is_event else program.output]
        total = part if total is None else _stage(x.shape, lambda i, a, b: a(*i) + b(*i), total, part)
    scale = neuron.emitted_unit
    values = _stage(x.shape, lambda i: total(*i) * tirx.const(scale, number))
    left = {k: _stage(s.shape, lambda i, y: y(0, *i), env[k]) for k, s in state.items()}
    return [values, _stage(x.shape, lambda i: env[program.membrane](*i))], left


def _stage(shape: Sequence[Any], at: Callable[..., Any], *bound: Any) -> Any:
    """The te tensor ``at(index, *bound)``."""
    from tvm import te

    return te.compute(shape, lambda *i: at(i, *bound), name="stage")


def _typed(tensor: Any, dtype: str) -> Any:
    """A stage of its own in that type."""
    from tvm import tirx

    is_kept = str(tensor.dtype) == dtype
    return _stage(tensor.shape, lambda i: tensor(*i) if is_kept else tirx.Cast(dtype, tensor(*i)))


def _per_sample(state: Any) -> Callable[..., Any]:
    """State ``[N, *shape]`` read at an index of ``[1, N, *shape]``."""
    return lambda *i: state(*i[1:])


def _parameters(neuron: Neuron, tensors: Mapping[str, Any]) -> Env:
    from tvm import tirx

    def read(value: float | TensorRef) -> Callable[..., Any]:
        if not isinstance(value, TensorRef):
            return lambda *i: tirx.const(value, arithmetic(neuron))
        tensor = tensors[value.name]
        return (lambda *i: tensor(i[2])) if len(tensor.shape) == 1 else (lambda *i: tensor(*i[2:]))

    return {name: read(value) for name, value in neuron.params.items()}


def arithmetic(neuron: Neuron) -> str:
    """Type in which a neuron's program is evaluated."""
    return "float64" if neuron.is_whole else "float32"


def value_at(expr: Expr, env: Env, index: Sequence[Any], number: str) -> Any:
    """A program expression at one index of ``[1, N, *shape]``, every product fenced against contraction."""
    from tvm import tirx

    return fold(expr, lambda c: tirx.const(c, number), lambda name: env[name](*index), partial(_apply, number))


def _apply(number: str, op: str, args: list[Any]) -> Any:
    from tvm import tirx

    zero, one = tirx.const(0.0, number), tirx.const(1.0, number)
    match op, args:
        case "add", [a, b]:
            return a + b
        case "sub", [a, b]:
            return a - b
        case "mul", [a, b]:
            return tirx.call_llvm_pure_intrin(number, "llvm.arithmetic.fence", a * b)
        case "div", [a, b]:
            return a / b
        case "ge", [a, b]:
            return tirx.Select(a >= b, one, zero)
        case "gt", [a, b]:
            return tirx.Select(a > b, one, zero)
        case "select", [c, a, b]:
            return tirx.Select(c != zero, a, b)
        case _:
            return {"min": tirx.min, "max": tirx.max, "floor": tirx.floor, "ceil": tirx.ceil}[op](*args)


def _shifted(held: Any, x: Any, steps: int) -> Any:
    """A delay's buffer one step on: the oldest drops out, ``x [1, N, *shape]`` comes in."""
    from tvm import te, tirx

    def at(k: Any, *i: Any) -> Any:
        return tirx.if_then_else(k < steps - 1, held(tirx.min(k + 1, steps - 1), *i), x(0, *i))

    return te.compute(held.shape, at, name="shifted")


def _split(items: Sequence[Any], n: int) -> tuple[list[Any], list[Any]]:
    return list(items[:n]), list(items[n:])


# ---- statements


def _loop(variable: Any, extent: Any, body: Any) -> Any:
    from tvm import tirx

    zero = tirx.const(0, "int64" if _is_symbolic(extent) else "int32")
    return tirx.For(variable, zero, extent, tirx.ForKind.SERIAL, body)


def _is_symbolic(extent: Any) -> bool:
    return not isinstance(extent, int) and not hasattr(extent, "value")


def _copy(target: Any, source: Any, at: Any = None) -> Any:
    """``target[at, ...] = source[0, ...]``, or all of it."""
    from tvm import tirx

    loops = [(tirx.Var(f"i{k}", "int64" if _is_symbolic(d) else "int32"), d) for k, d in enumerate(source.shape)]
    index = [v for v, _ in loops]
    where = index if at is None else [at, *index[1:]]
    body = tirx.BufferStore(target, tirx.BufferLoad(source, index), where)
    if on_gpu():
        return bind.nest(loops, body)
    for variable, extent in reversed(loops):
        body = _loop(variable, extent, body)
    return body


def _prim_func(buffers: list[Any], scratch: list[Any], body: Any) -> Any:
    from tvm import s_tir, tirx

    root = s_tir.SBlock([], [], [], "root", body, alloc_buffers=scratch)
    function = tirx.PrimFunc(buffers, s_tir.SBlockRealize([], True, root))
    return function.with_attr("tirx.noalias", True)
