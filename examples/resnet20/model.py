"""ResNet-20 for CIFAR-10 as a plain PyTorch network, to be converted to a spiking one.

The network is that of He et al. 2015 ("Deep residual learning", section 4.2) with option A shortcuts: where the
channels double, every second pixel is taken and the new channels are zeros, so shortcuts have no weights. The
pretrained weights are those of github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-Clause), ``cifar10_resnet20.npz``;
they and CIFAR-10 (``cifar10.npz``) lie in the folder that ``LDSNN_DATA`` names. Neither is part of this repository.

    export LDSNN_DATA=.../data
    ldsnn compile examples/resnet20/model.py:resnet20 --convert --data examples/resnet20/model.py:cifar10 --timesteps 64

Thresholds are read off training images only; every test image is in ``report``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DATA = Path(os.environ.get("LDSNN_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
"""Folder with ``cifar10.npz`` and ``pretrained/cifar10_resnet20.npz``."""

CALIBRATION_IMAGES = 2000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per colour, of images in [0, 1]: what the weights were trained with."""


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    ``[N, channels_in, H, W]`` to ``[N, channels, H / stride, W / stride]``.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.stride, self.new_channels = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """One block of the residual network."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """The input itself, or every second pixel of it with channels of zeros before and after (option A)."""
        if self.stride == 1:
            return x
        half = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))


class ResNet20(nn.Module):
    """Normalised images ``[N, 3, 32, 32]`` to class scores ``[N, 10]``: 0.27 M weights, 40.8 M multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, 1)
        self.layer2 = _stage(16, 32, 2)
        self.layer3 = _stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))


def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Block(channels_in, channels, stride), Block(channels, channels, 1), Block(channels, channels, 1)
    )


def resnet20() -> nn.Module:
    """The pretrained network in evaluation mode (91.7 % on the CIFAR-10 test images)."""
    model = ResNet20()
    with np.load(DATA / "pretrained" / "cifar10_resnet20.npz", allow_pickle=False) as weights:
        # BatchNorm's num_batches_tracked is not stored; it plays no part in evaluation.
        state = {name: torch.from_numpy(weights[name]) for name in weights.files}
    missing, unexpected = model.load_state_dict(state, strict=False)
    wrong = unexpected + [name for name in missing if not name.endswith("num_batches_tracked")]
    if wrong:
        raise ValueError(f"the weights do not fit ResNet-20: {', '.join(wrong)}")
    return model.eval()


def cifar10() -> dict[str, tuple[Tensor, Tensor]]:
    """``calibration``: the first 2,000 stored training images; ``report``: all 10,000 test images, official order."""
    with np.load(DATA / "cifar10.npz", allow_pickle=False) as data:
        return {
            "calibration": _split(data["x_train"][:CALIBRATION_IMAGES], data["y_train"][:CALIBRATION_IMAGES]),
            "report": _split(data["x_test"], data["y_test"]),
        }


def _split(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """uint8 ``[N, 32, 32, 3]`` images to normalised float32 ``[N, 3, 32, 32]``, labels to int64."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((x - mean) / std).contiguous(), torch.from_numpy(labels).long()
