"""snnTorch: ``Leaky``, ``Lapicque``, ``Synaptic``, ``Alpha``, ``RLeaky`` and ``RSynaptic``, and ``snntorch.spikegen``.

Read from snnTorch 1.0's source. ``R = [mem - threshold > 0]`` is taken from the *old* membrane, beta is clamped to
[0, 1]:

=========  =================  ==========================================================  ==========================
class      reset              step                                                        imported as
=========  =================  ==========================================================  ==========================
Leaky      subtract           ``mem = beta * mem + x - R * threshold``                    soft, ``next_before_charge``
Leaky      subtract, prompt   the same, then ``mem -= (spk - R) * threshold``             ``leaky_prompt``
Leaky      zero               ``mem = beta * ((1 - R) * mem) + x``                        hard, ``next_before_charge``
Leaky      zero, prompt       ``mem = beta * mem + x``, then ``mem -= spk * mem``         hard, ``now``
Lapicque   zero               ``mem = (1 - R) * (gain * x + decay * mem)``                hard, ``next_after_charge``
Synaptic   zero               ``syn = alpha * syn + x; mem = (1 - R) * (beta * mem + syn)``  hard, ``next_after_charge``
=========  =================  ==========================================================  ==========================

``prompt`` is ``reset_delay=False``. ``RLeaky`` and ``RSynaptic`` add ``recurrent(spk)``, of the spikes of one step
before, behind ``x``, and reset like ``Lapicque`` and ``Synaptic`` (``RLeaky`` promptly like ``Leaky``). ``Alpha`` is
the template ``alpha`` (its soft reset is a peculiar one). Spikes are ``[mem > threshold]`` times
``graded_spikes_factor``. The state that a model holds at the time of import is not taken: a graph starts at zero.
"""

from __future__ import annotations

from typing import Any

import snntorch
import torch
from snntorch import spikegen
from snntorch._neurons import rleaky as _rleaky
from snntorch._neurons import rsynaptic as _rsynaptic

from ldsnn_compiler.frontend import encoders
from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.parameters import parameter
from ldsnn_compiler.frontend.recurrence import recurrent
from ldsnn_compiler.frontend.registry import FrontEnd, ModuleImporter
from ldsnn_compiler.frontend.traced import BATCH, Traced
from ldsnn_compiler.ir.neuron import Neuron, TensorRef, neuron

_DELAYED = "use reset_delay=True"
_STATE_FUNCTIONS = {"subtract": "_base_sub", "zero": "_base_zero", "none": "_base_int"}
_RESETS = {"subtract": "soft", "zero": "hard", "none": "none"}
_HINT = "use snn.Leaky, snn.Synaptic, snn.Lapicque, snn.Alpha, snn.RLeaky or snn.RSynaptic"


class NotRecorded:
    """Stands for a state that a graph does not emit."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"{self.name}, which cannot be recorded"


def membrane_of(result: Any) -> Any:
    """Marks a read of ``lif.mem`` after a call of ``lif``."""
    return result[-1] if isinstance(result, tuple) else result


def _import_membrane_of(ctx: Context, result: Any) -> Traced:
    spikes = result[0] if isinstance(result, tuple) else result
    return spikes.like(spikes.value.node.results[1])  # type: ignore[no-any-return]


# ---- checks


def check(m: Any, ctx: Context) -> None:
    """What no neuron program says: inhibition, quantised state, a surrogate that is not a step."""
    if m.inhibition:
        ctx.report("only the largest membrane of a layer fires", attribute="inhibition", hint="use inhibition=False")
    if m.state_quant:
        ctx.report("the state is quantised in each step", attribute="state_quant", hint="use state_quant=False")
    if m.state_function.__name__ != _STATE_FUNCTIONS[m.reset_mechanism]:
        built = next(k for k, v in _STATE_FUNCTIONS.items() if v == m.state_function.__name__)
        ctx.report(
            f"is {m.reset_mechanism!r}, but the neuron was built with {built!r} and still runs it",
            attribute="reset_mechanism",
            hint="give it to the constructor",
        )
    probe = torch.tensor([-2.0, -1e-6, 0.0, 1e-6, 2.0])
    if not torch.equal(m.spike_grad(probe).detach(), (probe > 0).float()):
        ctx.report(
            "does not give 1 above zero and 0 up to it", attribute="spike_grad", hint="use one of snntorch.surrogate"
        )
    if bool((torch.as_tensor(m.graded_spikes_factor) == 0).any()):
        ctx.report("is zero", attribute="graded_spikes_factor", hint="leave the layer out")
    if (
        not getattr(m, "reset_delay", True)
        and m.reset_mechanism == "zero"
        and bool((torch.as_tensor(m.threshold) < 0).any())
    ):
        ctx.report(
            "is negative, so that a membrane reset to zero would fire",
            attribute="threshold",
            hint=_DELAYED,
        )


def check_synaptic(m: Any, ctx: Context) -> None:
    """As :func:`check`; a prompt subtraction is known for ``Leaky`` only."""
    check(m, ctx)
    if not m.reset_delay and m.reset_mechanism == "subtract":
        ctx.report("is False", attribute="reset_delay", hint=f"{_DELAYED}, or reset_mechanism='zero'")


def check_rsynaptic(m: Any, ctx: Context) -> None:
    """As :func:`check`; snnTorch 1.0 computes a prompt reset of ``RSynaptic`` and throws it away."""
    check(m, ctx)
    if not m.reset_delay:
        ctx.report("is False, which the library itself does not follow", attribute="reset_delay", hint=_DELAYED)


# ---- importers


def leaky(m: Any, ctx: Context, x: Any, mem: Any = None) -> Any:
    """``snn.Leaky``."""
    x = _step(ctx, x, mem)
    settings = {"beta": parameter(ctx, x, "beta", m.beta.clamp(0, 1)), **_firing(m, ctx, x)}
    if m.reset_mechanism == "subtract" and not m.reset_delay:
        return _results(m, ctx, x, neuron("leaky_prompt", **settings))
    late = "next_before_charge" if m.reset_delay else "now"
    return _results(m, ctx, x, neuron("leaky", **settings, **_reset(m, late)))


def lapicque(m: Any, ctx: Context, x: Any, mem: Any = None) -> Any:
    """``snn.Lapicque``: its input is scaled factor by factor, in the order of the source."""
    x = _step(ctx, x, mem)
    decay = 1 - (m.time_step / (m.R * m.C))
    for part, gain in (("r", m.R), ("rc", 1 / (m.R * m.C)), ("dt", m.time_step)):
        factor = parameter(ctx, x, part, torch.as_tensor(gain))
        if isinstance(factor, TensorRef):
            x = ctx.layer("scale", x, part=part, by=factor)
        elif factor != 1.0:
            x = ctx.layer("scale", x, part=part, factor=factor)
    settings = {"beta": parameter(ctx, x, "decay", decay), **_firing(m, ctx, x)}
    return _results(m, ctx, x, neuron("leaky", **settings, **_reset(m, "next_after_charge")))


def synaptic(m: Any, ctx: Context, x: Any, syn: Any = None, mem: Any = None) -> Any:
    """``snn.Synaptic``; its current cannot be recorded."""
    x = _step(ctx, x, syn, mem)
    decays = {name: parameter(ctx, x, name, getattr(m, name).clamp(0, 1)) for name in ("alpha", "beta")}
    late = "next_after_charge" if m.reset_delay else "now"
    result = _results(m, ctx, x, neuron("cuba_lif", **decays, **_firing(m, ctx, x), **_reset(m, late)))
    return (result[0], NotRecorded("the synaptic current"), result[1]) if isinstance(result, tuple) else result


def alpha(m: Any, ctx: Context, x: Any, syn_exc: Any = None, syn_inh: Any = None, mem: Any = None) -> Any:
    """``snn.Alpha``; its currents cannot be recorded."""
    x = _step(ctx, x, syn_exc, syn_inh, mem)
    rise, fall = m.alpha.clamp(0, 1), m.beta.clamp(0, 1)
    gain = torch.log(rise) / (torch.log(fall) - torch.log(rise)) + 1
    decays = {name: parameter(ctx, x, name, v) for name, v in (("alpha", rise), ("beta", fall), ("gain", gain))}
    result = _results(m, ctx, x, neuron("alpha", reset=_RESETS[m.reset_mechanism], **decays, **_firing(m, ctx, x)))
    if not isinstance(result, tuple):
        return result
    hidden = (NotRecorded(f"the {kind} current") for kind in ("excitatory", "inhibitory"))
    return (result[0], *hidden, result[1])


def rleaky(m: Any, ctx: Context, x: Any, spk: Any = None, mem: Any = None) -> Any:
    """``snn.RLeaky``."""
    x = _step(ctx, x, spk, mem)
    settings = {"beta": parameter(ctx, x, "beta", m.beta.clamp(0, 1)), **_firing(m, ctx, x)}
    if m.reset_mechanism == "subtract" and not m.reset_delay:
        return _results(m, ctx, x, neuron("leaky_prompt", feedback=True, **settings))
    late = "next_after_charge" if m.reset_delay else "now"
    return _results(m, ctx, x, neuron("leaky", feedback=True, **settings, **_reset(m, late)))


def rsynaptic(m: Any, ctx: Context, x: Any, spk: Any = None, syn: Any = None, mem: Any = None) -> Any:
    """``snn.RSynaptic``; its current cannot be recorded."""
    x = _step(ctx, x, spk, syn, mem)
    decays = {name: parameter(ctx, x, name, getattr(m, name).clamp(0, 1)) for name in ("alpha", "beta")}
    late = _reset(m, "next_after_charge")
    result = _results(m, ctx, x, neuron("cuba_lif", feedback=True, **decays, **_firing(m, ctx, x), **late))
    return (result[0], NotRecorded("the synaptic current"), result[1]) if isinstance(result, tuple) else result


def one_to_one(m: Any, ctx: Context, spikes: Any) -> Traced:
    """The ``recurrent`` of ``RLeaky`` and ``RSynaptic`` with ``all_to_all=False``: each hears itself, times V."""
    x: Traced = ctx.expect(spikes, (BATCH,))
    factor = parameter(ctx, x, "V", m.V)
    return ctx.layer("scale", x, **({"by": factor} if isinstance(factor, TensorRef) else {"factor": factor}))


def _step(ctx: Context, operand: Any, *states: Any) -> Traced:
    """The operand in one timestep."""
    if any(s is not None for s in states):
        raise ctx.refuse(
            "takes its state as an argument that cannot be followed",
            hint="loop over time inside forward, or set init_hidden=True",
        )
    x: Traced = ctx.expect(operand, (BATCH,))
    if not x.stepping:
        raise ctx.refuse(
            "does one timestep a call, but is called with a value for the whole run",
            time=True,
            hint="say how many timesteps: timesteps=...",
        )
    return x


def _reset(m: Any, late: str) -> dict[str, str]:
    kind = _RESETS[m.reset_mechanism]
    return {"compare": "gt", "reset": kind, "reset_time": late if kind != "none" else "now"}


def _firing(m: Any, ctx: Context, x: Traced) -> dict[str, float | TensorRef]:
    return {
        "threshold": parameter(ctx, x, "threshold", m.threshold),
        "spike_value": parameter(ctx, x, "graded_spikes_factor", m.graded_spikes_factor),
    }


def _results(m: Any, ctx: Context, x: Traced, kind: Neuron) -> Any:
    """What the call returns: spikes, with the membrane unless it stays hidden."""
    ctx.once(m)
    if "feedback" in kind.program.inputs:
        path = f"{ctx.site.module}.recurrent" if ctx.site.module else "recurrent"
        node = recurrent(ctx, x, kind, lambda spikes: ctx.call(m.recurrent, path, spikes))
    else:
        node = ctx.emit("neuron", x.value, neuron=kind, membrane=True)
    spikes = x.like(node.result)
    return spikes if m.init_hidden and not m.output else (spikes, x.like(node.results[1]))


def front_end() -> FrontEnd:
    """What can be imported from snnTorch."""
    neurons: dict[type, ModuleImporter] = {
        snntorch.Leaky: leaky,
        snntorch.Lapicque: lapicque,
        snntorch.Synaptic: synaptic,
        snntorch.Alpha: alpha,
        snntorch.RLeaky: rleaky,
        snntorch.RSynaptic: rsynaptic,
    }
    synapses = dict.fromkeys((_rleaky.RecurrentOneToOne, _rsynaptic.RecurrentOneToOne), one_to_one)
    spikegen_functions, refused = encoders.spikegen_tables(spikegen)
    return FrontEnd(
        "snntorch",
        modules={**neurons, **synapses},
        checks={
            **dict.fromkeys(neurons, check),
            snntorch.Synaptic: check_synaptic,
            snntorch.RSynaptic: check_rsynaptic,
        },
        functions={membrane_of: _import_membrane_of, **spikegen_functions},
        refused={snntorch.SpikingNeuron: _HINT, snntorch.LeakyParallel: _HINT, **refused},
        leaves=(snntorch.SpikingNeuron,),
        methods_kept=("forward", "fire", "mem_reset", "_base_state_function", "_base_sub", "_base_zero", "_base_int"),
        state={kind: {"mem": membrane_of} for kind in neurons},
        wrapped=tuple((spikegen, f.__name__) for f in (*spikegen_functions, *refused)),
    )
