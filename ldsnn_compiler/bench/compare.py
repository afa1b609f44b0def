"""Do the rows compute the same thing? Every spike that differs is located, and explained by its distance to the
threshold.

Float32 sums in another order differ in the last bits, and a membrane that close to its threshold may fire a step
earlier or later; the layers below then see other inputs. To tell such flips from errors, every layer is computed again
in float64 *from the row's own input spikes*: where the row's spikes differ from that, the membrane must lie within
rounding of the threshold.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ldsnn_compiler.bench.network import Layer, Network, pooled

TOLERANCE = 1e-4
"""A flip is explained by rounding if its membrane lies this close to the threshold, relative to the larger of the
threshold and the layer's largest current."""


@dataclass(frozen=True)
class LayerDifference:
    """Spikes of one layer of one row against the reference.

    ``differing``: spikes that are not the reference row's. ``flips``: neurons whose train is not what float64 makes of
    the row's own input; ``margin``: the largest relative distance ``|h - threshold|`` among them at the first step
    that differs; ``unexplained``: flips whose margin exceeds the tolerance.
    """

    layer: str
    spikes: int
    differing: int
    flips: int
    margin: float
    unexplained: int


def compare(network: Network, spikes: list[Tensor]) -> list[LayerDifference]:
    """One entry a layer; ``spikes`` are the row's, ``[T, N, *shape]`` before pools."""
    x, found = network.images[None], []
    for path, layer, mine, reference in zip(network.paths, network.layers, spikes, network.spikes, strict=True):
        mine = mine.reshape(reference.shape)
        flips, margins = _flips(layer, x, mine)
        found.append(
            LayerDifference(
                path, int(mine.sum()), int((mine != reference).sum()), flips,
                float(margins.max()) if flips else 0.0, int((margins > TOLERANCE).sum()),
            )
        )  # fmt: skip
        x = pooled(mine) if layer.pool else mine
    return found


def _flips(layer: Layer, x: Tensor, mine: Tensor) -> tuple[int, Tensor]:
    """Neurons whose spikes differ from float64's, and their margins at the first step that does."""
    drive = layer.drive(x.flatten(0, 1).double()).unflatten(0, x.shape[:2])
    scale = max(layer.threshold, float(drive.abs().max()))
    v = torch.zeros_like(drive[0])
    open_ = torch.ones_like(v, dtype=torch.bool)
    margins = []
    for t, fired in enumerate(mine):
        h = v + drive[min(t, len(drive) - 1)]
        differs = open_ & ((h >= layer.threshold) != (fired != 0))
        margins.append(((h - layer.threshold).abs() / scale)[differs])
        open_ &= ~differs
        v = h - fired.double() * layer.threshold
    every = torch.cat(margins)
    return every.numel(), every


def summary(network: Network, differences: list[LayerDifference], scores: Tensor, reference: Tensor) -> dict[str, Any]:
    """The comparison as JSON data: totals, and the layers that differ."""
    return {
        "spikes": sum(d.spikes for d in differences),
        "differing": sum(d.differing for d in differences),
        "flips": sum(d.flips for d in differences),
        "largest_margin": max((d.margin for d in differences), default=0.0),
        "unexplained": sum(d.unexplained for d in differences),
        "identical": not any(d.differing for d in differences),
        "largest_score_difference": float((scores - reference).abs().max()),
        "agreement": float((scores.argmax(1) == reference.argmax(1)).float().mean()),
        "layers": [asdict(d) for d in differences if d.differing or d.flips],
    }


def exact_summary(
    recorded: tuple[list[Tensor], Tensor], expected: tuple[list[Tensor], Tensor], network: Network, reference: Tensor
) -> dict[str, Any]:
    """The same for a row whose spikes and scores must be the ``expected`` ones, bit for bit: there is no rounding that
    explains a flip. ``reference`` are the scores of the network of real numbers, which it need not have."""
    spikes, scores = recorded
    differing = sum(int((a != b).sum()) for a, b in zip(spikes, expected[0], strict=True))
    moved = sum(int((a.reshape(b.shape) != b).sum()) for a, b in zip(spikes, network.spikes, strict=True))
    return {
        "spikes": sum(int(s.sum()) for s in spikes),
        "differing": differing,
        "flips": differing,
        "largest_margin": 0.0,
        "unexplained": differing,
        "identical": not differing and torch.equal(scores, expected[1]),
        "largest_score_difference": float((scores - expected[1]).abs().max()),
        "agreement": float((scores.argmax(1) == reference.argmax(1)).float().mean()),
        "layers": [],
        "reference": "interpreter in whole numbers",
        "moved_by_quantization": moved,
    }
