"""Where data enters and leaves: input, constant, encoders, output."""

from __future__ import annotations

from fractions import Fraction

import torch

from ldsnn_compiler.ir import layouts
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.op import Attr, Call, OpDef, register
from ldsnn_compiler.ir.ops import lowered
from ldsnn_compiler.ir.types import REAL, SPIKE, Signal, Stream

_MASK = 0xFFFFFFFF


def hash_uniform(seed: int, step: torch.Tensor, sample: torch.Tensor, element: torch.Tensor) -> torch.Tensor:
    """Uniform float32 in [0, 1) from counters, the same on every target: 24 bits of a 32-bit integer hash.

    Each counter is mixed in turn by the finaliser of MurmurHash3 (Appleby, 2011), all modulo 2**32.
    """
    value = torch.full_like(element, seed & _MASK)
    for counter in (step, sample, element):
        value = _mix((value ^ counter) & _MASK)
    return (value >> 8).to(torch.float32) * (1.0 / (1 << 24))


def _mix(value: torch.Tensor) -> torch.Tensor:
    value = value ^ (value >> 16)
    value = (value * 0x85EBCA6B) & _MASK
    value = value ^ (value >> 13)
    value = (value * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


def _input_infer(call: Call) -> tuple[Stream, ...]:
    declared: Stream = call["type"]
    if call["time"] == "static" and declared.timesteps != 1:
        raise ValueError(f"a static input has one timestep, not {declared.timesteps}")
    return (declared,)


def _constant_infer(call: Call) -> tuple[Stream, ...]:
    value = call.tensor("value")
    assert value is not None
    dtype = "float32" if value.is_floating_point() else "int32"
    return (Stream(value.shape[0], call["dt"], tuple(value.shape[1:]), dtype),)


def _constant(call: Call) -> tuple[torch.Tensor, ...]:
    value = call.tensor("value")
    assert value is not None
    value = value[call.first_step : call.first_step + call.steps]
    return (value[:, None].expand(-1, call.batch, *value.shape[1:]),)


def _encode_infer(call: Call) -> tuple[Stream, ...]:
    return (call.types[0].with_(signal=REAL if call["code"] == "direct" else SPIKE),)


def _encode(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    steps = torch.arange(call.first_step, call.first_step + x.shape[0]).reshape(-1, *[1] * (x.ndim - 1))
    if call["code"] == "direct":
        return (x,)
    if call["code"] == "latency":
        last = call.types[0].timesteps - 1
        return ((torch.round((1.0 - x) * last) == steps).to(x.dtype),)
    sample = torch.arange(x.shape[1]).reshape(1, -1, *[1] * (x.ndim - 2))
    element = torch.arange(x[0, 0].numel()).reshape(1, 1, *x.shape[2:])
    return ((hash_uniform(call["seed"], steps, sample, element) < x).to(x.dtype),)


def _output_infer(call: Call) -> tuple[Stream, ...]:
    if call["time"] == "squeeze" and call.types[0].timesteps != 1:
        raise ValueError(f"an output without a time axis has one timestep, not {call.types[0].timesteps}")
    return call.types


INPUT = register(
    OpDef(
        "input",
        "data of the caller: [N, *shape] if static, [T, N, *shape], [N, T, *shape] batch first, [N*T, *shape] folded",
        "io",
        (0, 0),
        {"type": Attr(Stream), "time": Attr(str, "sequence", values=layouts.INPUTS)},
        _input_infer,
        lambda call: (),
    )
)
CONSTANT = register(
    OpDef(
        "constant",
        "a stored stream, value[T, *shape], the same for every sample",
        "io",
        (0, 0),
        {"value": Attr(TensorRef), "dt": Attr(Fraction, Fraction(1))},
        _constant_infer,
        _constant,
        compute=lowered.constant,
    )
)
ENCODE = register(
    OpDef(
        "encode",
        "direct: y = x; poisson: y[t] = [u(seed, t, sample, element) < x]; "
        "latency: y[t] = [round((1 - x)(T - 1)) == t]",
        "scan",
        (1, 1),
        {"code": Attr(str, values=("direct", "poisson", "latency")), "seed": Attr(int, 0)},
        _encode_infer,
        _encode,
        compute=lowered.encode,
    )
)
OUTPUT = register(
    OpDef(
        "output",
        "a result of the network: [N, *shape] if squeezed, else as an input",
        "io",
        (1, 1),
        {"time": Attr(str, "sequence", values=layouts.OUTPUTS)},
        _output_infer,
        lambda call, x: (x,),
    )
)
__all__ = ["CONSTANT", "ENCODE", "INPUT", "OUTPUT", "Signal", "hash_uniform"]
