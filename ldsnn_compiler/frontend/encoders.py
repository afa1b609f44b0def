"""Encoders become ``encode`` ops.

========================================================  =========================================================
SpikingJelly ``PoissonEncoder``                           poisson, ``P(spike) = x`` in each timestep
``spikegen.rate``, ``spikegen.rate_conv``                 poisson
SpikingJelly ``LatencyEncoder(T, "linear")``              latency, a spike at ``round((T - 1)(1 - x))``
``spikegen.latency(normalize=True, linear=True)``         latency, where its threshold does not move a spike
========================================================  =========================================================

Random numbers are ours: a hash of (seed, timestep, sample, element), the same on every target and in every run. A
network with a Poisson code therefore agrees with its library in distribution, not sample by sample. Seeds count up from
the seed of the import, one for each encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.registry import FrontEnd
from ldsnn_compiler.frontend.traced import BATCH, SEQUENCE, STATIC, Traced

Functions = dict[Callable[..., Any], Callable[..., Any]]
_OTHER_CODES = "encode outside the model and give it the sequence, or use rate, or latency(normalize=True, linear=True)"


def poisson(ctx: Context, x: Traced) -> Traced:
    """Spikes drawn anew in every timestep of ``x``."""
    seed = ctx.tables.seed + sum(n["code"] == "poisson" for n in ctx.graph.of("encode"))
    return ctx.layer("encode", x, code="poisson", seed=seed)


def bernoulli(ctx: Context, x: Any) -> Traced:
    """``torch.bernoulli`` and ``spikegen.rate_conv`` of a value in each timestep."""
    x = ctx.expect(x, STATIC, SEQUENCE)
    if x.is_static:
        raise ctx.refuse("draws spikes once for the whole run", time=True, hint="draw them in each timestep")
    return poisson(ctx, x)


def rate(
    ctx: Context,
    data: Any,
    num_steps: Any = False,
    gain: Any = 1,
    offset: Any = 0,
    first_spike_time: Any = 0,
    time_var_input: bool = False,
) -> Traced:
    """``snntorch.spikegen.rate``: ``[N, ...]`` to ``[T, N, ...]``, or a sequence with ``time_var_input``."""
    _only(ctx, offset=(offset, 0), first_spike_time=(first_spike_time, 0))
    if time_var_input:
        return poisson(ctx, ctx.expect(data, SEQUENCE))
    x = _static(ctx, data)
    ctx.steps(int(num_steps))
    if gain != 1:
        x = ctx.layer("scale", x, part="gain", factor=float(gain))
    return poisson(ctx, x.like(ctx.hold(x.value), SEQUENCE))


def latency(
    ctx: Context,
    data: Any,
    num_steps: Any = False,
    threshold: float = 0.01,
    tau: Any = 1,
    first_spike_time: Any = 0,
    on_target: Any = 1,
    off_target: Any = 0,
    clip: Any = False,
    normalize: Any = False,
    linear: Any = False,
    interpolate: Any = False,
    bypass: Any = False,
    epsilon: float = 1e-7,
) -> Traced:
    """``snntorch.spikegen.latency`` with a linear code over all of ``num_steps``: ``[N, ...]`` to ``[T, N, ...]``."""
    _only(
        ctx,
        first_spike_time=(first_spike_time, 0),
        on_target=(on_target, 1),
        off_target=(off_target, 0),
        clip=(clip, False),
        normalize=(normalize, True),
        linear=(linear, True),
        interpolate=(interpolate, False),
    )
    x = _static(ctx, data)
    last = ctx.steps(int(num_steps)) - 1
    latest = torch.round(torch.tensor(-last * (threshold - 1.0), dtype=torch.float32))
    if int(latest) != last:
        raise ctx.refuse(
            f"of {threshold} moves late spikes from timestep {last} to {int(latest)}",
            attribute="threshold",
            hint="use a smaller one, such as 1e-6",
        )
    held = x.like(ctx.hold(x.value), SEQUENCE)
    return ctx.layer("encode", held, code="latency")


def poisson_encoder(m: Any, ctx: Context, x: Any) -> Traced:
    """SpikingJelly ``PoissonEncoder``, both step modes."""
    x = ctx.expect(x, SEQUENCE) if m.step_mode == "m" else ctx.expect(x, (BATCH,))
    if x.is_static:
        raise ctx.refuse(
            "draws spikes for one timestep a call, but is called with a value for the whole run",
            time=True,
            hint="say how many timesteps: timesteps=...",
        )
    return poisson(ctx, x)


def check_latency_encoder(m: Any, ctx: Context) -> None:
    """Only the linear code, one timestep a call."""
    if m.enc_function != "linear":
        ctx.report(f"is {m.enc_function!r}", attribute="enc_function", hint="use enc_function='linear'")
    if m.step_mode != "s":
        ctx.report(
            "'m' encodes the first timestep of its input and ignores the others",
            attribute="step_mode",
            hint="call it once in each timestep, step_mode='s'",
        )


def latency_encoder(m: Any, ctx: Context, operand: Any = None) -> Traced:
    """SpikingJelly ``LatencyEncoder``: it encodes the operand of its first call, so that must be the same in all."""
    x: Traced = ctx.expect(operand, (BATCH,))
    if not x.stepping:
        raise ctx.refuse(
            "does one timestep a call, but is called with a value for the whole run",
            time=True,
            hint="say how many timesteps: timesteps=...",
        )
    source = x.value.node
    if source.op.name != "resample" or source.operands[0].type.timesteps != 1:
        raise ctx.refuse(
            "encodes the first timestep of a sequence and ignores the others", hint="give it a static input"
        )
    if ctx.timesteps != m.T:
        raise ctx.refuse(f"is {m.T}, in a run of {ctx.timesteps} timesteps", attribute="T", hint="use the same number")
    ctx.once(m)
    node = ctx.emit("encode", x.value, code="latency")
    return x.like(node.result)


def _static(ctx: Context, data: Any) -> Traced:
    x: Traced = ctx.expect(data, STATIC)
    if x.stepping:
        raise ctx.refuse(
            "makes a sequence of its own in each timestep", time=True, hint="encode before the loop over time"
        )
    return x


def _only(ctx: Context, **settings: tuple[Any, Any]) -> None:
    """Report every argument that differs from the one value that can be imported."""
    wrong = [
        (name, value, only) for name, (value, only) in settings.items() if isinstance(value, Traced) or value != only
    ]
    for name, value, only in wrong:
        ctx.report(f"is {value!r}", attribute=name, hint=f"only {name}={only!r} can be imported")
    if wrong:
        raise ctx.refuse("differs from the codes that can be imported", hint=_OTHER_CODES)


def spikegen_tables(spikegen: Any) -> tuple[Functions, dict[Any, str]]:
    """Importers for the functions of ``snntorch.spikegen``, and those that are refused."""
    others = ("delta", "latency_code", "latency_interpolate", "rate_interpolate", "targets_rate", "targets_latency")
    functions: Functions = {spikegen.rate: rate, spikegen.rate_conv: bernoulli, spikegen.latency: latency}
    return functions, {getattr(spikegen, name): _OTHER_CODES for name in others if hasattr(spikegen, name)}


def front_end() -> FrontEnd:
    """SpikingJelly's encoders."""
    from spikingjelly.activation_based import encoding

    others = "use PoissonEncoder, or LatencyEncoder with enc_function='linear'"
    return FrontEnd(
        "spikingjelly encoders",
        modules={encoding.PoissonEncoder: poisson_encoder, encoding.LatencyEncoder: latency_encoder},
        checks={encoding.LatencyEncoder: check_latency_encoder},
        refused={kind: others for kind in (encoding.WeightedPhaseEncoder, encoding.PeriodicEncoder)},
        leaves=(encoding.StatelessEncoder, encoding.StatefulEncoder),
        methods_kept=("forward", "single_step_forward", "single_step_encode"),
    )
