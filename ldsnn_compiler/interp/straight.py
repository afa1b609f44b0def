"""Straight-line code for a neuron program: no gradients, no memory allocated between steps, results bit for bit those
of the program as written.

The program becomes instructions over *slots*. Equal operations on equal slots are one instruction; what nothing reads
is left out; what does not depend on the inputs or the state is computed once, before the first step. Samples are run in
groups small enough for a step's values to stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import torch

from ldsnn_compiler.ir.program import Program, fold

NUMBERS = 1 << 15
"""Values of one step that are run together: a few buffers of them stay in the second-level cache, and PyTorch does not
split operations of this size over threads, which on a busy machine wait for each other after every one."""

Env = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Instruction:
    """``slot = op(*args)``, arguments being slots."""

    slot: int
    op: str
    args: tuple[int, ...]


@dataclass
class Code:
    """A program over slots. ``given`` are the slots of inputs, state and parameters before a step, ``after`` those of
    all names after it; ``constants`` values by slot."""

    given: dict[str, int] = field(default_factory=dict)
    constants: dict[int, float] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    once: list[Instruction] = field(default_factory=list)
    each: list[Instruction] = field(default_factory=list)
    slots: int = 0

    def new(self) -> int:
        """A fresh slot."""
        self.slots += 1
        return self.slots - 1


@cache
def compiled(program: Program, emitted: str) -> Code:
    """The code of a program of which the state and ``emitted`` are wanted."""
    code, made = Code(), dict[tuple[str, tuple[int, ...]], Instruction]()
    code.given = {name: code.new() for name in (*program.inputs, *(k for k, _ in program.state), *program.params)}
    known, numbers = dict(code.given), dict[float, int]()

    def constant(value: float) -> int:
        if value not in numbers:
            numbers[value] = code.new()
        return numbers[value]

    def apply(op: str, args: list[int]) -> int:
        key = (op, tuple(args))
        if key not in made:
            made[key] = Instruction(code.new(), *key)
        return made[key].slot

    for assign in program.steps:
        known[assign.target] = fold(assign.value, constant, known.__getitem__, apply)
    wanted = [*(known[name] for name, _ in program.state), known[emitted]]
    changing = {code.given[name] for name in (*program.inputs, *(k for k, _ in program.state))}
    for instruction in _needed(list(made.values()), set(wanted)):
        if changing.isdisjoint(instruction.args):
            code.once.append(instruction)
        else:
            code.each.append(instruction)
            changing.add(instruction.slot)
    code.after, code.constants = known, {slot: value for value, slot in numbers.items()}
    return code


def _needed(instructions: list[Instruction], wanted: set[int]) -> list[Instruction]:
    """Those that ``wanted`` slots depend on, in order."""
    kept = []
    for instruction in reversed(instructions):
        if instruction.slot in wanted:
            kept.append(instruction)
            wanted |= set(instruction.args)
    return kept[::-1]


def _select(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    torch.where(c != 0, a, b, out=out)


_INTO: Mapping[str, Callable[..., object]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "ge": torch.ge,
    "gt": torch.gt,
    "min": torch.minimum,
    "max": torch.maximum,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "select": _select,
}


def scan(
    program: Program,
    emitted: str,
    substeps: int,
    params: Mapping[str, torch.Tensor],
    inputs: Env,
    state: Env,
    membrane: str | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the program ``substeps`` times on each step of the inputs ``[T, N, *shape]``.

    Gives ``emitted`` summed over the substeps and the state variable ``membrane`` after each step, empty for None;
    ``state`` gets new tensors.
    """
    code, x = compiled(program, emitted), inputs["x"]
    values = torch.empty(x.shape, dtype=x.dtype)
    membranes = torch.empty(x.shape if membrane else (0, *x.shape[1:]), dtype=x.dtype)
    state.update(
        {name: value.expand_as(x[0]).clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    )
    fixed = _fixed(code, params, x)
    size = max(1, NUMBERS // max(1, x[0, :1].numel()))
    for low in range(0, x.shape[1], size):
        part = slice(low, low + size)
        run = _Run(code, emitted, fixed, {name: value[part] for name, value in state.items()}, x[0, part])
        for t in range(x.shape[0]):
            run.step({name: data[t, part] for name, data in inputs.items()}, values[t, part], substeps)
            if membrane:
                membranes[t, part] = run.slots[code.given[membrane]]
        for name, value in state.items():
            value[part] = run.slots[code.given[name]]
    return values, membranes


def _fixed(code: Code, params: Mapping[str, torch.Tensor], x: torch.Tensor) -> dict[int, torch.Tensor]:
    """Slots that no step changes."""
    slots = {code.given[name]: value for name, value in params.items() if name in code.given}
    slots |= {slot: x.new_tensor(value) for slot, value in code.constants.items()}
    for instruction in code.once:
        args = [slots[a] for a in instruction.args]
        out = x.new_empty(torch.broadcast_shapes(*(a.shape for a in args)))
        _INTO[instruction.op](*args, out=out)
        slots[instruction.slot] = out
    return slots


class _Run:
    """The slots of one group of samples. A new state value is exchanged with the old one, not copied, where an
    instruction of its own makes it."""

    def __init__(
        self, code: Code, emitted: str, fixed: dict[int, torch.Tensor], state: Env, like: torch.Tensor
    ) -> None:
        self.code, self.slots = code, dict(fixed)
        self.slots |= {code.given[name]: value.clone() for name, value in state.items()}
        self.slots |= {i.slot: torch.empty(like.shape, dtype=like.dtype) for i in code.each}
        self._emitted = code.after[emitted]
        pairs = [(code.given[name], code.after[name]) for name in state]
        made, results = {i.slot for i in code.each}, [after for _, after in pairs]
        self._swapped = [(old, new) for old, new in pairs if new in made and results.count(new) == 1]
        self._copied = [(old, new) for old, new in pairs if old != new and (old, new) not in self._swapped]
        self._direct = self._emitted in made and self._emitted not in results
        self._calls = [(_INTO[i.op], i.args, i.slot) for i in code.each]

    def step(self, inputs: Env, out: torch.Tensor, substeps: int) -> None:
        """One timestep; ``out`` gets the sum of what is emitted."""
        slots, direct = self.slots, self._direct and substeps == 1
        slots.update({self.code.given[name]: value for name, value in inputs.items()})
        if direct:
            slots[self._emitted] = out
        for n in range(substeps):
            for function, args, slot in self._calls:
                function(*[slots[a] for a in args], out=slots[slot])
            if not direct:
                (out.add_ if n else out.copy_)(slots[self._emitted])
            self._advance()

    def _advance(self) -> None:
        slots = self.slots
        fresh = [(old, slots[new].clone()) for old, new in self._copied]
        for old, new in self._swapped:
            slots[old], slots[new] = slots[new], slots[old]
        for old, value in fresh:
            slots[old].copy_(value)
