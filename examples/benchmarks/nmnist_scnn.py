"""The convolutional SNN of the NIR paper on N-MNIST: event frames of 1 ms, T0 = 340.

Three convolutions and two linear layers, integrate-and-fire neurons with a hard reset, sum pooling; trained in Sinabs
and published as github.com/neuromorphs/NIR, ``paper/02_cnn/cnn_sinabs.nir`` (BSD-3-Clause; Pedersen et al., Nature
Communications 15, 2024). It is read as it is, with dt = 1: a timestep adds up one frame. ``nir_paper_cnn_sinabs.nir``
and 1,100 recordings of N-MNIST (Orchard et al. 2015), ``nmnist_small.npz``, lie in the folder that ``LDSNN_DATA``
names. Neither is part of this repository.

    export LDSNN_DATA=.../data
    ldsnn run $LDSNN_DATA/nir/nir_paper_cnn_sinabs.nir --dt 1 --timesteps 340 \\
        --data examples/benchmarks/nmnist_scnn.py:nmnist --limit 100

The last layer's spikes, averaged over the run, are the class scores.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import ldsnn_compiler as ld

DATA = Path(os.environ.get("LDSNN_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
"""Folder with ``nmnist_small.npz`` and ``nir/nir_paper_cnn_sinabs.nir``."""

TIMESTEPS = 340
CALIBRATION, TEST, UNSEEN = 600, 100, 400
"""Training recordings that a search sees; test recordings, and training recordings beside them, that it reports on."""


def nmnist_scnn() -> ld.Graph:
    """The network with its output averaged over the run: frames ``[340, N, 2, 34, 34]`` to class scores ``[N, 10]``."""
    graph = ld.read(DATA / "nir" / "nir_paper_cnn_sinabs.nir", TIMESTEPS, dt=1)
    output = graph.outputs[0]
    rate = graph.insert("readout", output.operands[0], name="rate", mode="mean")
    graph.set_operand(output, 0, rate.result)
    graph.set_attrs(output, time="squeeze")
    return graph


def nmnist() -> dict[str, tuple[Tensor, Tensor]]:
    """Recordings as count frames ``[N, 340, 2, 34, 34]``, axes time (1 ms), polarity, y, x.

    ``report``: the 100 test recordings, then 400 training recordings; ``calibration``: the 600 others.
    """
    calibration, unseen = range(CALIBRATION), range(CALIBRATION, CALIBRATION + UNSEEN)
    return {
        "calibration": recordings([("train", i) for i in calibration]),
        "report": recordings([("test", i) for i in range(TEST)] + [("train", i) for i in unseen]),
    }


def nmnist_test() -> tuple[Tensor, Tensor]:
    """The 100 test recordings alone."""
    return recordings([("test", i) for i in range(TEST)])


def recordings(chosen: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
    """Frames and labels of recordings, given as (split, number); the last frame takes what comes after 340 ms. Frames
    are float16, which holds counts up to 2048 exactly."""
    with np.load(DATA / "nmnist_small.npz", allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    shape = (TIMESTEPS, 2, 34, 34)
    frames = torch.empty((len(chosen), *shape), dtype=torch.float16)
    labels = torch.empty(len(chosen), dtype=torch.int64)
    for n, (split, i) in enumerate(chosen):
        events = slice(*data[f"offsets_{split}"][i : i + 2])
        x, y, p, t = (data[f"{name}_{split}"][events] for name in "xypt")
        cells = np.ravel_multi_index((np.minimum(t // 1000, TIMESTEPS - 1), p, y, x), shape)
        frames[n] = torch.from_numpy(np.bincount(cells, minlength=frames[n].numel())).view(shape)
        labels[n] = int(data[f"labels_{split}"][i])
    return frames, labels
