"""The ``neuron`` op: a neuron program scanned over time."""

from __future__ import annotations

import torch

from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.ir.op import Attr, Call, OpDef, register, same_time
from ldsnn_compiler.ir.ops.arithmetic import per_channel
from ldsnn_compiler.ir.types import REAL, Stream


def _infer(call: Call) -> tuple[Stream, ...]:
    neuron: Neuron = call["neuron"]
    source, wanted = same_time(call), neuron.program.inputs
    if len(call.types) != len(wanted):
        raise ValueError(f"the neuron takes {' and '.join(wanted)}, it has {len(call.types)} operands")
    if any(t.shape != source.shape for t in call.types):
        raise ValueError(f"operands differ in shape: {', '.join(str(t.shape) for t in call.types)}")
    for name, value in neuron.params.items():
        if isinstance(value, TensorRef):
            _check_param(name, call.tensors[value.name], source)
    if (source.dtype != "float32") != neuron.is_whole:
        raise ValueError(f"the neuron computes {'whole' if neuron.is_whole else 'real'} numbers, not {source.dtype}")
    spikes = source.with_(signal=neuron.signal)
    return (spikes, source.with_(signal=REAL)) if call["membrane"] else (spikes,)


def _check_param(name: str, value: torch.Tensor, source: Stream) -> None:
    fits = (value.ndim == 1 and value.shape[0] == source.shape[0]) or tuple(value.shape) == source.shape
    if not fits:
        raise ValueError(
            f"parameter {name} of shape {tuple(value.shape)} is neither per channel nor per neuron of {source.shape}"
        )


def _evaluate(call: Call, x: torch.Tensor, *feedback: torch.Tensor) -> tuple[torch.Tensor, ...]:
    from ldsnn_compiler.interp.neuron import scan

    neuron: Neuron = call["neuron"]
    params = {
        k: per_channel(call.tensors[v.name], x.ndim - 2) if isinstance(v, TensorRef) else x.new_tensor(v)
        for k, v in neuron.params.items()
    }
    values, membrane = scan(neuron, params, x, call.state, *feedback, membrane=call["membrane"])
    return (values, membrane) if call["membrane"] else (values,)


NEURON = register(
    OpDef(
        "neuron",
        "synapse, charge, fire, reset of a neuron program, step after step; emits values and, if asked, "
        "the membrane after the reset; a second operand is the program's feedback",
        "scan",
        (1, 2),
        {"neuron": Attr(Neuron), "membrane": Attr(bool, False)},
        _infer,
        _evaluate,
    )
)
