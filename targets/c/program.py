"""From plans to what the C source says: calls of kernels on addresses in the caller's context, his data, the weights.

An entry of a plan becomes a list of calls. Buffers between kernels, and the scratch memory of kernels, live in the
context's arena for as long as they are needed (:mod:`.memory`); state lives in the context for good. A kernel writes
the state after a step beside the state before it, which is copied over it as soon as nobody reads it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from ldsnn_compiler.targets.c.memory import Arena, Lifetime, aligned, arena
from ldsnn_compiler.targets.plan import Buffer, Kernel, Plan, State

Symbol = Callable[[Kernel], str]


@dataclass(frozen=True)
class Call:
    """A kernel's call: C expressions of its arguments, the first ``reads`` of which it only reads; names of the graph
    nodes that it computes.
    """

    symbol: str
    arguments: tuple[str, ...]
    reads: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Copy:
    """The state after a step takes the place of the state before it."""

    target: str
    source: str
    size: int


@dataclass(frozen=True)
class Entry:
    """``run`` or ``step``: statements in order, and the arena that they work in.

    ``unshared`` is the bytes that the arena would have if no two buffers shared any.
    """

    statements: tuple[Call | Copy, ...]
    arena: int
    unshared: int


def size_of(buffer: Buffer, batch: int) -> int:
    """Bytes of a buffer."""
    numbers: int = prod(buffer.sized(batch))
    return numbers * np.dtype(buffer.dtype).itemsize


class Assembly:
    """Assembles one entry.

    ``known`` gives the C expression of every buffer that has an address before the first call: inputs, outputs,
    weights, state before the step, the counter. ``scratch`` gives bytes of a function's scratch pointers.
    """

    def __init__(
        self, plan: Plan, batch: int, symbol: Symbol, scratch: Mapping[str, tuple[int, ...]], known: Mapping[str, str]
    ) -> None:
        self.plan, self.batch, self.symbol, self.scratch, self.known = plan, batch, symbol, scratch, known

    def entry(self) -> Entry:
        """The calls, with addresses."""
        lifetimes = self._lifetimes()
        planned = arena(lifetimes)
        statements: list[Call | Copy] = []
        for i, kernel in enumerate(self.plan.kernels):
            statements.append(self._call(i, kernel, planned))
            statements += [self._copy(s, planned) for s in self.plan.states if self._copied_behind(s) == i]
        return Entry(tuple(statements), planned.size, sum(aligned(b.size) for b in lifetimes))

    def _call(self, number: int, kernel: Kernel, planned: Arena) -> Call:
        symbol = self.symbol(kernel)
        names = [*kernel.operands, *kernel.results, *_scratch_names(number, self.scratch[symbol])]
        return Call(symbol, tuple(self._address(name, planned) for name in names), len(kernel.operands), kernel.nodes)

    def _address(self, name: str, planned: Arena) -> str:
        return self.known[name] if name in self.known else f"context->arena + {planned.offsets[name]}"

    def _copy(self, state: State, planned: Arena) -> Copy:
        source = self._address(state.after, planned)
        return Copy(self.known[state.before], source, size_of(self.plan.buffers[state.before], self.batch))

    def _copied_behind(self, state: State) -> int:
        """The kernel behind which the state before the step is not read any more and that after it is there."""
        return max(self._uses(state.before)[-1], self._uses(state.after)[-1])

    def _uses(self, name: str) -> list[int]:
        return [i for i, k in enumerate(self.plan.kernels) if name in k.operands or name in k.results]

    def _lifetimes(self) -> list[Lifetime]:
        kernels = self.plan.kernels
        used = {name for k in kernels for name in (*k.operands, *k.results)} - self.known.keys()
        copied = {s.after: self._copied_behind(s) for s in self.plan.states}
        found = []
        for name in sorted(used):
            uses = self._uses(name)
            last = max(uses[-1], copied.get(name, 0))
            found.append(Lifetime(name, size_of(self.plan.buffers[name], self.batch), uses[0], last))
        for i, kernel in enumerate(kernels):
            sizes = self.scratch[self.symbol(kernel)]
            found += [Lifetime(n, s, i, i) for n, s in zip(_scratch_names(i, sizes), sizes, strict=True)]
        return found


def _scratch_names(kernel: int, sizes: tuple[int, ...]) -> list[str]:
    return [f"scratch {kernel}.{j}" for j in range(len(sizes))]
