"""The neuron program evaluated with PyTorch, one step after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ldsnn_compiler.interp.surrogate import heaviside, rounded
from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.ir.program import Expr, fold

_TORCH: Mapping[str, Callable[..., torch.Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "ge": lambda a, b: heaviside(a - b),
    "gt": lambda a, b: heaviside(a - b, True),
    "min": torch.minimum,
    "max": torch.maximum,
    "floor": lambda a: rounded(a, torch.floor(a)),
    "ceil": lambda a: rounded(a, torch.ceil(a)),
    "select": lambda c, a, b: torch.where(c != 0, a, b),
}

Env = dict[str, torch.Tensor]


def evaluate(expr: Expr, env: Env) -> torch.Tensor:
    """One expression in float32, every operation rounded where it is written."""
    like = env["x"]
    return fold(expr, like.new_tensor, env.__getitem__, lambda op, args: _TORCH[op](*args))


def initial_state(neuron: Neuron, params: Mapping[str, torch.Tensor], like: torch.Tensor) -> Env:
    """State before the first step for data shaped like ``like`` ``[N, *shape]``."""
    env = {"x": like, **params}
    return {name: evaluate(init, env).expand_as(like).clone() for name, init in neuron.program.state}


def step(neuron: Neuron, params: Mapping[str, torch.Tensor], x: torch.Tensor, state: Env) -> Env:
    """Run the program once; gives every name assigned, the new state among them."""
    env = {**params, **state, "x": x}
    for assign in neuron.program.steps:
        env[assign.target] = evaluate(assign.value, env)
    return env


def scan(
    neuron: Neuron, params: Mapping[str, torch.Tensor], x: torch.Tensor, state: Env
) -> tuple[torch.Tensor, torch.Tensor]:
    """Emitted values and membrane ``[T, N, *shape]``; ``state`` is read and updated.

    Emits ``unit * count`` for events, with the count summed over the substeps; else the mean of the program's output.
    """
    program, signal = neuron.program, neuron.signal
    if not state:
        state.update(initial_state(neuron, params, x[0]))
    values, membranes = [], []
    for current in x:
        total: torch.Tensor | None = None
        for _ in range(neuron.substeps):
            env = step(neuron, params, current, state)
            state.update({name: env[name].expand_as(current) for name in state})
            part = env["n"] if signal.is_event else env[program.output]
            total = part if total is None else total + part
        assert total is not None
        scale = signal.unit if signal.is_event else 1.0 / neuron.substeps
        values.append(total if scale == 1.0 else total * x.new_tensor(scale))
        membranes.append(state[program.membrane])
    return torch.stack(values), torch.stack(membranes)
