"""The plain kernel of a neuron layer: its program over all timesteps, state in registers, one block of neurons at a time.

Every operation of the program is emitted as written; products are fenced so that no compiler contracts them with a
following addition into one rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.ir.program import Expr, fold
from ldsnn_compiler.ir.types import Signal
from ldsnn_compiler.targets.plan import Buffer

_WIDEST = 64
_BINARY = {"add": "+", "sub": "-", "div": "/"}
_COMPARE = {"ge": ">=", "gt": ">"}
_CALLS = {"min": "T.min", "max": "T.max", "floor": "T.floor", "ceil": "T.ceil"}


def emit(op: str, args: list[str]) -> str:
    """One operation of a neuron program as TVMScript over float32."""
    if op == "mul":
        return f'T.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", {args[0]} * {args[1]})'
    if op in _BINARY:
        return f"({args[0]} {_BINARY[op]} {args[1]})"
    if op in _COMPARE:
        return f"T.Select({args[0]} {_COMPARE[op]} {args[1]}, T.float32(1), T.float32(0))"
    if op == "select":
        return f"T.Select({args[0]} != T.float32(0), {args[1]}, {args[2]})"
    return f"{_CALLS[op]}({', '.join(args)})"


def literal(value: float) -> str:
    """A float32 literal."""
    return (
        f'T.float32("{value}")' if value != value or value in (float("inf"), -float("inf")) else f"T.float32({value!r})"
    )


@dataclass(frozen=True)
class NeuronScan:
    """What the kernel of a neuron node depends on; parameters are passed in, so equal layers share one function.

    ``neuron`` gives the program and the substeps, ``signal`` the type of what it emits.
    ``params`` maps each parameter to its buffer: ``(1,)``, per channel ``(C,)`` or per neuron ``shape``. With ``carried``
    the state comes in and goes out; otherwise it starts at its initial value.
    """

    neuron: Neuron
    signal: Signal
    steps: int
    shape: tuple[int, ...]
    params: tuple[tuple[str, Buffer], ...]
    membrane: bool
    carried: bool

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.neuron.program.state)

    def build(self, batch: int | None) -> Any:
        """The TIR PrimFunc: x, parameters, carried state; then values, membrane if asked, state if carried."""
        import tvm

        return tvm.script.from_source(self.text(batch))

    def text(self, batch: int | None) -> str:
        """The kernel as TVMScript."""
        size, lanes = prod(self.shape), self._lanes()
        n = "n" if batch is None else str(batch)
        matches, handles = self._signature(n)
        body = [
            f"for block in T.parallel({n} * {size // lanes}):",
            *_indent(self._allocations(lanes)),
            *_indent(self._initial(lanes)),
            f"    for t in T.serial({self.steps}):",
            *_indent(self._step(lanes, n), 2),
        ]
        if self.carried:
            body += _indent(
                [line for s in self.states for line in _lanes(lanes, f"f_{s}_out[{_AT}] = s_{s}[l]", lanes)]
            )
        head = [
            "@T.prim_func(s_tir=True)",
            f"def main({', '.join(handles)}):",
            '    T.func_attr({"tirx.noalias": True})',
        ]
        symbolic = ["    n = T.int64()"] if batch is None else []
        return (
            "\n".join([*head, *symbolic, *_indent(matches), *_indent(body)])
            .replace("BATCH", n)
            .replace("SIZE", str(size))
            + "\n"
        )

    def _lanes(self) -> int:
        """Neurons in one block: they share a channel if some parameter is per channel, and divide the layer evenly."""
        size, space = prod(self.shape), prod(self.shape[1:])
        per_channel = any(len(b.shape) == 1 and b.shape[0] != 1 for _, b in self.params)
        whole = space if per_channel and space > 1 else size
        return max(d for d in range(1, _WIDEST + 1) if whole % d == 0)

    def _signature(self, n: str) -> tuple[list[str], list[str]]:
        layer = ", ".join(map(str, self.shape))
        shapes: dict[str, tuple[str, str]] = {"x": (f"({self.steps}, {n}, {layer})", f"{self.steps} * {n} * SIZE")}
        for name, buffer in self.params:
            shapes[f"p_{name}"] = (f"({', '.join(map(str, buffer.shape))},)", str(prod(buffer.shape)))
        state = (f"({n}, {layer})", f"{n} * SIZE")
        if self.carried:
            shapes |= {f"{s}_in": state for s in self.states}
        shapes |= {name: shapes["x"] for name in ("out", *(("mem",) if self.membrane else ()))}
        if self.carried:
            shapes |= {f"{s}_out": state for s in self.states}
        matches = [f'{k} = T.match_buffer(h_{k}, {shape}, "float32")' for k, (shape, _) in shapes.items()]
        matches += [f'f_{k} = T.decl_buffer(({flat},), "float32", data={k}.data)' for k, (_, flat) in shapes.items()]
        return matches, [f"h_{k}: T.handle" for k in shapes]

    def _allocations(self, lanes: int) -> list[str]:
        names = [f"s_{s}" for s in self.states] + [f"a_{a}" for a in self._assigned()] + ["total"]
        return [f'{name} = T.sblock_alloc_buffer(({lanes},), "float32", scope="global")' for name in names]

    def _assigned(self) -> list[str]:
        return list(dict.fromkeys(a.target for a in self.neuron.program.steps if a.target not in self.states))

    def _initial(self, lanes: int) -> list[str]:
        if self.carried:
            return [line for s in self.states for line in _lanes(lanes, f"s_{s}[l] = f_{s}_in[{_AT}]", lanes)]
        inits = self.neuron.program.state
        return [line for s, init in inits for line in _lanes(lanes, f"s_{s}[l] = {self._emit(init, lanes)}", lanes)]

    def _step(self, lanes: int, n: str) -> list[str]:
        neuron, signal = self.neuron, self.signal
        emitted = "a_n" if signal.is_event else self._name(neuron.program.output)
        scale = signal.unit if signal.is_event else 1.0 / neuron.substeps
        lines = _lanes(lanes, "total[l] = T.float32(0)", lanes)
        lines.append(f"for sub in T.serial({neuron.substeps}):")
        for assign in neuron.program.steps:
            lines += _indent(
                _lanes(lanes, f"{self._name(assign.target)}[l] = {self._emit(assign.value, lanes)}", lanes)
            )
        lines += _indent(_lanes(lanes, f"total[l] = total[l] + {emitted}[l]", lanes))
        value = "total[l]" if scale == 1.0 else f"total[l] * {literal(scale)}"
        at = f"t * {n} * SIZE + {_AT}"
        lines += _lanes(lanes, f"f_out[{at}] = {value}", lanes)
        if self.membrane:
            lines += _lanes(lanes, f"f_mem[{at}] = {self._name(neuron.program.membrane)}[l]", lanes)
        return lines

    def _name(self, variable: str) -> str:
        return f"s_{variable}" if variable in self.states else f"a_{variable}"

    def _emit(self, expr: Expr, lanes: int) -> str:
        return fold(expr, literal, lambda name: self._read(name, lanes), emit)

    def _read(self, name: str, lanes: int) -> str:
        if name == "x":
            return f"f_x[t * BATCH * SIZE + {_AT}]".replace("_LANES_", str(lanes))
        params = dict(self.params)
        if name not in params:
            return f"{self._name(name)}[l]"
        return f"f_p_{name}[{self._param_index(params[name], lanes)}]"

    def _param_index(self, buffer: Buffer, lanes: int) -> str:
        size, space = prod(self.shape), prod(self.shape[1:])
        element = f"(block * {lanes} + l) % {size}" if lanes < size else "l"
        if buffer.shape == (1,):
            return "0"
        if len(buffer.shape) > 1 or space == 1:
            return f"block % {size // lanes} * {lanes} + l" if lanes < size else "l"
        return f"block % {size // lanes} // {space // lanes}" if lanes <= space and space % lanes == 0 else element


_AT = "block * _LANES_ + l"


def _lanes(lanes: int, statement: str, width: int) -> list[str]:
    loop = f"for l in T.vectorized({lanes}):" if lanes > 1 else "for l in T.serial(1):"
    return [loop, f"    {statement}".replace("_LANES_", str(width))]


def _indent(lines: list[str], depth: int = 1) -> list[str]:
    return ["    " * depth + line for line in lines]
