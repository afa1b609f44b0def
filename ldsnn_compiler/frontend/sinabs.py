"""Sinabs 3: ``IAF``, ``LIF``, ``ALIF``, ``ExpLeak`` with their Squeeze and Recurrent forms, and its layers.

Read from Sinabs 3.1.3's source. One step is synapse, membrane, fire, reset, clamp; ``a = exp(-1/tau_mem)``:

=========  ===========================================================================  =========================
class      step                                                                         imported as
=========  ===========================================================================  =========================
IAF        ``v = v + x``                                                                ``if``
LIF        ``v = a*v + x``  (``norm_input=False``)                                      ``leaky``
LIF        ``v = a*v + (1-a)*x``                                                        ``lif_gain``
tau_syn    ``i = exp(-1/tau_syn)*(i + x)``, then as above with i for x                  ``lif_gain(synapse)``
ALIF       fires at ``b0 + adapt_scale*b``; ``b = rho*b + (1-rho)*s`` after the reset   ``alif_filtered``
ExpLeak    ``v = a*v + x``, emitted before the clamp                                    ``li``
Recurrent  ``x`` is the input plus ``rec_connect`` of the last step's spikes, 0 at first  any, through ``delay``
=========  ===========================================================================  =========================

=======================  ==================================================  ==========================================
``SingleSpike``          ``s = [v - th >= 0]``                               ``max_count=1``
``MultiSpike``           ``s = [v > 0] * trunc(v / th)``                     ``max_count=0``; ``MaxSpike(k)``: k
``MembraneSubtract(c)``  ``v = v - s*c``, by default ``c = th``              soft, ``own_reset_charge="uncounted"``
``MembraneReset(r)``     ``v = v*[s == 0] + r``: r is added to every neuron  hard for r = 0, else ``reset="offset"``
``min_v_mem``            ``v = relu(v - m) + m``                             ``floor="shifted"``
=======================  ==================================================  ==========================================

Neurons take ``[N, T, ...]``, the Squeeze forms ``[N*T, ...]``, whose number of timesteps follows from ``num_timesteps``
or from ``batch_size`` and the example; it is then fixed, the batch is not. ``sinabs.from_model(...)`` is imported
whole or by its ``spiking_model``. A model is imported with its state as after ``reset_states()``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import sinabs.layers as sl
import torch
from sinabs.activation import MaxSpike, MembraneReset, MembraneSubtract, MultiSpike, SingleSpike
from sinabs.layers.alif import ALIFSqueeze

from ldsnn_compiler.frontend import functions, layers, reshaping, timing
from ldsnn_compiler.frontend.context import Context, Refused
from ldsnn_compiler.frontend.parameters import parameter
from ldsnn_compiler.frontend.recurrence import looped
from ldsnn_compiler.frontend.registry import FrontEnd, ModuleImporter
from ldsnn_compiler.frontend.traced import BATCH, BATCH_FIRST, BATCH_FOLDED, SEQUENCE, Traced
from ldsnn_compiler.ir.graph import Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef, neuron

Number = float | TensorRef
_FIRST = "the batch comes first, time second: [N, T, ...]; for [N*T, ...] there are the Squeeze forms"
_FOLDED = "the Squeeze forms take [N*T, ...], each sample's timesteps together; for [N, T, ...] there are the others"


# ---- checks


def check_neuron(m: Any, ctx: Context) -> None:
    """Firing and resets that no table names, thresholds that give no count, and what is left out."""
    known = m.spike_fn in (SingleSpike, MultiSpike) or type(m.spike_fn) is MaxSpike
    if not known:
        ctx.report(f"is {_called(m.spike_fn)}", attribute="spike_fn", hint="use SingleSpike, MultiSpike or MaxSpike")
    elif m.spike_fn is not SingleSpike and not _positive(m):
        ctx.report(
            "may be zero or less, and spikes are counted in thresholds",
            attribute="spike_threshold",
            hint="use a positive threshold, or SingleSpike",
        )
    if type(m.spike_fn) is MaxSpike and m.spike_fn.max_num_spikes_per_bin == 0:
        ctx.report("lets no neuron fire", attribute="spike_fn", hint="leave the layer out")
    if type(m.reset_fn) not in (MembraneSubtract, MembraneReset):
        ctx.report(f"is {_called(m.reset_fn)}", attribute="reset_fn", hint="use MembraneSubtract or MembraneReset")
    check_state(m, ctx)


def check_state(m: Any, ctx: Context) -> None:
    """Notes on state that is left in the model, or recorded."""
    if any(bool(m._buffers[name].any()) for name in ("v_mem", "i_syn", "b") if m._buffers.get(name) is not None):
        ctx.note("holds the state of an earlier run, imported as after reset_states()", attribute="v_mem")
    if m.record_states:
        ctx.note("is True, nothing is recorded", attribute="record_states", hint="observe the interpreter")


def _called(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _positive(m: Any) -> bool:
    threshold = torch.as_tensor(m.b0 if isinstance(m, sl.ALIF) else m.spike_threshold)
    rising = not isinstance(m, sl.ALIF) or bool((torch.as_tensor(m.adapt_scale) >= 0).all())
    return rising and bool((threshold > 0).all())


# ---- neurons


def _firing(m: Any, ctx: Context, x: Traced) -> dict[str, Any]:
    """Threshold, count, reset and clamp."""
    threshold = m.b0 if isinstance(m, sl.ALIF) else m.spike_threshold
    largest = m.spike_fn.max_num_spikes_per_bin or 0 if type(m.spike_fn) is MaxSpike else 0
    return {
        "threshold": _number(ctx, x, "spike_threshold", threshold),
        "max_count": 1 if m.spike_fn is SingleSpike else largest,
        **_reset(m.reset_fn),
        **_floor(m, ctx, x),
    }


def _reset(reset: Any) -> dict[str, Any]:
    if type(reset) is MembraneReset:
        value = float(reset.reset_value)
        return {"reset": "offset", "v_reset": value} if value else {"reset": "hard"}
    if reset.subtract_value is None:
        return {"reset": "soft"}
    return {"reset": "soft", "own_reset_charge": "uncounted", "reset_charge": float(reset.subtract_value)}


def _floor(m: Any, ctx: Context, x: Traced) -> dict[str, Any]:
    if m.min_v_mem is None:
        return {}
    return {"floor": "shifted", "v_min": _number(ctx, x, "min_v_mem", m.min_v_mem)}


def _current(m: Any, ctx: Context, x: Traced) -> dict[str, Any]:
    """What the templates with a gain read in front of the membrane."""
    beta, syn = m.alpha_mem_calculated, m.alpha_syn_calculated
    found = {"beta": _number(ctx, x, "alpha_mem", beta)}
    if m.norm_input:
        found["gain"] = _number(ctx, x, "gain", 1 - beta)
    return found if syn is None else {**found, "synapse": True, "alpha": _number(ctx, x, "alpha_syn", syn)}


def _number(ctx: Context, x: Traced, name: str, value: Any) -> Number:
    return parameter(ctx, x, name, torch.as_tensor(value))


def model_of(m: Any, ctx: Context, x: Traced) -> Neuron:
    """The neuron program of a layer."""
    if isinstance(m, sl.ExpLeak):
        current = _current(m, ctx, x)
        return neuron("li", scaled="gain" in current, **current, **_floor(m, ctx, x))
    current, firing = _current(m, ctx, x), _firing(m, ctx, x)
    if isinstance(m, sl.ALIF):
        rho = m.alpha_adapt_calculated
        adapted = {"rho": rho, "rise": 1 - rho, "adapt_scale": m.adapt_scale}
        return neuron("alif_filtered", **current, **firing, **{k: _number(ctx, x, k, v) for k, v in adapted.items()})
    if "synapse" in current or "gain" in current:
        return neuron("lif_gain", **current, **firing)
    if isinstance(m, sl.IAF | sl.IAFRecurrent):
        return neuron("if", **firing)
    return neuron("leaky", **current, **firing)


def import_neuron(m: Any, ctx: Context, x: Any) -> Traced:
    """``IAF``, ``LIF``, ``ALIF``, ``ExpLeak`` on ``[N, T, ...]``."""
    return _placed(m, ctx, ctx.expect(x, BATCH_FIRST, hint=_FIRST))


def import_squeezed(m: Any, ctx: Context, x: Any) -> Traced:
    """The Squeeze forms, on ``[N*T, ...]``."""
    x = ctx.expect(x, (BATCH_FOLDED,), hint=_FOLDED)
    if m.num_timesteps > 0:
        ctx.steps(m.num_timesteps)
    _fixed_batch(m, ctx)
    return _placed(m, ctx, x)


def _fixed_batch(m: Any, ctx: Context) -> None:
    """The timesteps that follow from a module's batch size and the rows of the example."""
    if ctx.rows is None or m.batch_size < 0:
        return
    if ctx.rows % m.batch_size:
        raise ctx.refuse(
            f"is {m.batch_size}, and the example has {ctx.rows} rows",
            attribute="batch_size",
            hint="give an example of batch_size * timesteps rows, or call sinabs.set_batch_size(model, n)",
        )
    ctx.steps(ctx.rows // m.batch_size)


def _placed(m: Any, ctx: Context, x: Traced) -> Traced:
    ctx.once(m)
    with torch.no_grad():
        return ctx.layer("neuron", x, neuron=model_of(m, ctx, x))


def import_recurrent(m: Any, ctx: Context, x: Any) -> Traced:
    """The Recurrent forms: what ``rec_connect`` makes of a step's spikes is added to the input of the next."""
    batches = ctx.expect(x, BATCH_FIRST, hint=_FIRST)
    ctx.once(m)
    with torch.no_grad():
        kind = model_of(m, ctx, batches)
    shape, cells = batches.value.type.shape, list[Node]()

    def body(back: Traced) -> Traced:
        current = ctx.emit("add", batches.value, back.value, part="current").result
        cells.append(ctx.emit("neuron", current, neuron=kind))
        path = ".".join(p for p in (ctx.site.module, "rec_connect") if p)
        y = ctx.call(m.rec_connect, path, back.like(cells[0].result))
        if not isinstance(y, Traced):
            raise Refused("rec_connect was not imported")
        return reshaping.features(ctx, y, shape) if prod(y.value.type.shape) == prod(shape) else y

    looped(ctx, batches.with_axes((*SEQUENCE, *batches.axes[2:])), shape, body)
    return batches.like(cells[0].result)


# ---- other layers


def import_unflatten_time(m: Any, ctx: Context, x: Any) -> Traced:
    """``UnflattenTime``: ``[N*T, ...]`` as ``[N, T, ...]``."""
    folded = ctx.expect(x, (BATCH_FOLDED,), hint=_FOLDED)
    _fixed_batch(m, ctx)
    return folded.with_axes((*BATCH_FIRST, *folded.axes[1:]))


def import_repeat(m: Any, ctx: Context, x: Any) -> Any:
    """``Repeat``: its module sees ``[N*T, ...]``."""
    x = ctx.expect(x, BATCH_FIRST, hint=_FIRST)
    path = ".".join(p for p in (ctx.site.module, "module") if p)
    y = ctx.call(m.module, path, x.with_axes((BATCH_FOLDED, *x.axes[2:])))
    return y.with_axes((*BATCH_FIRST, *y.axes[1:])) if isinstance(y, Traced) else y


def import_sum_pool(m: Any, ctx: Context, x: Any) -> Traced:
    """``SumPool2d``: an average times the size of the window, which is a sum but for rounding."""
    size = prod(layers.tuple_of(m.kernel_size, 2))
    if size & (size - 1) == 0:
        return layers.lp_pool(m, ctx, x)
    x = ctx.expect(x, *layers.FRAMES, ndim=(3,))
    where = layers.window(ctx, x, 2, m.kernel_size, m.stride, 0, ceil_mode=m.ceil_mode)
    return layers.scaled(ctx, ctx.layer("avg_pool", x, **where), float(size), part="size")


def import_merge(m: Any, ctx: Context, x: Any, y: Any) -> Any:
    """``Merge``: the sum, the smaller one padded with zeros behind its last features."""
    shapes = [v.value.type.shape for v in (x, y)]
    if len(shapes[0]) == len(shapes[1]):
        most = [max(sizes) for sizes in zip(*shapes, strict=True)]
        x, y = (_padded(ctx, v, most) for v in (x, y))
    return functions.add(ctx, x, y)


def _padded(ctx: Context, x: Traced, sizes: list[int]) -> Traced:
    missing = [n - own for n, own in zip(sizes, x.value.type.shape, strict=True)]
    return reshaping.pad(ctx, x, [p for n in reversed(missing) for p in (0, n)]) if any(missing) else x


def import_cropping(m: Any, ctx: Context, x: Any) -> Traced:
    """``Cropping2dLayer``."""
    x = ctx.expect(x, *layers.FRAMES, ndim=(3,))
    _, height, width = x.value.type.shape
    x = timing.cut(ctx, x, 2, slice(m.top_crop, height - m.bottom_crop))
    return timing.cut(ctx, x, 3, slice(m.left_crop, width - m.right_crop))


def import_channel_shift(m: Any, ctx: Context, x: Any) -> Traced:
    """``ChannelShift``: zero channels before the first one."""
    return reshaping.pad(ctx, x, m.padding)


def import_quantize(m: Any, ctx: Context, x: Any) -> Traced:
    """``QuantizeLayer``: nothing for spikes, which are whole numbers already."""
    value = reshaping.as_traced(ctx, x)
    signal = value.value.type.signal
    if m.quantize and not (signal.is_event and float(signal.unit).is_integer()):
        raise ctx.refuse(
            "rounds values down that are not spikes", attribute="quantize", hint="use quantize=False, or spike first"
        )
    return value


# ---- state read by the model


def final_membrane(result: torch.Tensor) -> torch.Tensor:
    """Marker: ``layer.v_mem`` after a call, ``[N, ...]``."""
    return result


def other_state(result: torch.Tensor) -> torch.Tensor:
    """Marker: state after a call that no graph gives."""
    return result


def import_final_membrane(ctx: Context, spikes: Any) -> Traced:
    """The membrane after the last step."""
    x = reshaping.as_traced(ctx, spikes)
    ctx.graph.set_attrs(x.value.node, membrane=True)
    return x.like(ctx.emit("readout", x.value.node.results[1], mode="last").result, (BATCH,))


def import_other_state(ctx: Context, spikes: Any) -> Traced:
    """Recordings, rates, currents and thresholds stay inside."""
    raise ctx.refuse("reads state of a neuron that a graph does not emit", hint="only its spikes and v_mem are given")


MODULES: Mapping[type, ModuleImporter] = {
    **dict.fromkeys((sl.IAF, sl.LIF, sl.ALIF, sl.ExpLeak), import_neuron),
    **dict.fromkeys((sl.IAFSqueeze, sl.LIFSqueeze, ALIFSqueeze, sl.ExpLeakSqueeze), import_squeezed),
    **dict.fromkeys((sl.IAFRecurrent, sl.LIFRecurrent, sl.ALIFRecurrent), import_recurrent),
    sl.UnflattenTime: import_unflatten_time,
    sl.Repeat: import_repeat,
    sl.SumPool2d: import_sum_pool,
    sl.Merge: import_merge,
    sl.Cropping2dLayer: import_cropping,
    sl.ChannelShift: import_channel_shift,
    sl.QuantizeLayer: import_quantize,
}

_ENCODE = "encode the input before the network: its random numbers cannot be repeated"
REFUSED: Mapping[Any, str] = {
    sl.NeuromorphicReLU: "it is for training the analogue network; import sinabs.from_torch.from_model(model, ...)",
    sl.SpikingMaxPooling2dLayer: "it counts spikes over all samples of the batch; use SumPool2d or MaxPool2d",
    sl.Img2SpikeLayer: _ENCODE,
    sl.Sig2SpikeLayer: _ENCODE,
}

_STATE: Mapping[str, Callable[..., Any]] = {
    "v_mem": final_membrane,
    **dict.fromkeys(("i_syn", "b", "recordings", "firing_rate"), other_state),
}


def front_end() -> FrontEnd:
    """What can be imported from Sinabs."""
    return FrontEnd(
        "sinabs",
        modules=MODULES,
        checks={sl.LIF: check_neuron, sl.ALIF: check_neuron, sl.ExpLeak: check_state},
        functions={final_membrane: import_final_membrane, other_state: import_other_state},
        refused=REFUSED,
        leaves=(sl.StatefulLayer, sl.SqueezeMixin, sl.Repeat, sl.UnflattenTime, sl.FlattenTime),
        unknown="use IAF, LIF, ALIF or ExpLeak, in their plain, Squeeze or Recurrent form",
        state={sl.StatefulLayer: _STATE},
        batch_major=True,
    )
