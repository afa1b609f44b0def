"""What a CPU region computes, as data: sources of current, a neuron, forms of the values, and how to tune the loops.

A region is ``x = sum of its sources' currents + bias`` followed by a neuron program scanned over T timesteps, for
one map of ``channels`` x ``space``. Layouts (all channels-last): dense ``[N, T, P, C]`` float32 with P = H*W; bits
``[N, T, planes, P, ceil(C / 64)]`` uint64, bit c % 64 of word c // 64 belonging to channel c, plane k weighing
2**k.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, prod
from typing import Literal

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.neuron import Neuron, TensorRef

Pair = tuple[int, int]
Kind = Literal["conv", "identity", "current"]
Form = Literal["dense", "bits"]
Method = Literal["event", "dense"]
Order = Literal["pixel", "tap", "word"]

#: channels in one word of bits
WORD = 64
#: a batch size that is only known at run time
SYMBOLIC = "n"


@dataclass(frozen=True)
class Tuning:
    """Loop structure; every choice gives the same result.

    ``lanes``: floats in a vector register. ``block``: output channels a task keeps (a multiple of 64). ``tile``:
    output pixels (rows, columns) of one task. ``order`` of the event loops: ``pixel`` finishes one pixel and
    timestep after the other with the accumulators in registers; ``tap`` sends all pixels and timesteps of the tile
    through the weights of one kernel position, ``word`` through those of ``words`` * 64 input channels of it, so
    that those weights are reused from a near cache. ``registers``: accumulators (vectors) the dense loops may hold.
    ``prefetch``: rows to prefetch ahead.
    """

    lanes: int = 16
    block: int = 128
    tile: Pair = (1, 1)
    order: Order = "pixel"
    words: int = 1
    registers: int = 24
    prefetch: int = 0


@dataclass(frozen=True)
class Source:
    """One addend of the current.

    ``conv`` reads ``channels`` x ``space`` through weights; ``identity`` adds its own values (times ``scale``: the
    unit of a count, or 1 / r); ``current`` adds a dense current computed elsewhere. ``timesteps`` divides the
    region's (each step is held) or is a multiple of it (steps are summed; the caller scales). ``padding`` is that
    before the first row and column; behind the last it follows from the region's ``space``. ``method`` event walks
    set bits, dense multiplies everything.
    """

    kind: Kind
    channels: int
    space: Pair
    timesteps: int
    form: Form = "dense"
    planes: int = 1
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    scale: float = 1.0
    method: Method = "event"

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def pixels(self) -> int:
        return prod(self.space)


@dataclass(frozen=True)
class BufferSpec:
    """One argument of the region's function. A dimension may be :data:`SYMBOLIC`."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    is_output: bool = False


@dataclass(frozen=True)
class RegionSpec:
    """A fused region; see the module's docstring.

    ``batch`` None is symbolic. ``neuron`` None emits the currents. ``per_channel`` and ``per_neuron`` name the
    neuron's tensor parameters of shape [C] and [P, C]. ``output`` bits needs a neuron that emits bounded counts.
    ``state_io`` reads the initial and writes the final state; ``membrane`` adds the membrane of every step as an
    output.
    """

    batch: int | None
    timesteps: int
    channels: int
    space: Pair
    sources: tuple[Source, ...]
    neuron: Neuron | None = None
    bias: bool = False
    output: Form = "dense"
    state_io: bool = False
    membrane: bool = False
    per_channel: tuple[str, ...] = ()
    per_neuron: tuple[str, ...] = ()
    tuning: Tuning = field(default_factory=Tuning)

    def __post_init__(self) -> None:
        problems = [Problem(text, where="CPU region") for text in _mistakes(self)]
        if problems:
            raise LdsnnError(problems)

    def is_depthwise(self, source: Source) -> bool:
        """Every output channel reads the input channel of its own number."""
        return source.kind == "conv" and source.groups > 1 and source.groups == source.channels == self.channels

    def walks_bits(self, source: Source) -> bool:
        """Event-driven: set bits select weight rows. Depthwise convolutions are better off multiplying."""
        is_event = source.form == "bits" and source.method == "event"
        return source.kind == "conv" and is_event and not self.is_depthwise(source)

    @property
    def pixels(self) -> int:
        return prod(self.space)

    @property
    def planes(self) -> int:
        """Bit planes of the output."""
        return max(1, self.neuron.signal.planes) if self.neuron else 1

    @property
    def block(self) -> int:
        """Output channels of one task: whole vectors, and whole words unless one block holds all channels."""
        lanes, widest = self.tuning.lanes, self.tuning.block
        if self.channels <= widest:
            return ceil(self.channels / lanes) * lanes
        words = range(1, widest // WORD + 1)
        # the widest block, unless a narrower one computes clearly fewer padding channels
        cost = {w: ceil(self.channels / (w * WORD)) * w * (1 + 0.15 / w) for w in words}
        return min(words, key=lambda w: cost[w]) * WORD

    @property
    def blocks(self) -> int:
        return ceil(self.channels / self.block)

    @property
    def vectors(self) -> int:
        """Vectors in a block."""
        return self.block // self.tuning.lanes


def words(channels: int) -> int:
    """Words that hold one bit for each of ``channels``."""
    return ceil(channels / WORD)


def bits_shape(batch: int | str, timesteps: int, planes: int, pixels: int, channels: int) -> tuple[int | str, ...]:
    """Shape of the bits form."""
    return (batch, timesteps, planes, pixels, words(channels))


def input_range(spec: RegionSpec, source: Source, block: int) -> Pair:
    """(first word, channels) of the input that output block ``block`` reads; the number is the same for all blocks."""
    if source.groups == 1:
        return 0, source.channels
    if spec.is_depthwise(source):
        return block * spec.block // WORD, spec.block
    return first_word(spec, source, block), WORD * max(_word_span(spec, source, b) for b in range(spec.blocks))


def first_word(spec: RegionSpec, source: Source, block: int) -> int:
    """Word that holds the first input channel of the groups that an output block touches."""
    per_group_out, per_group_in = spec.channels // source.groups, source.channels // source.groups
    return block * spec.block // per_group_out * per_group_in // WORD


def _word_span(spec: RegionSpec, source: Source, block: int) -> int:
    per_group_out, per_group_in = spec.channels // source.groups, source.channels // source.groups
    last = min(spec.channels, (block + 1) * spec.block) - 1
    end = (last // per_group_out + 1) * per_group_in
    return words(end) - first_word(spec, source, block)


def weight_shape(spec: RegionSpec, source: Source) -> tuple[int, int, int, int]:
    """``[blocks, taps, input channels of the block, block]``: what :func:`~.layout.pack_weights` makes."""
    rows = 1 if spec.is_depthwise(source) else input_range(spec, source, 0)[1]
    return (spec.blocks, source.taps, rows, spec.block)


def buffers(spec: RegionSpec) -> tuple[BufferSpec, ...]:
    """The arguments of the region's function in order, outputs last.

    ``x0 [w0] x1 [w1] ... [bias] [parameters: per channel, per neuron] [initial states]``, then
    ``y [membrane] [final states]``.
    """
    n = SYMBOLIC if spec.batch is None else spec.batch
    found: list[BufferSpec] = []
    for i, source in enumerate(spec.sources):
        found.append(_input(n, i, source))
        if source.kind == "conv":
            found.append(BufferSpec(f"w{i}", weight_shape(spec, source)))
    if spec.bias:
        found.append(BufferSpec("bias", (spec.channels,)))
    found += [BufferSpec(name, (spec.channels,)) for name in spec.per_channel]
    found += [BufferSpec(name, (spec.pixels, spec.channels)) for name in spec.per_neuron]
    states = [name for name, _ in spec.neuron.program.state] if spec.neuron and spec.state_io else []
    found += [BufferSpec(f"{name}_in", (n, spec.pixels, spec.channels)) for name in states]
    dense = (n, spec.timesteps, spec.pixels, spec.channels)
    bits = bits_shape(n, spec.timesteps, spec.planes, spec.pixels, spec.channels)
    found.append(
        BufferSpec("y", bits, "uint64", True) if spec.output == "bits" else BufferSpec("y", dense, is_output=True)
    )
    if spec.membrane:
        found.append(BufferSpec("membrane", dense, is_output=True))
    found += [BufferSpec(f"{name}_out", (n, spec.pixels, spec.channels), is_output=True) for name in states]
    return tuple(found)


def _input(n: int | str, index: int, source: Source) -> BufferSpec:
    if source.form == "bits":
        return BufferSpec(
            f"x{index}", bits_shape(n, source.timesteps, source.planes, source.pixels, source.channels), "uint64"
        )
    return BufferSpec(f"x{index}", (n, source.timesteps, source.pixels, source.channels))


def _mistakes(spec: RegionSpec) -> list[str]:
    found = [text for i, s in enumerate(spec.sources) for text in _source_mistakes(spec, i, s)]
    tuning = spec.tuning
    if tuning.block % WORD or tuning.block < WORD:
        found.append(f"block {tuning.block} is not a multiple of {WORD}")
    if tuning.lanes not in (4, 8, 16, 32):
        found.append(f"lanes is 4, 8, 16 or 32, not {tuning.lanes}")
    if spec.output == "bits" and not (spec.neuron and spec.neuron.signal.is_bounded):
        found.append("only a neuron that emits bounded counts can write bits")
    if spec.neuron is None and (spec.membrane or spec.state_io):
        found.append("membrane and state need a neuron")
    tensors = {k for k, v in spec.neuron.params.items() if isinstance(v, TensorRef)} if spec.neuron else set()
    if tensors != {*spec.per_channel, *spec.per_neuron}:
        found.append(
            f"tensor parameters are {sorted(tensors)}, declared {sorted({*spec.per_channel, *spec.per_neuron})}"
        )
    return found


def _source_mistakes(spec: RegionSpec, index: int, source: Source) -> list[str]:
    found = []
    if spec.timesteps % source.timesteps and source.timesteps % spec.timesteps:
        found.append(f"source {index}: T={source.timesteps} neither divides {spec.timesteps} nor is a multiple of it")
    if source.kind != "conv" and (source.channels, source.space) != (spec.channels, spec.space):
        found.append(
            f"source {index}: {source.kind} of {source.channels} x {source.space} for {spec.channels} x {spec.space}"
        )
    if source.kind == "current" and source.form != "dense":
        found.append(f"source {index}: a current is dense")
    if source.kind == "conv" and (source.channels % source.groups or spec.channels % source.groups):
        found.append(f"source {index}: {source.groups} groups of {source.channels} -> {spec.channels} channels")
    return found
