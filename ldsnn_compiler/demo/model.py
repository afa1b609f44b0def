"""A small convolutional SNN on the digits, written as a SpikingJelly user would write it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ldsnn_compiler.demo.data import digits_data
from ldsnn_compiler.errors import LdsnnError, Problem

try:
    from spikingjelly.activation_based import layer, neuron, surrogate
except ModuleNotFoundError as _error:
    raise LdsnnError(
        Problem(
            f"the demo network is written with SpikingJelly, and {_error.name} is not installed",
            hint="pip install 'ldsnn-compiler[demo]'",
        )
    ) from _error

__all__ = ["WEIGHTS", "DigitsNet", "digits_data", "digits_model"]

WEIGHTS = Path(__file__).with_name("digits.safetensors")
"""The committed weights; ``examples/digits/train.py`` writes them."""


class DigitsNet(nn.Module):
    """conv 1->32, conv 32->64, average pool, linear 1024->128, linear 128->10, mean over time.

    The convolutions (3x3, padding 1, BatchNorm) are followed by integrate-and-fire neurons with soft reset, the
    hidden linear layer by leaky ones (tau = 2, decayed input, soft reset); all thresholds are 1.

    Args:
        timesteps: how often the static image is shown.

    Neurons keep their membranes: call SpikingJelly's ``functional.reset_net`` between batches.
    """

    def __init__(self, timesteps: int = 16) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.conv1 = layer.Conv2d(1, 32, 3, padding=1, bias=False, step_mode="m")
        self.bn1 = layer.BatchNorm2d(32, step_mode="m")
        self.sn1 = neuron.IFNode(v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m")
        self.conv2 = layer.Conv2d(32, 64, 3, padding=1, bias=False, step_mode="m")
        self.bn2 = layer.BatchNorm2d(64, step_mode="m")
        self.sn2 = neuron.IFNode(v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m")
        self.pool = layer.AvgPool2d(2, step_mode="m")
        self.flatten = layer.Flatten(step_mode="m")
        self.fc1 = layer.Linear(1024, 128, step_mode="m")
        self.sn3 = neuron.LIFNode(
            tau=2.0, decay_input=True, v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m"
        )
        self.fc2 = layer.Linear(128, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, 1, 8, 8]`` to class scores ``[N, 10]``."""
        x = x.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1)
        x = self.sn1(self.bn1(self.conv1(x)))
        x = self.sn2(self.bn2(self.conv2(x)))
        x = self.flatten(self.pool(x))
        x = self.sn3(self.fc1(x))
        return torch.mean(self.fc2(x), dim=0)


def digits_model(timesteps: int = 16) -> nn.Module:
    """The trained network in evaluation mode; ``timesteps`` other than 16 runs the same weights longer or shorter."""
    model = DigitsNet(timesteps)
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()
