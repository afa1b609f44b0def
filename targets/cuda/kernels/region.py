"""One function per region: blocks of threads that add currents, scan neurons, and pack what they emit.

A block goes through three phases with a barrier between them: threads, or warps with matrices, add the currents of
their channels, positions and timesteps into shared memory; then a thread per neuron takes its membrane through all
timesteps; then a thread per word gathers 64 counts into bits. A machine that has no threads does it in loops
(:mod:`ldsnn_compiler.targets.cuda.emulate`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.spec import RegionSpec, Source, buffers
from ldsnn_compiler.targets.cpu.kernels.task import steps
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Expr
from ldsnn_compiler.targets.cuda.kernels.launch import Launch


@dataclass(frozen=True)
class Block:
    """What the emitters of one block share.

    ``positions``: how many there are in all samples. ``first``: the block's first one. ``channels``: number of its
    block of channels. ``currents``: per rate, shared ``[splits, tile * rate, block]``.
    """

    spec: RegionSpec
    launch: Launch
    buffers: Mapping[str, Buffer]
    positions: Expr
    first: Expr
    channels: Expr
    thread: Expr
    currents: Mapping[int, Buffer]
    counts: Buffer

    @property
    def first_channel(self) -> Expr:
        return self.channels * self.spec.block

    def current(self, source: Source) -> Buffer:
        """Where the source's current goes."""
        return self.currents[steps(self.spec, source)]

    @contextmanager
    def items(self, count: int) -> Iterator[Expr]:
        """``count`` things to do, dealt out to all threads of the block."""
        threads = self.launch.threads(self.spec)
        with T.serial(ceil(count / threads)) as turn:
            item = tir.let(turn * threads + self.thread)
            with tir.when(True if count % threads == 0 else item < count):
                yield item

    def position(self, number: Expr) -> tuple[Expr, Expr]:
        """(sample, pixel) of a position of the tile."""
        at = self.first + number
        return tir.let(tirx.floordiv(at, self.spec.pixels)), tir.let(tirx.floormod(at, self.spec.pixels))

    def exists(self, number: Expr) -> Expr:
        """Whether a position of the tile is one."""
        if self.launch.tile == 1:
            return True
        return self.first + number < self.positions


def region(spec: RegionSpec, launch: Launch) -> Any:
    """The region as a TVM PrimFunc over threads; arguments as of a region on a CPU."""
    function = tir.function(buffers(spec), lambda found, batch: _blocks(spec, launch, found, batch))
    return function.with_attr("tirx.is_scheduled", True)


def _blocks(spec: RegionSpec, launch: Launch, found: Mapping[str, Buffer], batch: Expr) -> None:
    samples: Expr = spec.batch if batch is None else batch
    positions = samples * spec.pixels
    tiles = -(-positions // launch.tile) if batch is None else tirx.floordiv(positions + launch.tile - 1, launch.tile)
    with (
        T.thread_binding(0, tiles * spec.blocks, thread="blockIdx.x") as number,
        T.thread_binding(0, launch.threads(spec), thread="threadIdx.x") as thread,
    ):
        _phases(
            Block(
                spec,
                launch,
                found,
                positions=tir.int32(positions),
                first=tir.let(tir.int32(tirx.floordiv(number, spec.blocks)) * launch.tile),
                channels=tir.let(tir.int32(tirx.floormod(number, spec.blocks))),
                thread=thread,
                currents={n: _shared((launch.splits, launch.tile * n, spec.block), spec.number) for n in _rates(spec)},
                counts=_shared((launch.tile * spec.timesteps, spec.block), "uint8") if spec.output == "bits" else None,
            )
        )


def _phases(block: Block) -> None:
    from ldsnn_compiler.targets.cuda.kernels import scan, sources

    sources.emit(block)
    if block.spec.sources:
        barrier()
    scan.emit(block)
    if block.spec.output == "bits":
        barrier()
        scan.pack(block)


def barrier() -> None:
    """Wait for all threads of the block."""
    T.evaluate(T.tvm_storage_sync("shared"))


def registers(count: int, dtype: str) -> Buffer:
    """Memory of one thread."""
    return T.sblock_alloc_buffer((count,), dtype, scope="local", layout=None)


def _shared(shape: tuple[int, ...], dtype: str) -> Buffer:
    return T.sblock_alloc_buffer(shape, dtype, scope="shared", layout=None)


def _rates(spec: RegionSpec) -> list[int]:
    return sorted({steps(spec, source) for source in spec.sources}, reverse=True)
