"""What a CPU region computes, as data: sources of current, a neuron, forms of the values, and how to tune the loops.

A region is ``x = sum of its sources' currents + bias`` followed by a neuron program scanned over T timesteps, for
one map of ``channels`` x ``space``. Layouts (all channels-last): dense ``[N, T, P, C]`` float32 with P = H*W; bits
``[N, T, planes, P, ceil(C / 64)]`` uint64, bit c % 64 of word c // 64 belonging to channel c, plane k weighing
2**k.

Numbers are float32, or whole: then weights are int8 or int16, currents are summed in int16 or int32, and the neuron,
its parameters and state are int32. Where the whole sum is not known to fit int16 there are several currents, each of a
part of the inputs, which the neuron adds up. Dense whole numbers are int32, counts up to 255 uint8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, prod
from typing import Literal

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.ir.types import Signal
from ldsnn_compiler.targets.cpu.kernels.dot import DOTS, Dot
from ldsnn_compiler.targets.cpu.kernels.numbers import BYTE, LARGEST, LEAST, Number

Pair = tuple[int, int]
Kind = Literal["conv", "identity", "current"]
Form = Literal["dense", "bits"]
Method = Literal["event", "dense"]
Order = Literal["pixel", "tap", "word"]
Outer = Literal["block", "tile"]

#: channels in one word of bits
WORD = 64
#: 32-bit numbers in a register of 128 bits, whose machine widens bytes by instructions of their own
NEON = 4
#: a batch size that is only known at run time
SYMBOLIC = "n"


@dataclass(frozen=True)
class Tuning:
    """Loop structure; every choice gives the same result.

    ``lanes``: 32-bit numbers in a vector register. ``block``: output channels a task keeps (a multiple of 64).
    ``tile``: output pixels (rows, columns) of one task. ``order`` of the event loops: ``pixel`` finishes one pixel and
    timestep after the other with the accumulators in registers; ``tap`` sends all pixels and timesteps of the tile
    through the weights of one kernel position, ``word`` through those of ``words`` * 64 input channels of it, so
    that those weights are reused from a near cache. ``registers``: accumulators (vectors) the dense loops may hold.
    ``prefetch``: rows to prefetch ahead. ``outer``: what a thread's share of the tasks has in common: with ``block``
    the weights (its tasks are all tiles of a block), with ``tile`` the input (all blocks of a tile). ``dots``: the
    instructions of :mod:`.dot` that may be used, the best first. ``launch``: how a GPU's blocks of threads are cut
    (:class:`~ldsnn_compiler.targets.cuda.kernels.launch.Launch`, in the order of its fields); empty: by rules of thumb.
    """

    lanes: int = 16
    block: int = 128
    tile: Pair = (1, 1)
    order: Order = "pixel"
    words: int = 1
    registers: int = 24
    prefetch: int = 0
    outer: Outer = "block"
    dots: tuple[str, ...] = ()
    launch: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Source:
    """One addend of the current.

    ``conv`` reads ``channels`` x ``space`` through weights; ``identity`` adds its own values (times ``scale``: the
    unit of a count, or 1 / r); ``current`` adds a dense current computed elsewhere. ``timesteps`` divides the
    region's (each step is held) or is a multiple of it (steps are summed; the caller scales). ``padding`` is that
    before the first row and column; behind the last it follows from the region's ``space``. ``method`` event walks
    set bits, dense multiplies everything.

    ``weights`` and ``values`` are the types of the weights and of dense input. ``per_channel``: the scale of an
    identity or current is a vector [C] of that type, an argument in the place of weights. ``part`` is the number of the
    current that the source adds to; an event-driven one goes on to the next at each kernel position in ``cuts``.
    ``partial``: events are summed in int16 over at most that many words of one kernel position before they are added to
    int32 currents; 0 sums them in the currents' own type. ``most`` and
    ``least``: the largest and the least of dense whole numbers; 0: any of their type.
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
    weights: Number = "float32"
    values: Number = "float32"
    per_channel: bool = False
    part: int = 0
    cuts: tuple[int, ...] = ()
    partial: int = 0
    most: int = 0
    # not shown, as measured loop structures are kept under what is, and hold for both
    least: int = field(default=0, repr=False)

    @property
    def is_weighted(self) -> bool:
        """Whether weights (or a scale per channel) are among the region's arguments."""
        return self.kind == "conv" or self.per_channel

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def pixels(self) -> int:
        return prod(self.space)

    def extent(self, timesteps: int) -> Pair | None:
        """Least and largest of whole numbers, summed over the steps that make one of ``timesteps``; None: any int32."""
        low, high = self.least, 2**self.planes - 1 if self.form == "bits" else self.most
        if self.form == "dense" and (low, high) == (0, 0):
            if self.values not in LARGEST:
                return None
            low, high = LEAST[self.values], LARGEST[self.values]
        summed = max(1, self.timesteps // timesteps)
        return low * summed, high * summed


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
    output. ``accumulator`` is the type of the currents, and with it says whether the region computes in whole numbers.
    ``ratios`` gives the binary places of tensor parameters that are ratios: int32 multiples of ``2**-places``.
    ``products`` is the type in which numbers are multiplied by ratios, ``quotients`` that in which they are divided:
    int32 and float32 where the caller has shown that it is enough.
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
    accumulator: Number = "float32"
    ratios: tuple[tuple[str, int], ...] = ()
    products: Literal["int32", "int64"] = "int64"
    # not shown, as measured loop structures are kept under what is, and hold for both
    quotients: Literal["float32", "float64"] = field(default="float64", repr=False)

    def __post_init__(self) -> None:
        problems = [Problem(text, where="CPU region") for text in _mistakes(self)]
        if problems:
            raise LdsnnError(problems)

    @property
    def number(self) -> Number:
        """Type of the neuron, its parameters and state, the bias and the membrane."""
        return "float32" if self.accumulator == "float32" else "int32"

    @property
    def parts(self) -> int:
        """Currents whose sum is the neurons' current, at each rate of steps."""
        return max((s.part + len(s.cuts) + 1 for s in self.sources), default=1)

    @property
    def emitted(self) -> Number:
        """Type of a dense output."""
        if self.neuron is None or self.number == "float32":
            return self.number
        return count_number(self.neuron.signal)

    @property
    def lanes(self) -> int:
        """Numbers in a vector: as many as a register holds of the narrowest sums, or of the bytes that are widened."""
        narrow = self.accumulator == "int16" or any(s.partial for s in self.sources)
        lanes = self.tuning.lanes * (2 if narrow else 1)
        if self.tuning.lanes != NEON or not any(self.walks_bits(s) and s.weights == "int8" for s in self.sources):
            return lanes
        # read as many weights as an instruction can, and widen their halves while they are added
        is_cut = self.channels > self.tuning.block
        return 4 * NEON if is_cut or -self.channels % (4 * NEON) < 2 * NEON else 2 * NEON

    def dot(self, source: Source) -> Dot | None:
        """The instruction that multiplies several inputs of a dense source at a time, if there is one that fits it."""
        if source.kind != "conv" or self.walks_bits(source) or self.is_depthwise(source):
            return None
        possible = (DOTS[name] for name in self.tuning.dots)
        return next((dot for dot in possible if self._fits(dot, source)), None)

    def _fits(self, dot: Dot, source: Source) -> bool:
        """Types and range: one product of int16 numbers and the next make an int32."""
        if dot.in_words:
            return source.form == "bits" and source.weights == dot.weights and 2**source.planes - 1 <= dot.largest
        extent = source.extent(self.timesteps)
        narrow = source.weights == "int8" or source.weights == dot.weights
        return self.number != "float32" and narrow and extent is not None and dot.shift(*extent) is not None

    def shift(self, source: Source) -> int:
        """What is added to a source's inputs for the sake of its dot product, see :meth:`~.dot.Dot.shift`."""
        dot, extent = self.dot(source), source.extent(self.timesteps)
        if dot is None or dot.in_words or extent is None:
            return 0
        return dot.shift(*extent) or 0

    def sums(self, source: Source) -> tuple[Number, int]:
        """(type, vector lanes) in which the source's products are added up."""
        if self.walks_bits(source) or source.kind != "conv":
            return ("int16" if source.partial else self.accumulator), self.lanes
        number = "int32" if self.dot(source) else self.accumulator
        return number, self.tuning.lanes * (2 if number == "int16" else 1)

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
        lanes, widest = self.lanes, self.tuning.block
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
        return self.block // self.lanes


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
    """``[blocks, taps, input channels of the block, block]``: what :func:`~.layout.pack_weights` makes.

    For dot products ``[blocks, taps, groups of input channels, block * group]``, a group of inputs of one output
    channel side by side; ``[..., block]`` where a group is one word. Where inputs are shifted, the first row behind the
    last tap holds what corrects the sums: an int32 in the place of each group of weights.
    """
    rows, dot = 1 if spec.is_depthwise(source) else input_range(spec, source, 0)[1], spec.dot(source)
    if dot is None:
        return (spec.blocks, source.taps, rows, spec.block)
    if dot.in_words:
        whole = WORD if dot.is_matrix and rows > WORD else dot.depth
        return (spec.blocks, source.taps, ceil(rows / whole) * whole // dot.group, spec.block)
    taps = source.taps + (spec.shift(source) != 0)
    return (spec.blocks, taps, ceil(rows / dot.group), spec.block * dot.group)


def weight_number(spec: RegionSpec, source: Source) -> Number:
    """Type of the packed weights: the source's, or what its dot product takes.

    Words of several weights are int32, and the bits of a float16 are an int16, which every compiler can read.
    """
    dot = spec.dot(source)
    if dot is not None:
        return "int32" if dot.in_words else dot.weights
    return "int16" if source.weights == "float16" else source.weights


def count_number(signal: Signal) -> Number:
    """Type of whole numbers of that signal in dense form."""
    return "uint8" if signal.is_bounded and signal.levels <= BYTE else "int32"  # type: ignore[operator]


def buffers(spec: RegionSpec) -> tuple[BufferSpec, ...]:
    """The arguments of the region's function in order, outputs last.

    ``x0 [w0] x1 [w1] ... [bias] [parameters: per channel, per neuron] [initial states]``, then
    ``y [membrane] [final states]``.
    """
    n = SYMBOLIC if spec.batch is None else spec.batch
    found: list[BufferSpec] = []
    for i, source in enumerate(spec.sources):
        found.append(_input(n, i, source))
        if source.is_weighted:
            shape = weight_shape(spec, source) if source.kind == "conv" else (spec.channels,)
            found.append(BufferSpec(f"w{i}", shape, weight_number(spec, source)))
    if spec.bias:
        found.append(BufferSpec("bias", (spec.channels,), spec.number))
    found += [BufferSpec(name, (spec.channels,), spec.number) for name in spec.per_channel]
    found += [BufferSpec(name, (spec.pixels, spec.channels), spec.number) for name in spec.per_neuron]
    states = [name for name, _ in spec.neuron.program.state] if spec.neuron and spec.state_io else []
    found += [BufferSpec(f"{name}_in", (n, spec.pixels, spec.channels), spec.number) for name in states]
    dense = (n, spec.timesteps, spec.pixels, spec.channels)
    bits = bits_shape(n, spec.timesteps, spec.planes, spec.pixels, spec.channels)
    in_bits = spec.output == "bits"
    found.append(BufferSpec("y", bits if in_bits else dense, "uint64" if in_bits else spec.emitted, True))
    if spec.membrane:
        found.append(BufferSpec("membrane", dense, spec.number, True))
    found += [BufferSpec(f"{name}_out", (n, spec.pixels, spec.channels), spec.number, True) for name in states]
    return tuple(found)


def _input(n: int | str, index: int, source: Source) -> BufferSpec:
    if source.form == "bits":
        return BufferSpec(
            f"x{index}", bits_shape(n, source.timesteps, source.planes, source.pixels, source.channels), "uint64"
        )
    return BufferSpec(f"x{index}", (n, source.timesteps, source.pixels, source.channels), source.values)


def _mistakes(spec: RegionSpec) -> list[str]:
    found = [text for i, s in enumerate(spec.sources) for text in _source_mistakes(spec, i, s)]
    tuning = spec.tuning
    if tuning.block % WORD or tuning.block < WORD:
        found.append(f"block {tuning.block} is not a multiple of {WORD}")
    if tuning.lanes not in (4, 8, 16, 32) or spec.lanes > 32:
        found.append(f"lanes is 4, 8, 16 or 32 (16 at most where sums are int16), not {tuning.lanes}")
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
    return found + [f"source {index}: {text}" for text in _number_mistakes(spec, source)]


def _number_mistakes(spec: RegionSpec, source: Source) -> list[str]:
    """Numbers of a source that do not go with the region's."""
    found, is_real = [], spec.accumulator == "float32"
    given = [source.weights] * source.is_weighted + [source.values] * (source.form == "dense")
    if any((number in ("float32", "float16")) != is_real for number in given):
        found.append(f"{' and '.join(given)} do not add up in {spec.accumulator}")
    if not is_real and source.scale != int(source.scale):
        found.append(f"a whole number is scaled by a whole number, not {source.scale}")
    if (source.part or source.cuts) and spec.accumulator != "int16":
        found.append(f"currents of {spec.accumulator} come in one part")
    if source.cuts and not (spec.walks_bits(source) and _rises((0, *source.cuts, source.taps))):
        found.append(f"kernel positions {source.cuts} do not part an event-driven source of {source.taps}")
    if source.partial and (spec.accumulator != "int32" or source.weights not in ("int8", "int16")):
        found.append(f"sums in int16 of {source.weights} weights widen into int32, not {spec.accumulator}")
    return found


def _rises(numbers: tuple[int, ...]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
