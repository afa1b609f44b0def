"""Plans: what lowering makes of a graph. A list of kernels over named buffers, still without code.

A plan is cheap to make and knows everything but the machine code, so a bundle is loaded by planning its graph again:
the same plan says which arguments the library takes, in which order, and how they are packed from the graph's tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Array = Any
"""A torch tensor or a numpy array."""

#: stands for the batch in a buffer's shape
BATCH = -1


@dataclass(frozen=True)
class Buffer:
    """A tensor between kernels; :data:`BATCH` marks the batch axis in ``shape``."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def sized(self, batch: Any) -> tuple[Any, ...]:
        """The shape for a batch, a number or a TIR variable."""
        return tuple(batch if d == BATCH else d for d in self.shape)


@dataclass(frozen=True)
class Kernel:
    """One function: reads ``operands``, writes ``results`` (buffer names).

    ``build(batch)`` gives its TIR PrimFunc (batch None is symbolic), parameters in the order operands, results; equal
    ``key`` means equal code. ``nodes`` are the graph nodes it computes.
    """

    name: str
    key: Hashable
    build: Callable[[int | None], Any]
    operands: tuple[str, ...]
    results: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """A state variable of a node, kept between calls of the ``step`` entry in buffer ``before``, renewed in ``after``.

    ``initial(batch)`` is its value before the first step, as the interpreter shows it: ``[N, *shape]``, or
    ``[steps, N, *shape]`` for a delay. The buffer holds it so, or, where ``sample`` tells the shape ``[C, *space]`` of
    a sample, channels last: ``[N, P, C]``.
    """

    node: str
    variable: str
    before: str
    after: str
    initial: Callable[[int], torch.Tensor]
    sample: tuple[int, ...] | None = None

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """From what the interpreter shows to the buffer's layout."""
        return x if self.sample is None else channels_last(x, self.sample)

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`pack`."""
        return x if self.sample is None else channels_first(x, self.sample)


def channels_last(x: Array, sample: tuple[int, ...]) -> Array:
    """``[N, C, *space]`` as ``[N, P, C]``, torch or numpy; ``sample`` is ``[C, *space]``."""
    return x.reshape(x.shape[0], sample[0] if sample else 1, -1).swapaxes(1, 2)


def channels_first(x: Array, sample: tuple[int, ...]) -> Array:
    """The inverse of :func:`channels_last`."""
    return x.swapaxes(1, 2).reshape(x.shape[0], *sample)


@dataclass
class Plan:
    """Kernels in order; ``counter`` is the buffer of base steps done, or "" if nothing asks for it.

    The library's function takes ``inputs``, the states' ``before``, the counter if any, then :meth:`used_arguments`; it
    returns ``outputs`` and the states' ``after``.
    """

    entry: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    counter: str = ""
    arguments: dict[str, Callable[[], torch.Tensor]] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    kernels: list[Kernel] = field(default_factory=list)

    def buffer(self, name: str, buffer: Buffer) -> str:
        """Declare a buffer."""
        self.buffers[name] = buffer
        return name

    def argument(self, name: str, buffer: Buffer, make: Callable[[], torch.Tensor]) -> str:
        """A weight or parameter passed in from outside, made once."""
        self.arguments.setdefault(name, make)
        return self.buffer(name, buffer)

    def used_arguments(self) -> tuple[str, ...]:
        """Arguments that some kernel reads, in order."""
        read = {name for kernel in self.kernels for name in kernel.operands}
        return tuple(name for name in self.arguments if name in read)

    def parameters(self) -> tuple[str, ...]:
        """What the library's function takes, in order."""
        counter = (self.counter,) if self.counter else ()
        return (*self.inputs, *(s.before for s in self.states), *counter, *self.used_arguments())

    def returned(self) -> tuple[str, ...]:
        """What the library's function returns, in order."""
        return (*self.outputs, *(s.after for s in self.states))
