"""A convolutional SNN of leaky neurons, trained directly on Fashion-MNIST with surrogate gradients (T0 = 16).

Written with SpikingJelly 2. Every timestep shows the image itself, so the first convolution is a constant current. The
weights are committed beside this file, which is also the script that trained them: the first epochs at T = 4 to save
time, then at T = 16, never under a schedule. They classify 91.60 % of the test images. Fashion-MNIST
(``fashion_mnist.npz``) lies in the folder that ``LDSNN_DATA`` names; where it does not, torchvision's copy is used. It
is not part of this repository.

    export LDSNN_DATA=.../data
    ldsnn optimize examples/benchmarks/fashion_lif.py:fashion_lif --timesteps 16 \\
        --data examples/benchmarks/fashion_lif.py:fashion --budget 0.005 --spikes both
    OMP_NUM_THREADS=1 python examples/benchmarks/fashion_lif.py --out fashion_lif.safetensors      # train again

The last 5,000 training images are held out of the training, for the choice of schedules; every test image is in
``report``.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

DATA = Path(os.environ.get("LDSNN_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
"""Folder with ``fashion_mnist.npz``."""

WEIGHTS = Path(__file__).with_name("fashion_lif.safetensors")
TIMESTEPS = 16
CALIBRATION_IMAGES = 5000
TAU = 8.0
THRESHOLD = 1.0


class FashionNet(nn.Module):
    """Three convolutions and two linear layers; leaky neurons with soft reset, ``h = v - v / tau + x``, between them.

    Pooling comes before the first neurons and strides do it after, so that all values between layers are spikes.
    Membranes are kept: call SpikingJelly's ``functional.reset_net`` between batches.

    Args:
        timesteps: how often the static image is shown.
    """

    def __init__(self, timesteps: int = TIMESTEPS) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.conv1 = layer.Conv2d(1, 16, 5, padding=2, bias=False, step_mode="m")
        self.bn1 = layer.BatchNorm2d(16, step_mode="m")
        self.pool = layer.AvgPool2d(2, step_mode="m")
        self.sn1 = make_lif()
        self.conv2 = layer.Conv2d(16, 48, 3, stride=2, padding=1, bias=False, step_mode="m")
        self.bn2 = layer.BatchNorm2d(48, step_mode="m")
        self.sn2 = make_lif()
        self.conv3 = layer.Conv2d(48, 64, 3, stride=2, padding=1, bias=False, step_mode="m")
        self.bn3 = layer.BatchNorm2d(64, step_mode="m")
        self.sn3 = make_lif()
        self.flatten = layer.Flatten(step_mode="m")
        self.fc1 = layer.Linear(1024, 128, step_mode="m")
        self.sn4 = make_lif()
        self.fc2 = layer.Linear(128, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, 1, 28, 28]`` in 0..1 to class scores ``[N, 10]``, the mean over time."""
        x = x.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1)
        x = self.sn1(self.pool(self.bn1(self.conv1(x))))
        x = self.sn2(self.bn2(self.conv2(x)))
        x = self.sn3(self.bn3(self.conv3(x)))
        x = self.sn4(self.fc1(self.flatten(x)))
        return torch.mean(self.fc2(x), dim=0)


def make_lif() -> nn.Module:
    """The neurons of one layer. They remember about eight steps: long enough for fewer, longer steps to add up."""
    return neuron.LIFNode(
        tau=TAU, decay_input=False, v_threshold=THRESHOLD, v_reset=None, surrogate_function=surrogate.ATan(),
        step_mode="m",
    )  # fmt: skip


def fashion_lif() -> nn.Module:
    """The trained network in evaluation mode."""
    model = FashionNet()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


# ---- data


def fashion() -> dict[str, tuple[Tensor, Tensor]]:
    """``calibration``: 5,000 training images that the training did not see; ``report``: all 10,000 test images."""
    x, y, x_test, y_test = _arrays()
    return {
        "calibration": _split(x[-CALIBRATION_IMAGES:], y[-CALIBRATION_IMAGES:]),
        "report": _split(x_test, y_test),
    }


def training_images() -> tuple[Tensor, Tensor]:
    """The other 55,000."""
    x, y, _, _ = _arrays()
    return _split(x[:-CALIBRATION_IMAGES], y[:-CALIBRATION_IMAGES])


def _arrays() -> tuple[np.ndarray, ...]:
    """Training images and labels, test images and labels, uint8, in the official order."""
    if (DATA / "fashion_mnist.npz").exists():
        with np.load(DATA / "fashion_mnist.npz", allow_pickle=False) as data:
            return tuple(data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    from torchvision.datasets import FashionMNIST

    sets = [FashionMNIST(DATA, train=train, download=True) for train in (True, False)]
    return tuple(a.numpy() for each in sets for a in (each.data, each.targets))


def _split(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """uint8 ``[N, 28, 28]`` images to float32 ``[N, 1, 28, 28]`` in 0..1, labels to int64."""
    return torch.from_numpy(images).unsqueeze(1).float() / 255, torch.from_numpy(labels).long()


# ---- training


class Lif(torch.autograd.Function):
    """SpikingJelly's LIFNode of this network over all timesteps, with its ATan surrogate (alpha = 2), reset detached.

    One pass over the steps in place, several times faster than autograd through each of them. The current ``x`` is
    ``[T, N, ...]``; ``[1, N, ...]`` is held for ``timesteps`` steps. Returns spikes ``[timesteps, N, ...]``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, timesteps: int) -> Tensor:
        """Keeps the surrogate's derivative ``1 / (1 + (pi (h - threshold))^2)`` for the way back."""
        spikes, slopes = (x.new_empty_strided((timesteps, *x.shape[1:]), x.stride()) for _ in range(2))
        v = torch.zeros_like(x[0])
        for t in range(timesteps):
            v.sub_(v / TAU).add_(x[t % len(x)])
            torch.ge(v, THRESHOLD, out=spikes[t])
            torch.sub(v, THRESHOLD, out=slopes[t]).square_().mul_(torch.pi**2).add_(1).reciprocal_()
            v.sub_(spikes[t], alpha=THRESHOLD)
        ctx.save_for_backward(slopes)
        ctx.held = len(x) == 1
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """``dh[t] = slope[t] ds[t] + (1 - 1/tau) dh[t+1]``, which takes the place of the slopes."""
        (slopes,), (grad,) = ctx.saved_tensors, grads
        for t in reversed(range(len(slopes))):
            slopes[t].mul_(grad[t])
            if t + 1 < len(slopes):
                slopes[t].add_(slopes[t + 1], alpha=1 - 1 / TAU)
        return (slopes.sum(0, keepdim=True) if ctx.held else slopes), None


def fast_forward(net: FashionNet, x: Tensor, timesteps: int) -> tuple[Tensor, list[Tensor]]:
    """Scores ``[N, 10]`` and the spikes of every layer, the same as the model's own but quick to train through."""
    held = net.pool(net.bn1(net.conv1(x.unsqueeze(0))))[0].contiguous(memory_format=torch.channels_last)
    s1 = Lif.apply(held.unsqueeze(0).float(), timesteps)
    s2 = Lif.apply(net.bn2(net.conv2(s1)).float(), timesteps)
    s3 = Lif.apply(net.bn3(net.conv3(s2)).float(), timesteps)
    s4 = Lif.apply(net.fc1(s3.flatten(2)).float(), timesteps)
    return net.fc2(s4.mean(0)), [s1, s2, s3, s4]


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images mirrored, and the batch moved by up to one pixel in both directions."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    row, column = torch.randint(0, 3, (2,), generator=generator).tolist()
    return F.pad(torch.where(mirrored, x.flip(3), x), (1, 1, 1, 1))[:, :, row : row + 28, column : column + 28]


def accuracy(net: FashionNet, x: Tensor, y: Tensor, timesteps: int = TIMESTEPS) -> float:
    """Share classified correctly."""
    net.eval()
    with torch.no_grad():
        scores = torch.cat([fast_forward(net, part, timesteps)[0] for part in x.split(100)])
    return float((scores.argmax(1) == y).float().mean())


def differing_spikes(net: FashionNet, x: Tensor) -> float:
    """Share of the neurons' spikes in which SpikingJelly's own forward pass and :func:`fast_forward` differ."""
    net.eval()
    seen: list[Tensor] = []
    neurons = (net.sn1, net.sn2, net.sn3, net.sn4)
    hooks = [each.register_forward_hook(lambda _m, _x, out: seen.append(out)) for each in neurons]
    functional.reset_net(net)
    with torch.no_grad():
        net(x)
        ours = fast_forward(net, x, net.timesteps)[1]
    functional.reset_net(net)
    for hook in hooks:
        hook.remove()
    return sum(int((a != b).sum()) for a, b in zip(ours, seen, strict=True)) / sum(a.numel() for a in seen)


def train(net: FashionNet, plan: list[int], batch: int, rate: float, penalty: float, out: Path) -> None:
    """AdamW with a one-cycle learning rate; ``plan[i]`` timesteps in epoch i, after each of which weights are saved.

    Convolutions and linear layers are trained in bfloat16, which the figures printed are not.
    """
    x, y = training_images()
    held_out = [part[:2000] for part in fashion()["calibration"]]
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3)
    batches = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=len(plan) * batches, pct_start=0.2)
    for epoch, timesteps in enumerate(plan):
        started, losses = time.monotonic(), 0.0
        net.train()
        for chosen in torch.randperm(len(x), generator=generator)[: batches * batch].split(batch):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores, spikes = fast_forward(net, augmented(x[chosen], generator), timesteps)
            loss = F.cross_entropy(scores.float(), y[chosen], label_smoothing=0.05)
            if penalty:
                loss = loss + penalty * torch.stack([s.mean() for s in spikes]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += float(loss.detach())
        save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, out)
        rates = [f"{float(s.detach().mean()):.3f}" for s in spikes]
        found = accuracy(net, held_out[0], held_out[1])
        seconds = time.monotonic() - started
        print(
            f"epoch {epoch + 1}, T={timesteps}: loss {losses / batches:.3f}, held out at T={TIMESTEPS} {found:.2%}, "
            f"firing rates {rates}, {seconds:.0f} s", flush=True,
        )  # fmt: skip


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="4x6,16x6", help="timesteps x epochs, in order")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3, help="greatest learning rate")
    parser.add_argument("--rate-penalty", type=float, default=0.0, help="times the mean firing rate, added to the loss")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    net = FashionNet().to(memory_format=torch.channels_last)
    plan = [int(steps) for part in options.plan.split(",") for steps in [part.split("x")[0]] * int(part.split("x")[1])]
    train(net, plan, options.batch, options.rate, options.rate_penalty, options.out)
    x, y = fashion()["report"]
    print(f"SpikingJelly's forward pass differs in {differing_spikes(net, x[:100]):.2e} of the spikes")
    print(f"test images at T={TIMESTEPS}: {accuracy(net, x, y):.2%}; wrote {options.out}")


if __name__ == "__main__":
    main()
