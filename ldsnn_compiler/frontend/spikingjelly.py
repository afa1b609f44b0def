"""SpikingJelly 2: neurons, ``layer.*`` wrappers, containers, in single-step and multi-step mode.

Equations as in SpikingJelly's ``functional.neuron`` (``h`` membrane after charging, ``s = [h - v_threshold >= 0]``,
``r`` = ``v_reset`` or 0 if that is None)::

    IFNode             h = v + x
    LIFNode            h = v + (x - (v - r)) / tau          (decay_input)     h = v - (v - r) / tau + x    (else)
    ParametricLIFNode  the same with ``* sigmoid(w)`` in place of ``/ tau``
    hard reset         v = s * v_reset + (1 - s) * h        soft reset (v_reset None)   v = h - s * v_threshold

The membrane starts at ``r``; state left in the model by an earlier run is not imported. Surrogates, ``detach_reset``
and ``backend`` make no difference to the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from importlib.metadata import version
from typing import Any

import torch
from spikingjelly.activation_based import base, functional, layer
from spikingjelly.activation_based import neuron as sj
from torch import nn

from ldsnn_compiler.frontend import layers
from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.registry import Check, FrontEnd, FunctionImporter, ModuleImporter, ModuleRef
from ldsnn_compiler.frontend.traced import BATCH, FOLDED, SEQUENCE, Traced
from ldsnn_compiler.ir.neuron import Neuron, neuron

SUPPORTED = ("2",)
"""Major versions whose equations are the ones above; 0.0.0.0.14 rounds LIF differently."""


def check_version(ctx: Context) -> None:
    """Refuse a SpikingJelly whose semantics were not checked."""
    found = version("spikingjelly")
    if found.split(".")[0] not in SUPPORTED:
        ctx.report(
            f"SpikingJelly {found} is not known to this front end",
            hint="use SpikingJelly 2, whose equations differ in rounding",
        )


# ---- neurons


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


def _firing(m: Any) -> dict[str, Any]:
    """Threshold, reset and initial membrane (what the membrane is reset to between runs)."""
    common = {"threshold": float(m.v_threshold), "v_init": float(m.get_reset_value("v"))}
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
    return _run(m, ctx, x, neuron("lif", tau=float(m.tau), **_leak(m), **_firing(m)))


def import_parametric_lif(m: Any, ctx: Context, x: Any) -> Traced:
    """``ParametricLIFNode``: the leak is ``sigmoid(w)``, computed once in float32 as the library does."""
    rate = float(m.w.detach().to("cpu", torch.float32).sigmoid())
    return _run(m, ctx, x, neuron("lif", form="rate", k=rate, **_leak(m), **_firing(m)))


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
            i_init=float(m.get_reset_value("c")),
            **_firing(m),
        ),
    )


def import_izhikevich(m: Any, ctx: Context, x: Any) -> Traced:
    """``IzhikevichNode``."""
    settings = {name: float(getattr(m, name)) for name in ("tau", "a0", "v_rest", "tau_w", "a", "b")}
    return _run(
        m,
        ctx,
        x,
        neuron("izhikevich", v_c=float(m.v_c), w_init=float(m.get_reset_value("w")), **settings, **_firing(m)),
    )


# ---- stateless wrappers


def wrapped(importer: ModuleImporter) -> ModuleImporter:
    """The importer of a ``layer.*`` wrapper: in multi-step mode it sees ``[T, N, ...]`` step by step."""

    @wraps(importer)
    def run(m: Any, ctx: Context, x: Any) -> Traced:
        leads = (SEQUENCE,) if m.step_mode == "m" else ((BATCH,), (FOLDED,))
        return importer(m, ctx, x, leads=leads)  # type: ignore[no-any-return]

    return run


def import_linear(m: Any, ctx: Context, x: Any) -> Traced:
    """``layer.Linear`` acts on the last axis in either mode."""
    return layers.linear(m, ctx, x)


def import_flatten(m: Any, ctx: Context, x: Any) -> Traced:
    """``layer.Flatten``: its dimensions count from the batch axis in multi-step mode as well."""
    if m.step_mode == "s":
        return layers.flatten(m, ctx, x)  # type: ignore[no-any-return]
    x = ctx.expect(x, SEQUENCE)
    flat = layers.flatten(m, ctx, x.with_axes((BATCH, *x.axes[2:])))
    return flat.with_axes((*SEQUENCE, *flat.axes[1:]))  # type: ignore[no-any-return]


def import_voting(m: Any, ctx: Context, x: Any) -> Traced:
    """``VotingLayer``: the mean of each ``voting_size`` neighbouring outputs."""
    x = ctx.expect(x, *((SEQUENCE,) if m.step_mode == "m" else ((BATCH,), (FOLDED,))), ndim=(1,))
    size, (count,) = (m.voting_size,), x.value.type.shape
    lifted = ctx.layer("reshape", x, part="channel", shape=(1, count))
    pooled = ctx.layer("avg_pool", lifted, kernel=size, stride=size, padding=(0,))
    return ctx.layer("flatten", pooled, part="flatten")


# ---- containers


def _children(m: nn.Sequential, ctx: Context, x: Any) -> Any:
    base_path = ctx.site.module
    for name, child in m.named_children():
        x = ctx.call(child, f"{base_path}.{name}" if base_path else name, x)
    return x


def import_seq_to_ann(m: Any, ctx: Context, x: Any) -> Any:
    """``SeqToANNContainer``: its layers see ``[T*N, ...]``."""
    x = ctx.expect(x, SEQUENCE)
    return unfolded(_children(m, ctx, x.with_axes((FOLDED, *x.axes[2:]))))


def unfolded(y: Any) -> Any:
    """``[T*N, ...]`` as ``[T, N, ...]``."""
    return y.with_axes((*SEQUENCE, *y.axes[1:])) if isinstance(y, Traced) else y


def import_multi_step(m: Any, ctx: Context, x: Any) -> Any:
    """``MultiStepContainer``: its modules see one timestep after another."""
    y = _children(m, ctx, ctx.each_step(ctx.expect(x, SEQUENCE)))
    return ctx.collect(y) if isinstance(y, Traced) else y


def import_step_mode(m: Any, ctx: Context, x: Any) -> Any:
    """``StepModeContainer``."""
    if m.step_mode == "s":
        return _children(m, ctx, x)
    return (import_multi_step if m.stateful else import_seq_to_ann)(m, ctx, x)


# ---- functional


def import_seq_to_ann_forward(ctx: Context, x_seq: Any, stateless_module: Any) -> Any:
    """``functional.seq_to_ann_forward(x_seq, modules)``."""
    x = ctx.expect(x_seq, SEQUENCE)
    return unfolded(_chain(ctx, stateless_module, x.with_axes((FOLDED, *x.axes[2:]))))


def import_multi_step_forward(ctx: Context, x_seq: Any, single_step_module: Any) -> Any:
    """``functional.multi_step_forward(x_seq, modules)``."""
    y = _chain(ctx, single_step_module, ctx.each_step(ctx.expect(x_seq, SEQUENCE)))
    return ctx.collect(y) if isinstance(y, Traced) else y


def _chain(ctx: Context, modules: Any, x: Any) -> Any:
    for ref in modules if isinstance(modules, tuple | list) else (modules,):
        if not isinstance(ref, ModuleRef):
            raise ctx.refuse(f"is given {type(ref).__name__}, not a module", hint="pass modules of the model")
        x = ctx.call(ref.module, ref.path, x)
    return x


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


MODULES: Mapping[type, ModuleImporter] = {
    sj.IFNode: import_if,
    sj.HalfThresholdIFNode: import_if,
    sj.LIFNode: import_lif,
    sj.ParametricLIFNode: import_parametric_lif,
    sj.CUBALIFNode: import_cuba_lif,
    sj.IzhikevichNode: import_izhikevich,
    layer.Conv1d: wrapped(layers.conv),
    layer.Conv2d: wrapped(layers.conv),
    layer.BatchNorm1d: wrapped(layers.batch_norm),
    layer.BatchNorm2d: wrapped(layers.batch_norm),
    layer.AvgPool1d: wrapped(layers.avg_pool),
    layer.AvgPool2d: wrapped(layers.avg_pool),
    layer.MaxPool1d: wrapped(layers.max_pool),
    layer.MaxPool2d: wrapped(layers.max_pool),
    layer.AdaptiveAvgPool1d: wrapped(layers.adaptive_avg_pool),
    layer.AdaptiveAvgPool2d: wrapped(layers.adaptive_avg_pool),
    layer.Linear: import_linear,
    layer.Flatten: import_flatten,
    layer.Dropout: layers.dropout,
    layer.Dropout2d: layers.dropout,
    layer.VotingLayer: import_voting,
    layer.SeqToANNContainer: import_seq_to_ann,
    layer.MultiStepContainer: import_multi_step,
    layer.StepModeContainer: import_step_mode,
}


_NEURONS = (sj.IFNode, sj.HalfThresholdIFNode, sj.LIFNode, sj.ParametricLIFNode, sj.CUBALIFNode, sj.IzhikevichNode)
CHECKS: Mapping[type, Check] = {
    **dict.fromkeys(_NEURONS, check_neuron),
    layer.Conv1d: layers.check_conv,
    layer.Conv2d: layers.check_conv,
    layer.BatchNorm1d: layers.check_batch_norm,
    layer.BatchNorm2d: layers.check_batch_norm,
    layer.MaxPool1d: layers.check_max_pool,
    layer.MaxPool2d: layers.check_max_pool,
}

FUNCTIONS: Mapping[Callable[..., Any], FunctionImporter] = {
    functional.seq_to_ann_forward: import_seq_to_ann_forward,
    functional.multi_step_forward: import_multi_step_forward,
    membrane_after: import_membrane_after,
    membrane_sequence: import_membrane_sequence,
}

_PER_TIMESTEP = (
    "it has parameters for each timestep, so its number of timesteps cannot change; use LIFNode or ParametricLIFNode"
)
_NORM_PER_TIMESTEP = "it has parameters for each timestep, so its number of timesteps cannot change; use BatchNorm"
_RECURRENT = "feedback between modules cannot be imported yet; use a feed-forward network"
_REFUSED_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("GatedLIFNode", "PSN", "MaskedPSN", "SlidingPSN"), _PER_TIMESTEP),
    **{
        f"{kind}{d}d": _NORM_PER_TIMESTEP
        for kind in ("TemporalEffectiveBatchNorm", "BatchNormThroughTime")
        for d in (1, 2, 3)
    },
    **{f"NeuNorm{d}": "use BatchNorm" for d in ("", "2d")},
    **dict.fromkeys(("ElementWiseRecurrentContainer", "LinearRecurrentContainer"), _RECURRENT),
    **dict.fromkeys(
        ("TLastSeqToANNContainer", "TLastMultiStepContainer"),
        "put time first, [T, N, ...], and use the container without TLast",
    ),
    "LIAFNode": "it emits the membrane, not spikes; use LIFNode",
    "KLIFNode": "use LIFNode or ParametricLIFNode",
    "SynapseFilter": "use a CUBALIFNode, which filters its input current",
    "DropConnectLinear": "use layer.Linear",
    "Conv3d": "only one- and two-dimensional convolutions",
    "GroupNorm": "its statistics depend on the input; use BatchNorm",
    "MultiStepDropout": "use layer.Dropout",
}
REFUSED: Mapping[Any, str] = {
    getattr(space, name): hint for name, hint in _REFUSED_NAMES.items() for space in (sj, layer) if hasattr(space, name)
}

_METHODS_KEPT = (
    "forward",
    "single_step_forward",
    "multi_step_forward",
    "single_step_functional_forward",
    "multi_step_functional_forward",
)


def front_end() -> FrontEnd:
    """SpikingJelly's classes."""
    return FrontEnd(
        "spikingjelly",
        modules=MODULES,
        checks=CHECKS,
        functions=FUNCTIONS,
        refused=REFUSED,
        methods_kept=_METHODS_KEPT,
        leaves=(base.MemoryModule, base.StepModule),
        unknown="use IFNode, LIFNode or ParametricLIFNode and the ordinary layers",
        state={sj.BaseNode: {"v": membrane_after, "v_seq": membrane_sequence}},
        wrapped=((functional, "seq_to_ann_forward"), (functional, "multi_step_forward")),
    )
