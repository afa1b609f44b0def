"""SpikingJelly's neurons, versions 2 and 0.0.0.0.14, in single-step and multi-step mode.

Equations as in version 2's ``functional.neuron`` (``h`` membrane after charging, ``s = [h - v_threshold >= 0]``,
``r`` = ``v_reset`` or 0 if that is None)::

    IFNode             h = v + x
    LIFNode            h = v + (x - (v - r)) / tau          (decay_input)     h = v - (v - r) / tau + x    (else)
    ParametricLIFNode  the same with ``* sigmoid(w)`` in place of ``/ tau``
    hard reset         v = s * v_reset + (1 - s) * h        soft reset (v_reset None)   v = h - s * v_threshold

Version 0.0.0.0.14 rounds otherwise where ``decay_input`` is off: ``h = v * (1 - 1 / tau) + x`` with a soft reset, and
for ``ParametricLIFNode``, as ``h = v * (1 - sigmoid(w)) + x``, also with ``v_reset = 0``. (Its ``LIFNode`` with
``v_reset = 0`` does so in training mode only; models are imported as in ``eval()``.) Its ``IzhikevichNode`` multiplies
by ``1 / tau_w`` where version 2 divides.

The membrane starts at ``r``; state left in the model by an earlier run is not imported. Surrogates, ``detach_reset``
and ``backend`` make no difference to the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import torch
from spikingjelly.activation_based import neuron as sj

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.registry import Check, FunctionImporter, ModuleImporter
from ldsnn_compiler.frontend.traced import BATCH, SEQUENCE, Traced
from ldsnn_compiler.ir.neuron import Neuron, neuron

OLD: Final = "0.0.0.0.14"
"""The last release before version 1, still widespread."""


@cache
def installed() -> str:
    """The version of SpikingJelly."""
    return version("spikingjelly")


def is_old() -> bool:
    """Whether the equations are those of version 0.0.0.0.14."""
    return installed() == OLD


def check_version(ctx: Context) -> None:
    """Refuse a SpikingJelly whose semantics were not checked."""
    if not is_old() and installed().split(".")[0] != "2":
        ctx.report(
            f"SpikingJelly {installed()} is not known to this front end",
            hint=f"use SpikingJelly 2 or {OLD}, whose equations differ in rounding",
        )


def check_neuron(m: Any, ctx: Context) -> None:
    """What the equations above leave out: parameters and initial states per neuron, other firing, other precisions."""
    check_version(ctx)
    for name in ("v_threshold", "v_reset", "tau"):
        value = getattr(m, name, None)
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            ctx.report(
                f"is a tensor of shape {tuple(value.shape)}", attribute=name, hint="use one number for the layer"
            )
    for name, value in m._memories_rv.items():
        if not isinstance(value, int | float):
            ctx.report("is reset to a tensor", attribute=name, hint="use one number for the layer")
    if getattr(m, "_neuron_precision", None) is not None:
        ctx.report("has a precision of its own", attribute="precision", hint="import the model in float32")
    if not _is_heaviside(m.surrogate_function):
        hint = "its forward must be 1 for x >= 0, else 0: set_spiking_mode(True)"
        ctx.report("does not fire like a step function", attribute="surrogate_function", hint=hint)
    if any(isinstance(v, torch.Tensor) for v in m._memories.values()):
        ctx.note("holds the state of an earlier run, imported as after functional.reset_net(model)", attribute="v")


def _is_heaviside(fire: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether a firing function gives 1 for x >= 0 and 0 below, tried around zero and far from it."""
    x = torch.tensor([-100.0, -1.0, -0.25, -1e-6, 0.0, 1e-6, 0.25, 1.0, 100.0])
    with torch.no_grad():
        return torch.equal(fire(x).to(x.dtype), (x >= 0).to(x.dtype))


def _run(m: Any, ctx: Context, x: Any, model: Neuron) -> Traced:
    """Add the neuron node; the operand's layout must be the one its step mode works on."""
    x = ctx.expect(x, SEQUENCE) if m.step_mode == "m" else ctx.expect(x, (BATCH,))
    if m.step_mode == "s" and not x.stepping:
        raise ctx.refuse(
            "is in single-step mode outside a time loop",
            attribute="step_mode",
            time=True,
            hint="trace with timesteps=..., or functional.set_step_mode(model, 'm')",
        )
    ctx.once(m)
    return ctx.layer("neuron", x, neuron=model)


def _start(m: Any, memory: str) -> float:
    """What a state variable is between runs."""
    return float(m._memories_rv[memory])


def _firing(m: Any) -> dict[str, Any]:
    """Threshold, reset and initial membrane (what the membrane is reset to between runs)."""
    common = {"threshold": float(m.v_threshold), "v_init": _start(m, "v")}
    if m.v_reset is None:
        return {**common, "reset": "soft"}
    return {**common, "reset": "hard", "v_reset": float(m.v_reset)}


def import_if(m: Any, ctx: Context, x: Any) -> Traced:
    """``IFNode``, and ``HalfThresholdIFNode``, whose membrane starts at half the threshold."""
    return _run(m, ctx, x, neuron("if", **_firing(m)))


def _leak(m: Any) -> dict[str, Any]:
    return {"decay_input": bool(m.decay_input), "v_rest": 0.0 if m.v_reset is None else float(m.v_reset)}


def import_lif(m: Any, ctx: Context, x: Any) -> Traced:
    """``LIFNode``."""
    if is_old() and not m.decay_input:
        ctx.as_in_eval(m)
        if m.v_reset is None:
            return _run(m, ctx, x, neuron("lif", form="fused", decay=1.0 - 1.0 / m.tau, **_firing(m)))
    return _run(m, ctx, x, neuron("lif", tau=float(m.tau), **_leak(m), **_firing(m)))


def import_parametric_lif(m: Any, ctx: Context, x: Any) -> Traced:
    """``ParametricLIFNode``: the leak is ``sigmoid(w)``, computed once in float32 as the library does."""
    rate = m.w.detach().to("cpu", torch.float32).sigmoid()
    if is_old() and not m.decay_input and not m.v_reset:
        return _run(m, ctx, x, neuron("lif", form="fused", decay=float(1.0 - rate), **_firing(m)))
    return _run(m, ctx, x, neuron("lif", form="rate", k=float(rate), **_leak(m), **_firing(m)))


def import_cuba_lif(m: Any, ctx: Context, x: Any) -> Traced:
    """``CUBALIFNode``: ``c = c * c_decay + x; h = v * v_decay + c``."""
    return _run(
        m,
        ctx,
        x,
        neuron(
            "cuba_lif",
            alpha=float(m.c_decay),
            beta=float(m.v_decay),
            i_init=_start(m, "c"),
            **_firing(m),
        ),
    )


def import_izhikevich(m: Any, ctx: Context, x: Any) -> Traced:
    """``IzhikevichNode``."""
    settings = {name: float(getattr(m, name)) for name in ("tau", "a0", "v_rest", "v_c", "a", "b")}
    slow = {"by_rate": True, "k_w": 1.0 / m.tau_w} if is_old() else {"tau_w": float(m.tau_w)}
    return _run(m, ctx, x, neuron("izhikevich", w_init=_start(m, "w"), **slow, **settings, **_firing(m)))


# ---- state read by the model


def membrane_after(result: torch.Tensor) -> torch.Tensor:
    """Marker: ``node.v`` after a call, ``[N, ...]``."""
    return result


def membrane_sequence(result: torch.Tensor) -> torch.Tensor:
    """Marker: ``node.v_seq`` after a multi-step call, ``[T, N, ...]``."""
    return result


def import_membrane_sequence(ctx: Context, spikes: Any) -> Traced:
    """The neuron's second result, the membrane after the reset."""
    x = ctx.expect(spikes, SEQUENCE, (BATCH,))
    node = x.value.node
    if node.op.name != "neuron":
        raise ctx.refuse(f"reads the membrane of %{node.name}, which has none")
    ctx.graph.set_attrs(node, membrane=True)
    return Traced(node.results[1], x.axes, x.stepping)


def import_membrane_after(ctx: Context, spikes: Any) -> Traced:
    """The membrane of the present step, or of the last one after a multi-step call."""
    membrane = import_membrane_sequence(ctx, spikes)
    if membrane.stepping:
        return membrane
    last = ctx.emit("readout", membrane.value, mode="last").result
    return membrane.like(last, (BATCH,))


_NAMED: Mapping[str, ModuleImporter] = {
    "IFNode": import_if,
    "HalfThresholdIFNode": import_if,
    "LIFNode": import_lif,
    "ParametricLIFNode": import_parametric_lif,
    "CUBALIFNode": import_cuba_lif,
    "IzhikevichNode": import_izhikevich,
}
NEURONS: Mapping[type, ModuleImporter] = {getattr(sj, k): f for k, f in _NAMED.items() if hasattr(sj, k)}
CHECKS: Mapping[type, Check] = dict.fromkeys(NEURONS, check_neuron)
MARKERS: Mapping[Callable[..., Any], FunctionImporter] = {
    membrane_after: import_membrane_after,
    membrane_sequence: import_membrane_sequence,
}
STATE: Mapping[type, Mapping[str, Callable[..., Any]]] = {
    sj.BaseNode: {"v": membrane_after, "v_seq": membrane_sequence}
}
