"""Norse 1.1: cells (one timestep a call), layers over time, their recurrent forms, and the containers around them.

Every neuron module is one of four classes with a step function from ``norse.torch.functional``, and that function says
what is imported. ``k = dt * tau_inv`` is rounded once, in float32, as the library rounds it:

=================================  =====================================================================  ==============
step                               equations                                                              imported as
=================================  =====================================================================  ==============
``lif_feed_forward_step``          ``j = i + x; h = v + k_mem * ((v_leak - v) + j); i = j - k_syn * j``   ``lif_euler``
``lif_step``                       the same with ``j = (i + W x) + R z``, z the spikes of one step before
``lif_box_feed_forward_step``      ``h = v + k_mem * ((x + v_leak) - v)``; hard or soft reset             ``lif_euler``
``iaf_feed_forward_step``          ``h = v + x``                                                          ``if``
``li_feed_forward_step``           as ``lif`` without spikes; emits v                                     ``li_euler``
``li_box_feed_forward_step``       ``v = v + k_mem * ((v_leak - v) + x)``                                 ``li_euler``
``lsnn_feed_forward_step``         ``h = v + k_mem * ((v_leak - v) + i); i = i - k_syn * i + x``          ``lsnn``
``lsnn_step``                      the same with ``(i - k_syn * i + W x) + R z``
=================================  =====================================================================  ==============

Spikes are ``[h > v_th]``, the reset is hard. A membrane starts at ``v_leak``, IAF's at ``v_reset``, LSNN's threshold at
``v_th``. Surrogates (``method``, ``alpha``) and the adjoint steps make no difference to the forward pass.

Modules return ``(values, state)`` and keep nothing: a call without a state starts afresh. A loop over time must hand
the state on; a network that takes ``state=None`` and returns the new one is code for one timestep, which
``timesteps=...`` runs. Of a state ``v`` can be recorded, and ``z`` of recurrent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import norse.torch as snn
import torch
from norse.torch.functional.adjoint.lif_adjoint import lif_adjoint_step
from norse.torch.functional.adjoint.lsnn_adjoint import lsnn_adjoint_step
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.functional.threshold import threshold
from norse.torch.module.conv import LConv2d
from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.parameters import parameter
from ldsnn_compiler.frontend.recurrence import looped, recurrent
from ldsnn_compiler.frontend.registry import Check, FrontEnd, ModuleImporter
from ldsnn_compiler.frontend.state import State
from ldsnn_compiler.frontend.traced import BATCH, SEQUENCE, STATIC, Traced
from ldsnn_compiler.ir.graph import Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef, neuron

SUPPORTED = ("1", "1")
"""Major and minor version whose equations are the ones above."""

Values = Callable[[str, Any], float | TensorRef]
"""``values(name, value)``: a number or tensor of the library as a neuron's parameter."""

# ---- neurons: the programs of the step functions


def _membrane(m: Any, values: Values) -> dict[str, float | TensorRef]:
    leak = values("v_leak", m.p.v_leak)
    return {"mem_rate": values("mem_rate", m.dt * m.p.tau_mem_inv), "v_leak": leak, "v_init": leak}


def _current(m: Any, values: Values) -> dict[str, float | TensorRef]:
    return {**_membrane(m, values), "syn_rate": values("syn_rate", m.dt * m.p.tau_syn_inv)}


def _firing(m: Any, values: Values) -> dict[str, float | TensorRef]:
    return {"threshold": values("v_th", m.p.v_th), "v_reset": values("v_reset", m.p.v_reset)}


def lif(m: Any, values: Values, feedback: bool) -> Neuron:
    """``LIF``, ``LIFCell`` and the recurrent ones."""
    settings = {**_current(m, values), **_firing(m, values)}
    return neuron("lif_euler", compare="gt", reset="hard", feedback=feedback, **settings)


def lif_box(m: Any, values: Values, feedback: bool) -> Neuron:
    """``LIFBoxCell``."""
    kind = "soft" if getattr(m.p, "reset_method", reset_value) is reset_subtract else "hard"
    firing = {k: v for k, v in _firing(m, values).items() if k == "threshold" or kind == "hard"}
    return neuron("lif_euler", compare="gt", reset=kind, synapse=False, **_membrane(m, values), **firing)


def iaf(m: Any, values: Values, feedback: bool) -> Neuron:
    """``IAF``, ``IAFCell``."""
    firing = _firing(m, values)
    return neuron("if", compare="gt", reset="hard", v_init=firing["v_reset"], **firing)


def li(m: Any, values: Values, feedback: bool) -> Neuron:
    """``LI``, ``LICell``, ``LILinearCell``."""
    return neuron("li_euler", **_current(m, values))


def li_box(m: Any, values: Values, feedback: bool) -> Neuron:
    """``LIBoxCell``."""
    return neuron("li_euler", synapse=False, **_membrane(m, values))


def lsnn(m: Any, values: Values, feedback: bool) -> Neuron:
    """``LSNN``, ``LSNNCell`` and the recurrent ones."""
    adaptation = {"adapt_rate": values("adapt_rate", m.dt * m.p.tau_adapt_inv), "adapt_gain": values("beta", m.p.beta)}
    return neuron("lsnn", feedback=feedback, **adaptation, **_current(m, values), **_firing(m, values))


STEPS: Mapping[Any, Callable[[Any, Values, bool], Neuron]] = {
    snn.lif_feed_forward_step: lif,
    snn.lif_feed_forward_adjoint_step: lif,
    snn.lif_step: lif,
    lif_adjoint_step: lif,
    snn.lif_box_feed_forward_step: lif_box,
    snn.iaf_feed_forward_step: iaf,
    snn.li_feed_forward_step: li,
    snn.li_box_feed_forward_step: li_box,
    snn.lsnn_feed_forward_step: lsnn,
    snn.lsnn_feed_forward_adjoint_step: lsnn,
    snn.lsnn_step: lsnn,
    lsnn_adjoint_step: lsnn,
}
"""Step function -> the neuron program of a module that runs it."""


def _kind(m: Any, ctx: Context, x: Traced, step: Any, feedback: bool = False) -> Neuron:
    """The neuron of a module whose step function is ``step``, for neurons shaped like ``x``."""
    return STEPS[step](m, lambda name, value: parameter(ctx, x, name, torch.as_tensor(value)), feedback)


# ---- checks


def check(m: Any, ctx: Context) -> None:
    """A step function that is known, a state that it starts itself, a surrogate that is a step."""
    check_version(ctx)
    if m.activation not in STEPS:
        name = getattr(m.activation, "__name__", type(m.activation).__name__)
        ctx.report(f"is {name}, whose equations are not known", attribute="activation", hint=_HINT)
    elif not m.state_fallback.__module__.startswith("norse."):
        ctx.report("starts from a state of its own", attribute="state_fallback", hint="use the library's initial state")
    elif hasattr(m.p, "method"):
        _check_firing(m.p, ctx)


def check_version(ctx: Context) -> None:
    """Refuse a Norse whose equations were not checked."""
    found = version("norse")
    if tuple(found.split(".")[:2]) != SUPPORTED:
        ctx.report(f"Norse {found} is not known to this front end", hint="use Norse 1.1")


def _check_firing(p: Any, ctx: Context) -> None:
    probe = torch.tensor([-2.0, -1e-6, 0.0, 1e-6, 2.0])
    try:
        fires = torch.equal(threshold(probe, p.method, p.alpha).detach(), (probe > 0).float())
    except ValueError:
        fires = False
    if not fires:
        hint = "use 'super', 'heaviside', 'triangle', 'tanh', 'circ' or 'heavi_erfc'"
        ctx.report(f"{p.method!r} does not fire like a step function", attribute="p.method", hint=hint)
    if getattr(p, "reset_method", reset_value) not in (reset_value, reset_subtract):
        ctx.report("is not known", attribute="p.reset_method", hint="use reset_value or reset_subtract")


# ---- modules


def cell(m: Any, ctx: Context, x: Any, state: Any = None) -> Any:
    """``SNNCell``: one timestep of neurons without weights."""
    x = _one_step(ctx, x, state)
    return _results(m, ctx, x, ctx.emit("neuron", x.value, neuron=_kind(m, ctx, x, m.activation)))


def layer(m: Any, ctx: Context, x: Any, state: Any = None) -> Any:
    """``SNN``: the same over ``[T, N, ...]``."""
    x = _all_steps(ctx, x, state)
    return _results(m, ctx, x, ctx.emit("neuron", x.value, neuron=_kind(m, ctx, x, m.activation)))


def recurrent_cell(m: Any, ctx: Context, x: Any, state: Any = None) -> Any:
    """``SNNRecurrentCell``: one timestep of neurons with weights for their input and for their own spikes."""
    return _fed_back(m, ctx, _one_step(ctx, x, state))


def recurrent_layer(m: Any, ctx: Context, x: Any, state: Any = None) -> Any:
    """``SNNRecurrent``: the same over ``[T, N, ...]``."""
    return _fed_back(m, ctx, _all_steps(ctx, x, state))


def linear_cell(m: Any, ctx: Context, x: Any, state: Any = None) -> Any:
    """``LILinearCell``."""
    x = _weighted(m, ctx, _one_step(ctx, x, state), "input_weights")
    return _results(m, ctx, x, ctx.emit("neuron", x.value, neuron=_kind(m, ctx, x, snn.li_feed_forward_step)))


def _fed_back(m: Any, ctx: Context, x: Traced) -> Any:
    x = _weighted(m, ctx, x, "input_weights")
    kind = _kind(m, ctx, x, m.activation, feedback=True)
    back = partial(_weighted, m, ctx, name="recurrent_weights")
    return _results(m, ctx, x, recurrent(ctx, x, kind, back, membrane=False))


def _weighted(m: Any, ctx: Context, x: Traced, name: str) -> Traced:
    return ctx.layer("linear", x, part=name, weight=ctx.tensor(name, getattr(m, name)))


def _one_step(ctx: Context, operand: Any, state: Any) -> Traced:
    _no_state(ctx, state)
    x: Traced = ctx.expect(operand, (BATCH,))
    if not x.stepping:
        hint = "say how many timesteps: timesteps=..., or use the layer over time, LIF for LIFCell"
        raise ctx.refuse("does one timestep a call, but is called with a value for the whole run", time=True, hint=hint)
    return x


def _all_steps(ctx: Context, operand: Any, state: Any) -> Traced:
    _no_state(ctx, state)
    return ctx.expect(operand, SEQUENCE)


def _no_state(ctx: Context, state: Any) -> None:
    if state is not None:
        hint = "start from None, and hand it on from step to step of a loop over time"
        raise ctx.refuse("takes its state as an argument that cannot be followed", attribute="state", hint=hint)


def _results(m: Any, ctx: Context, x: Traced, node: Node) -> tuple[Traced, State]:
    """``(values, state)``. A layer's state is that of the last timestep, or of all with ``record_states``."""
    ctx.once(m)
    path = ctx.site.path

    def shown(index: int) -> Traced:
        if index:
            ctx.graph.set_attrs(node, membrane=True)
        value = x.like(node.results[index])
        if x.stepping or getattr(m, "record_states", False):
            return value
        return x.like(ctx.graph.add("readout", [value.value], path=f"{path}.state", mode="last").result, STATIC)

    is_recurrent = isinstance(m, SNNRecurrentCell | SNNRecurrent)
    spikes = {"z": partial(shown, 0)} if is_recurrent else {}
    return x.like(node.result), State(v=partial(shown, 1), **spikes)


# ---- containers and layers around them


def lift(m: Any, ctx: Context, x: Any) -> Any:
    """``Lift``: its module sees one timestep of ``[T, N, ...]`` after another."""
    x, state = x if isinstance(x, tuple) else (x, None)
    if m.is_stateful:
        _no_state(ctx, state)
    result = ctx.call(m.lifted_module, _below(ctx, "lifted_module"), ctx.each_step(ctx.expect(x, SEQUENCE)))
    if not m.is_stateful:
        return _collected(ctx, result)
    return (_collected(ctx, result[0]), State()) if isinstance(result, tuple) else result


def _collected(ctx: Context, y: Any) -> Any:
    return ctx.collect(y) if isinstance(y, Traced) else y


def _below(ctx: Context, *names: str) -> str:
    return ".".join(name for name in (ctx.site.module, *names) if name)


def recurrent_sequential(m: Any, ctx: Context, x: Any, state: Any = None) -> Any:
    """``RecurrentSequential``: the input is added to an output of one timestep before."""
    x = _one_step(ctx, x, state)
    ctx.once(m)
    if not isinstance(m.output_modules, int):
        message = f"is {m.output_modules!r}, outputs that cannot be added to the input"
        raise ctx.refuse(message, attribute="output_modules", hint="feed back one output")
    modules = list(m.module)
    used = modules[: m.output_modules % len(modules) + 1]

    def body(before: Traced) -> Any:
        y: Any = x.like(ctx.emit("add", x.value, before.value, part="sum").result)
        for i, module in enumerate(used):
            y = ctx.call(module, _below(ctx, "module", str(i)), y)
            y = y[0] if isinstance(y, tuple) else y
        return y

    return looped(ctx, x, x.value.type.shape, body), State()


def lifted_conv(m: Any, ctx: Context, x: Any) -> Traced:
    """``LConv2d``: a 2d convolution of every timestep of ``[T, N, C, H, W]``, kept as a 3d one."""
    stride, padding, dilation = (tuple(v[:2]) for v in (m.stride, m.padding, m.dilation))
    weight = ctx.tensor("weight", m.weight.squeeze(-1))
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": m.groups}
    return ctx.layer("conv2d", ctx.expect(x, SEQUENCE, ndim=(3,)), weight=weight, **window)


def current_encoder(m: Any, ctx: Context, x: Any) -> Traced:
    """``ConstantCurrentLIFEncoder``: the static input drives a LIF neuron without synaptic current.

    It adds in another order than LIFBox and resets by subtracting what is above ``v_reset``: the same bits for 0.
    """
    for name in ("v_leak", "v_reset"):
        if bool(torch.as_tensor(getattr(m.p, name)).count_nonzero()):
            ctx.report("is not 0", attribute=f"p.{name}", hint="encode with a LIFBoxCell")
    x = ctx.expect(x, STATIC)
    if x.stepping:
        raise ctx.refuse("makes a sequence of its own in each timestep", time=True, hint="encode before the loop")
    ctx.steps(int(m.seq_length))
    held = x.like(ctx.hold(x.value), SEQUENCE)
    return ctx.layer("neuron", held, neuron=_kind(m, ctx, x, snn.lif_box_feed_forward_step))


_HINT = "use LIF, LIFBox, IAF, LI or LSNN"
_EXPONENTIAL = f"its membrane grows exponentially, and no neuron program has exp; {_HINT}"
_REFUSED: Mapping[str, tuple[str, ...]] = {
    _EXPONENTIAL: ("LIFEx", "LIFExCell", "LIFExRecurrent", "LIFExRecurrentCell", "LIFAdEx", "LIFAdExCell",
                   "LIFAdExRecurrent", "LIFAdExRecurrentCell", "LIFAdExRefracCell", "LIFAdExRefracRecurrentCell"),
    _HINT: ("LIFRefracCell", "LIFRefracRecurrent", "LIFRefracRecurrentCell", "LIFMCRecurrentCell", "CobaLIFCell",
            "LIFMCRefracRecurrentCell", "LIFCorrelation", "Izhikevich", "IzhikevichCell", "IzhikevichRecurrent",
            "IzhikevichRecurrentCell"),
    "encode outside the network, and pass in the spikes": (
        "PoissonEncoder", "PoissonEncoderStep", "SignedPoissonEncoder", "SignedPoissonEncoderStep", "PopulationEncoder",
        "SpikeLatencyEncoder", "SpikeLatencyLIFEncoder"),
    "regularise in training, and leave it out of the network to be compiled": ("RegularizationCell",),
    "decode outside the network": ("SpikesToTimesDecoder",),
    "use torch.nn.Conv2d with the kernels it makes": ("SpatialReceptiveField2d", "SampledSpatialReceptiveField2d"),
    "use an LI layer": ("ExpFilter", "TemporalReceptiveField"),
}  # fmt: skip
REFUSED: Mapping[Any, str] = {
    getattr(snn, name): hint for hint, names in _REFUSED.items() for name in names if hasattr(snn, name)
}

MODULES: Mapping[type, ModuleImporter] = {
    SNNCell: cell,
    SNN: layer,
    SNNRecurrentCell: recurrent_cell,
    SNNRecurrent: recurrent_layer,
    snn.LILinearCell: linear_cell,
    snn.Lift: lift,
    snn.RecurrentSequential: recurrent_sequential,
    LConv2d: lifted_conv,
    snn.ConstantCurrentLIFEncoder: current_encoder,
}
CHECKS: Mapping[type, Check] = dict.fromkeys((SNNCell, SNN, SNNRecurrentCell, SNNRecurrent), check)


def front_end() -> FrontEnd:
    """Norse's classes."""
    return FrontEnd("norse", modules=MODULES, checks=CHECKS, refused=REFUSED)
