"""How a region is cut into blocks of threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from ldsnn_compiler.targets.cpu.kernels.spec import WORD, RegionSpec, Source, Tuning, input_range, words
from ldsnn_compiler.targets.cpu.kernels.task import steps
from ldsnn_compiler.targets.cuda.gpu import LEAST_CHANNELS, LEAST_INPUTS, PAIRS, Gpu

#: instructions of tensor cores
MATRICES = ("mma-half", "mma-byte")
#: what a block may have without asking for more
MOST_THREADS = 1024
MOST_SHARED_BYTES = 48 * 1024


@dataclass(frozen=True)
class Launch:
    """A block of threads works on ``tile`` output positions (of all samples, one after the other) and one block of
    output channels, over all timesteps; every choice gives the same sums up to their order.

    ``width``: output channels of one thread. ``rows``: (position, timestep) pairs that are worked on at once.
    ``splits``: parts of the input that are added by different threads. ``times``: timesteps that one thread of a dense
    source holds at once. ``unroll``: spikes whose weights are on their way at once. ``matrices``: on tensor cores a row
    is a warp, of as many times 16 (position, timestep) pairs.
    """

    tile: int = 1
    width: int = 2
    rows: int = 8
    splits: int = 1
    times: int = 1
    unroll: int = 4
    matrices: int = 1

    def lanes(self, spec: RegionSpec) -> int:
        """Threads side by side along the channels."""
        return spec.block // self.width

    def threads(self, spec: RegionSpec) -> int:
        """Threads of a block."""
        return self.lanes(spec) * self.rows * self.splits

    def shared_bytes(self, spec: RegionSpec) -> int:
        """Shared memory of a block: currents at each of their rates, and what the neurons emit."""
        rates = {steps(spec, source) for source in spec.sources}
        counts = spec.timesteps if spec.output == "bits" else 0
        return self.tile * spec.block * (4 * self.splits * sum(rates) + counts)


def launch(spec: RegionSpec, multiprocessors: int) -> Launch:
    """A launch by rules of thumb: enough threads to hide the way to the weights, in blocks that fit.

    A warp is to walk one word, so 32 threads stand side by side where there are channels for them; each timestep has
    threads of its own. Where that leaves multiprocessors idle, the inputs are split; where there is more than enough,
    a block takes several positions, which find weights in a near cache. What was measured replaces all that.
    """
    if spec.tuning.launch:
        return Launch(*spec.tuning.launch)
    if any(is_matrix(spec, s) for s in spec.sources):
        return _of_matrices(spec, multiprocessors)
    width = next(w for w in (2, 1) if spec.block % w == 0 and (spec.block // w >= 32 or w == 1))
    rate = max((steps(spec, s) for s in spec.sources), default=1)
    times = max((t for t in (8, 4, 2, 1) if rate % t == 0), default=1) if not _walks(spec) else 1
    blocks = spec.pixels * (spec.batch or 1) * spec.blocks
    tile = max((t for t in (1, 2, 4) if blocks >= t * 16 * multiprocessors), default=1)
    lanes = spec.block // width
    rows = max(1, min(tile * rate // times, 256 // lanes))
    found = Launch(tile, width, rows, 1, times)
    room = MOST_THREADS // found.threads(spec)
    wanted = ceil(4 * multiprocessors * 256 / max(1, blocks * found.threads(spec)))
    splits = max(1, min(room, wanted, most_parts(spec), 8))
    return _fitting(spec, Launch(tile, width, rows, splits, times))


def _of_matrices(spec: RegionSpec, multiprocessors: int) -> Launch:
    """Blocks of up to 128 (position, timestep) pairs, as many as leave no multiprocessor without one and as fit; the
    input is split where a block would have few warps."""
    rate = max(steps(spec, s) for s in spec.sources)
    positions = spec.pixels * (spec.batch or 1)
    tiles = sorted({max(1, pairs // rate) for pairs in PAIRS})
    fitting = [t for t in tiles if _matrices(spec, t, rate).shared_bytes(spec) <= MOST_SHARED_BYTES]
    busy = [t for t in fitting if ceil(positions / t) * spec.blocks >= multiprocessors]
    return _fitting(spec, _matrices(spec, max(busy, default=tiles[0]), rate))


def _matrices(spec: RegionSpec, tile: int, rate: int) -> Launch:
    """The launch of so many positions, with as many splits as leave eight warps and fit."""
    matrices = 2 if tile * rate > 16 else 1
    rows = ceil(tile * rate / (16 * matrices))
    found = Launch(tile, spec.block // 32, rows, matrices=matrices)
    splits = [n for n in (8, 4, 2) if n * rows <= 8 and n <= most_parts(spec)]
    possible = (replace(found, splits=n) for n in splits)
    return next((f for f in possible if f.shared_bytes(spec) <= MOST_SHARED_BYTES), found)


def is_matrix(spec: RegionSpec, source: Source) -> bool:
    """Whether tensor cores multiply it."""
    dot = spec.dot(source)
    return dot is not None and dot.is_matrix


def _walks(spec: RegionSpec) -> bool:
    return any(spec.walks_bits(s) for s in spec.sources)


def most_parts(spec: RegionSpec) -> int:
    """Parts into which the input of a convolution can be split at most."""
    return max((parts(spec, s) for s in spec.sources if s.kind == "conv"), default=1)


def parts(spec: RegionSpec, source: Source) -> int:
    """Words of input that one output position reads, over all kernel positions."""
    rows = 1 if spec.is_depthwise(source) else words(input_range(spec, source, 0)[1])
    return source.taps * rows


def _fitting(spec: RegionSpec, wanted: Launch) -> Launch:
    """The launch with fewer splits and positions, until it fits into shared memory; a single one always may."""
    tile, splits = wanted.tile, wanted.splits
    while (found := replace(wanted, tile=tile, splits=splits)).shared_bytes(spec) > MOST_SHARED_BYTES:
        if tile * splits == 1:
            return found
        tile, splits = (tile, splits // 2) if splits > 1 else (tile // 2, splits)
    return found


def tuned(spec: RegionSpec, gpu: Gpu) -> RegionSpec:
    """The region in blocks of 64 output channels, as weights are packed for a GPU with the instructions of this one.

    Tensor cores take 32 channels or 64, and 16 inputs or more: fewer are multiplied on CUDA cores.
    """
    names = tuple(name for name in MATRICES if gpu.rate(name))
    whole = replace(spec, tuning=Tuning(lanes=32, block=WORD, dots=(*names, "dp4a")))
    wide = spec.channels > LEAST_CHANNELS
    if wide and any(is_matrix(whole, s) and s.channels // s.groups >= LEAST_INPUTS for s in spec.sources):
        return whole
    return replace(spec, tuning=Tuning(lanes=4, block=WORD, dots=("dp4a",)))
