"""The only ops that change time, and ``delay``, the only op through which a cycle may run."""

from __future__ import annotations

from fractions import Fraction

import torch

from ldsnn_compiler.ir.op import Attr, Call, OpDef, register
from ldsnn_compiler.ir.ops import lowered
from ldsnn_compiler.ir.types import REAL, Signal, Stream


def resample_weights(t_in: int, t_out: int) -> torch.Tensor:
    """``[t_out, t_in]``: the share of each input step in each output step's window; rows sum to 1 (area average)."""
    k, i = torch.arange(t_out)[:, None], torch.arange(t_in)[None]
    low = torch.maximum(k * t_in, i * t_out)
    high = torch.minimum((k + 1) * t_in, (i + 1) * t_out)
    return (high - low).clamp(min=0).to(torch.float64).div(t_in).to(torch.float32)


def _resample_infer(call: Call) -> tuple[Stream, ...]:
    source, dt = call.types[0], call["dt"]
    steps = source.duration / dt
    if steps.denominator != 1:
        raise ValueError(f"{source.duration} base steps do not divide into steps of {dt}")
    if call["mode"] == "repeat" and (source.dt / dt).denominator != 1:
        raise ValueError(f"repeat needs a whole ratio, {source.dt} into {dt} is not one; use mean")
    return (source.with_(timesteps=int(steps), dt=dt, signal=_resample_signal(source, dt, call["mode"] == "sum")),)


def _resample_signal(source: Stream, dt: Fraction, is_sum: bool) -> Signal:
    """Held events stay what they are; the mean of r event frames is their summed count in units of ``unit / r``."""
    signal, r = source.signal, dt / source.dt
    if signal.levels is None or (1 / r).denominator == 1:
        return signal
    if is_sum:
        return Signal(signal.levels * r.numerator, signal.unit)
    return Signal(signal.levels * int(r), signal.unit / int(r)) if r.denominator == 1 else REAL


def _resample(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    ratio = call["dt"] / call.types[0].dt
    if ratio == 1:
        return (x,)
    if (1 / ratio).denominator == 1:
        return (x.repeat_interleave(int(1 / ratio), dim=0),)
    is_sum = call["mode"] == "sum"
    if ratio.denominator == 1:
        total = x.unflatten(0, (-1, int(ratio))).sum(1)
        return (total if is_sum else total / int(ratio),)
    weights = resample_weights(x.shape[0], int(x.shape[0] / ratio)).to(x)
    if is_sum:
        weights = (weights * ratio.numerator).round()
    return (torch.tensordot(weights, x, dims=1),)


def _slice_time_infer(call: Call) -> tuple[Stream, ...]:
    source, steps = call.types[0], call["steps"]
    if not 1 <= steps <= source.timesteps:
        raise ValueError(f"cannot keep {steps} of {source.timesteps} steps")
    return (source.with_(timesteps=steps),)


def _slice_time(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x[: max(0, call["steps"] - call.first_step)],)


def _delay_infer(call: Call) -> tuple[Stream, ...]:
    declared: Stream = call["type"]
    if call.types and call.types[0] != declared:
        raise ValueError(f"operand is {call.types[0]}, declared is {declared}")
    if call["steps"] < 1:
        raise ValueError("a delay takes at least one step")
    return (declared,)


def _delay(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    held = call.state.get("held")
    if held is None:
        held = x.new_zeros((call["steps"], *x.shape[1:]))
    both = torch.cat([held, x])
    call.state["held"] = both[x.shape[0] :]
    return (both[: x.shape[0]],)


def _readout_infer(call: Call) -> tuple[Stream, ...]:
    source = call.types[0]
    signal = REAL if call["mode"] == "mean" else source.signal
    if call["mode"] == "sum" and signal.levels is not None:
        signal = Signal(signal.levels * source.timesteps, signal.unit)
    return (source.with_(timesteps=1, dt=source.duration, signal=signal),)


def _readout(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Running readout: after the last step it is the readout of the whole run."""
    steps = call.first_step + x.shape[0]
    if call["mode"] == "last":
        return (x[-1:],)
    if call["mode"] == "max":
        value = x.amax(0, keepdim=True)
        kept = call.state.get("kept")
        call.state["kept"] = value if kept is None else torch.maximum(kept, value)
        return (call.state["kept"],)
    call.state["kept"] = call.state.get("kept", 0.0) + x.sum(0, keepdim=True)
    return (call.state["kept"] if call["mode"] == "sum" else call.state["kept"] / steps,)


RESAMPLE = register(
    OpDef(
        "resample",
        "steps of dt base steps each; mean: area average of the input over each step; "
        "repeat: each value held (dt divides); sum: the mean times the numerator of dt over the input's, "
        "so that whole numbers stay whole",
        "time",
        (1, 1),
        {"dt": Attr(Fraction), "mode": Attr(str, "mean", values=("mean", "repeat", "sum"))},
        _resample_infer,
        _resample,
        compute=lowered.resample,
    )
)
SLICE_TIME = register(
    OpDef(
        "slice_time",
        "the first steps only; conserves nothing",
        "time",
        (1, 1),
        {"steps": Attr(int)},
        _slice_time_infer,
        _slice_time,
        compute=lowered.slice_time,
    )
)
DELAY = register(
    OpDef(
        "delay",
        "y[t] = x[t - steps], 0 before; a cycle runs through delays only",
        "scan",
        (0, 1),
        {"steps": Attr(int, 1), "type": Attr(Stream, doc="type of operand and result")},
        _delay_infer,
        _delay,
    )
)
READOUT = register(
    OpDef(
        "readout",
        "one value for the whole run: mean, sum, largest or last over time",
        "time",
        (1, 1),
        {"mode": Attr(str, "mean", values=("mean", "max", "last", "sum"))},
        _readout_infer,
        _readout,
    )
)
