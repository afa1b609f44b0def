"""What an op is: one declaration that the printer, parser, verifier, interpreter, documentation and ``ldsnn ops`` all
read.

An op is declared once, in a file under ``ldsnn_compiler/ir/ops`` (or a plug-in), by :func:`register`. Its reference
semantics,
``evaluate``, is PyTorch code over data ``[T, N, *shape]``; its lowering for the plain kernel, ``compute``, is a TVM
tensor expression over the same axes. ``kind`` says how it may move in time:

``linear``    acts on every step alone and commutes with averages over time
``per_step``  acts on every step alone
``scan``      carries state from step to step
``time``      changes the time axis, nothing else
``io``        enters or leaves the graph
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.ir.types import REAL, Signal, Stream

AttrValue = int | float | bool | str | Fraction | tuple[int, ...] | TensorRef | Neuron | Stream | None
Tensors = Mapping[str, torch.Tensor]
KINDS = ("linear", "per_step", "scan", "time", "io")


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class Attr:
    """An attribute: its Python type, its default (``REQUIRED`` if it has none), the values it may take.

    An attribute of type :class:`Stream` is the declared type of the node's result; the text form shows it there.
    """

    type: type
    default: Any = REQUIRED
    doc: str = ""
    values: tuple[str, ...] | None = None
    optional: bool = False

    def coerce(self, value: Any) -> Any:
        """``value`` in this attribute's type; raises TypeError or ValueError with what was expected."""
        if value is None and (self.optional or self.default is None):
            return None
        if self.type is tuple and isinstance(value, int | Sequence) and not isinstance(value, str):
            return tuple(int(v) for v in ((value,) if isinstance(value, int) else value))
        if self.type is Fraction and isinstance(value, int | Fraction):
            return Fraction(value)
        if self.type is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if type(value) is not self.type:
            raise TypeError(f"expected {self.type.__name__}, not {value!r}")
        if self.values is not None and value not in self.values:
            raise ValueError(f"expected one of {', '.join(self.values)}, not {value!r}")
        return value


@dataclass
class Call:
    """One use of an op: its attributes, operand types and tensors; at run time also its state and position in time.

    ``first_step`` and ``steps`` say which steps of the operand (of the result, if there is none) are being run.
    """

    attrs: Mapping[str, AttrValue]
    types: tuple[Stream, ...]
    tensors: Tensors
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    first_step: int = 0
    steps: int = 0
    batch: int = 1

    def __getitem__(self, name: str) -> Any:
        return self.attrs[name]

    def tensor(self, name: str) -> torch.Tensor | None:
        """The tensor that attribute ``name`` refers to, or None if it is unset."""
        ref = self.attrs[name]
        return self.tensors[ref.name] if isinstance(ref, TensorRef) else None


Step = Callable[..., torch.Tensor]
Infer = Callable[[Call], tuple[Stream, ...]]
Evaluate = Callable[..., tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class OpDef:
    """The declaration of an op.

    ``operands`` is (least, most), most None for any number. ``infer`` gives the result types and raises LdsnnError or
    ValueError when operands do not fit. ``evaluate(call, *data)`` is the reference. ``compute(call, *data)`` builds the
    plain kernel: TVM te tensors in, te tensor out, axes ``[T, N, *shape]``. ``weights`` names tensor attributes that
    are synaptic weights. ``fan_out(call, i)`` gives, for each number in operand i of one sample and step, how many
    synaptic updates a non-zero value there causes (``*shape``), or None if it causes none.
    """

    name: str
    doc: str
    kind: str
    operands: tuple[int, int | None]
    attrs: Mapping[str, Attr]
    infer: Infer
    evaluate: Evaluate
    compute: Callable[..., Any] | None = None
    weights: tuple[str, ...] = ()
    fan_out: Callable[[Call, int], torch.Tensor | None] | None = None

    @property
    def acts_per_step(self) -> bool:
        """Whether every step is computed from that step alone."""
        return self.kind in ("linear", "per_step")


_OPS: dict[str, OpDef] = {}


def register(op: OpDef) -> OpDef:
    """Make an op known by its name; a second op of the same name is an error."""
    if op.kind not in KINDS:
        raise LdsnnError(f"op {op.name!r}: kind is one of {', '.join(KINDS)}, not {op.kind!r}")
    if op.name in _OPS and _OPS[op.name] is not op:
        raise LdsnnError(f"an op named {op.name!r} is registered already")
    _OPS[op.name] = op
    return op


def op(name: str) -> OpDef:
    """The registered op of that name."""
    import ldsnn_compiler.ir.ops  # noqa: F401  (registers the built-in ones)

    if name not in _OPS:
        raise LdsnnError(f"unknown op {name!r}, known are {', '.join(sorted(_OPS))}")
    return _OPS[name]


def ops() -> Mapping[str, OpDef]:
    """All registered ops by name."""
    import ldsnn_compiler.ir.ops  # noqa: F401

    return dict(sorted(_OPS.items()))


SignalRule = Callable[[Call], Signal]


def real_signal(call: Call) -> Signal:
    """The result holds real numbers."""
    return REAL


def keep_signal(call: Call) -> Signal:
    """The result holds the operand's events, moved or copied (zeros may be added)."""
    return call.types[0].signal


def per_step_op(
    name: str,
    doc: str,
    step: Step,
    *,
    kind: str = "linear",
    operands: tuple[int, int | None] = (1, 1),
    attrs: Mapping[str, Attr] | None = None,
    signal: SignalRule = real_signal,
    compute: Callable[..., Any] | None = None,
    weights: tuple[str, ...] = (),
    fan_out: Callable[[Call, int], torch.Tensor | None] | None = None,
    takes: str | None = None,
    dtype: str | None = None,
) -> OpDef:
    """Declare an op by what it does to one step, ``step(call, *x)`` on ``[B, *shape]``.

    The result has the operands' dtype, or ``dtype``; ``takes`` is the one that they must have, if not any.

    Its shape rule is that function run on no samples, or, where that fails, on PyTorch's meta device, whose errors are
    shown; time is folded into the batch.
    """

    shapes: dict[Hashable, tuple[int, ...]] = {}  # every pass infers every type again, and running the op is slow

    def infer(call: Call) -> tuple[Stream, ...]:
        first, used = same_time(call), _used(call)
        if takes not in (None, first.dtype):
            raise ValueError(f"takes {takes}, not {first.dtype}")
        if (key := _code(call, used)) not in shapes:
            shapes[key] = run_on_nothing(call) or run_on_meta(call, used)
        return (first.with_(shape=shapes[key], dtype=dtype or first.dtype, signal=signal(call)),)

    def run_on_nothing(call: Call) -> tuple[int, ...] | None:
        """A batch of no samples; PyTorch's first use of its meta device imports modules for seconds."""
        try:
            with torch.no_grad():
                given = replace(call, tensors=widened(_used(call), torch.float32))
                return tuple(step(given, *(torch.empty((0, *t.shape)) for t in call.types)).shape[1:])
        except (RuntimeError, IndexError, ValueError):
            return None

    def run_on_meta(call: Call, used: Tensors) -> tuple[int, ...]:
        meta = Call(call.attrs, call.types, {k: v.to("meta") for k, v in widened(used, torch.float32).items()})
        data = [torch.empty((1, *t.shape), device="meta") for t in call.types]
        try:
            return tuple(step(meta, *data).shape[1:])
        except (RuntimeError, IndexError, ValueError) as error:
            raise ValueError(str(error).splitlines()[0]) from None

    def evaluate(call: Call, *data: torch.Tensor) -> tuple[torch.Tensor, ...]:
        time_batch = data[0].shape[:2]
        return (step(call, *(d.flatten(0, 1) for d in data)).unflatten(0, time_batch),)

    if weights and fan_out is None:
        fan_out = _fan_out_by_gradient(step, weights)
    return register(OpDef(name, doc, kind, operands, attrs or {}, infer, evaluate, compute, weights, fan_out))


def same_time(call: Call) -> Stream:
    """The first operand's type; raises if the operands do not share T and dt, or are whole numbers only in part."""
    first = call.types[0]
    if any((t.timesteps, t.dt) != (first.timesteps, first.dt) for t in call.types):
        times = ", ".join(f"T={t.timesteps} dt={t.dt}" for t in call.types)
        raise ValueError(f"operands differ in time: {times}; put a resample between them")
    if any(t.dtype != first.dtype for t in call.types):
        raise ValueError(f"operands differ in dtype: {', '.join(t.dtype for t in call.types)}; quantize the others")
    return first


def widened(tensors: Tensors, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Whole-number tensors as ``dtype``, in which their sums are taken; the others as they are."""
    return {k: v if v.is_floating_point() else v.to(dtype) for k, v in tensors.items()}


def _used(call: Call) -> dict[str, torch.Tensor]:
    names = [v.name for v in call.attrs.values() if isinstance(v, TensorRef)]
    return {n: call.tensors[n] for n in names}


def _code(call: Call, used: Tensors) -> Hashable:
    """What shapes depend on."""
    return (*call.attrs.items(), *(t.shape for t in call.types), *((k, v.shape) for k, v in used.items()))


def _fan_out_by_gradient(step: Step, weights: tuple[str, ...]) -> Callable[[Call, int], torch.Tensor | None]:
    """Fan-out exact at borders: the gradient of the summed outputs when every weight is 1."""

    known: dict[Hashable, torch.Tensor] = {}  # a search counts the work of hundreds of graphs with the same layers

    def fan_out(call: Call, operand: int) -> torch.Tensor | None:
        used = _used(call)
        if (key := (operand, _code(call, used))) not in known:
            known[key] = gradient(call, operand, used)
        return known[key]

    def gradient(call: Call, operand: int, used: Tensors) -> torch.Tensor:
        names = {call.attrs[w].name for w in weights}  # type: ignore[union-attr]
        used = widened(used, torch.float32)
        ones = {k: torch.ones_like(v) if k in names else torch.zeros_like(v) for k, v in used.items()}
        x = torch.ones((1, *call.types[operand].shape), requires_grad=True)
        with torch.enable_grad():
            step(Call(call.attrs, call.types, ones), x).sum().backward()
        assert x.grad is not None
        return x.grad[0]

    return fan_out
