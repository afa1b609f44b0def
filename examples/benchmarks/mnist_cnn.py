"""The MNIST CNN of Sinabs as a plain PyTorch network, to be converted to a spiking one (T0 = 32).

Three convolutions without biases, each with ReLU and average pooling, and two linear layers. The pretrained weights are
those of github.com/synsense/sinabs, ``examples/mnist/mnist_params.pt`` (Apache-2.0), ``mnist_cnn_sinabs.npz``; they and
MNIST (``mnist.npz``) lie in the folder that ``LDSNN_DATA`` names. Neither is part of this repository.

    export LDSNN_DATA=.../data
    ldsnn optimize examples/benchmarks/mnist_cnn.py:mnist_cnn --convert --timesteps 32 \\
        --data examples/benchmarks/mnist_cnn.py:mnist --budget 0.005 --spikes both

Thresholds and schedules are chosen on training images only; every test image is in ``report``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

DATA = Path(os.environ.get("LDSNN_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
"""Folder with ``mnist.npz`` and ``pretrained/mnist_cnn_sinabs.npz``."""

CALIBRATION_IMAGES = 5000


def mnist_cnn() -> nn.Module:
    """The pretrained network in evaluation mode: images ``[N, 1, 28, 28]`` in 0..1 to class scores ``[N, 10]``."""
    model = nn.Sequential(
        nn.Conv2d(1, 20, 5, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(20, 32, 5, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(32, 128, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(128, 500, bias=False), nn.ReLU(),
        nn.Linear(500, 10, bias=False),
    )  # fmt: skip
    with np.load(DATA / "pretrained" / "mnist_cnn_sinabs.npz", allow_pickle=False) as weights:
        model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    return model.eval()


def mnist() -> dict[str, tuple[Tensor, Tensor]]:
    """``calibration``: the first 5,000 training images; ``report``: all 10,000 test images, official order."""
    with np.load(DATA / "mnist.npz", allow_pickle=False) as data:
        return {
            "calibration": _split(data["x_train"][:CALIBRATION_IMAGES], data["y_train"][:CALIBRATION_IMAGES]),
            "report": _split(data["x_test"], data["y_test"]),
        }


def _split(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """uint8 ``[N, 28, 28]`` images to float32 ``[N, 1, 28, 28]`` in 0..1, labels to int64."""
    return torch.from_numpy(images).unsqueeze(1).float() / 255, torch.from_numpy(labels).long()
