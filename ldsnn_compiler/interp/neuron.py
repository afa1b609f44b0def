"""The neuron program evaluated with PyTorch, one step after another.

Where gradients are asked for, :func:`step` walks the program's expressions. Elsewhere the program is compiled once to
straight-line code over slots (:mod:`ldsnn_compiler.interp.straight`): the same operations in the same order, so the
same bits, in memory that is reused from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ldsnn_compiler.interp import straight
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
Params = Mapping[str, torch.Tensor]


def evaluate(expr: Expr, env: Env) -> torch.Tensor:
    """One expression in float32, every operation rounded where it is written."""
    like = env["x"]
    return fold(expr, like.new_tensor, env.__getitem__, lambda op, args: _TORCH[op](*args))


def initial_state(neuron: Neuron, params: Params, like: torch.Tensor) -> Env:
    """State before the first step for data shaped like ``like`` ``[N, *shape]``."""
    env = {"x": like, **params}
    return {name: evaluate(init, env).expand_as(like).clone() for name, init in neuron.program.state}


def step(neuron: Neuron, params: Params, inputs: Env, state: Env) -> Env:
    """Run the program once; gives every name assigned, the new state among them."""
    env = {**params, **state, **inputs}
    for assign in neuron.program.steps:
        env[assign.target] = evaluate(assign.value, env)
    return env


def scan(
    neuron: Neuron,
    params: Params,
    x: torch.Tensor,
    state: Env,
    feedback: torch.Tensor | None = None,
    *,
    membrane: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Emitted values and membrane ``[T, N, *shape]``; ``state`` is read and updated. ``feedback`` is shaped like ``x``.

    Emits ``unit * count`` for events, with the count summed over the substeps; else the mean of the program's output.
    Without ``membrane`` the second result may be empty.
    """
    if not state:
        state.update(initial_state(neuron, params, x[0]))
    inputs = {"x": x} if feedback is None else {"x": x, "feedback": feedback}
    read = (*inputs.values(), *params.values(), *state.values())
    tracked = torch.is_grad_enabled() and any(t.requires_grad for t in read)
    values, membranes = (_followed if tracked else _plain)(neuron, params, inputs, state, membrane)
    scale = neuron.emitted_unit
    return values if scale == 1.0 else values * x.new_tensor(scale), membranes


def _emitted(neuron: Neuron) -> str:
    """The variable that is summed over the substeps."""
    return "n" if neuron.signal.is_event else neuron.program.output


def _followed(
    neuron: Neuron, params: Params, inputs: Env, state: Env, membrane: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """With gradients: sums over the substeps, and membranes."""
    values, membranes = [], []
    for t, current in enumerate(inputs["x"]):
        now = {name: data[t] for name, data in inputs.items()}
        total: torch.Tensor | None = None
        for _ in range(neuron.substeps):
            env = step(neuron, params, now, state)
            state.update({name: env[name].expand_as(current) for name in state})
            part = env[_emitted(neuron)]
            total = part if total is None else total + part
        assert total is not None
        values.append(total)
        membranes.append(state[neuron.program.membrane])
    return torch.stack(values), torch.stack(membranes)


def _plain(
    neuron: Neuron, params: Params, inputs: Env, state: Env, membrane: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Without gradients: the same numbers."""
    kept = neuron.program.membrane if membrane else None
    with torch.no_grad():
        return straight.scan(neuron.program, _emitted(neuron), neuron.substeps, params, inputs, state, kept)
