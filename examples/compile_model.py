"""Compile a SpikingJelly model, check it against PyTorch, save the bundle and load it back.

python examples/compile_model.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import ldsnn_compiler as ld

TIMESTEPS = 8


class Net(nn.Module):
    """A static image, held for eight timesteps, through two spiking layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer.Conv2d(1, 16, 3, padding=1),
            neuron.IFNode(v_reset=None),
            layer.AvgPool2d(2),
            layer.Flatten(),
            layer.Linear(16 * 4 * 4, 10),
            neuron.LIFNode(tau=2.0, v_threshold=0.125),
        )
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.unsqueeze(0).repeat(TIMESTEPS, 1, 1, 1, 1)).mean(0)


def main() -> None:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        expected = model(x)
    functional.reset_net(model)

    net = ld.trace(model, x)
    compiled = ld.compile(net, target="native", batch=None)
    answer = compiled(x)
    print("firing rates", answer.mean(0).tolist())
    print("spikes that differ from PyTorch:", int((answer != expected).sum()))

    with tempfile.TemporaryDirectory() as folder:
        compiled.save(Path(folder) / "net.ldsnn")
        again = ld.load(Path(folder) / "net.ldsnn")
        print("the loaded bundle answers the same:", torch.equal(again(x), answer))


if __name__ == "__main__":
    main()
