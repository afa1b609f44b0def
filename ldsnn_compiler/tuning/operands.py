"""What a kernel is timed on: its own weights, and random data of a density in place of what other kernels give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import torch

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.targets.plan import Plan

LARGEST_COUNT = 15
"""Of random whole numbers whose signal allows more."""


def types_of(graph: Graph) -> dict[str, Stream]:
    """Types of all values by name."""
    return {v.name: v.type for node in graph.nodes for v in node.results}


def value_name(buffer: str) -> str:
    """The value that a buffer holds: its name without the form."""
    return buffer.partition(":")[0]


def operand(
    made: Plan, name: str, types: Mapping[str, Stream], density: float, random: np.random.Generator, batch: int = 1
) -> torch.Tensor:
    """A weight as it is; spikes and numbers at random, zero but for their share ``density``."""
    if name in made.arguments:
        return made.arguments[name]()
    buffer = made.buffers[name]
    shape = buffer.sized(batch)
    if buffer.dtype == "uint64":
        return torch.from_numpy(_bits(shape, types[value_name(name)].shape[0], density, random))
    active = random.random(shape) < density
    if buffer.dtype.startswith("float"):
        return torch.from_numpy((random.random(shape) * active).astype(buffer.dtype))
    most = min(types[value_name(name)].signal.levels or LARGEST_COUNT, LARGEST_COUNT)
    return torch.from_numpy((random.integers(1, most + 1, shape) * active).astype(buffer.dtype))


def _bits(shape: Sequence[int], channels: int, density: float, random: np.random.Generator) -> Any:
    """Words ``[N, T, planes, P, words]`` of random counts; bits past the last channel are 0."""
    planes, words = shape[2], shape[-1]
    assert words == ceil(channels / 64)
    counts = np.zeros((*shape[:2], shape[3], words * 64), np.uint8)
    active = random.random((*counts.shape[:-1], channels)) < density
    counts[..., :channels] = active * random.integers(1, 2**planes, active.shape, dtype=np.uint16)
    layers = [np.packbits((counts >> p) & 1, axis=-1, bitorder="little").view(np.uint64) for p in range(planes)]
    return np.ascontiguousarray(np.stack(layers, axis=2))
