"""The ANN twin of the Fashion-MNIST network: the same layers, ReLU in place of the neurons, trained the same way.

Its weights, committed beside this file, are its own: it shares none with the spiking network.

    OMP_NUM_THREADS=1 python examples/benchmarks/fashion_ann.py --out fashion_ann.safetensors      # train again
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from fashion_lif import augmented, fashion, training_images

WEIGHTS = Path(__file__).with_name("fashion_ann.safetensors")


def untrained() -> nn.Sequential:
    """Images ``[N, 1, 28, 28]`` in 0..1 to class scores ``[N, 10]``."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2, bias=False), nn.BatchNorm2d(16), nn.AvgPool2d(2), nn.ReLU(),
        nn.Conv2d(16, 48, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(),
        nn.Linear(1024, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def fashion_ann() -> nn.Module:
    """The trained network in evaluation mode."""
    model = untrained()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share classified correctly."""
    net.eval()
    with torch.no_grad():
        return float((torch.cat([net(part) for part in x.split(500)]).argmax(1) == y).float().mean())


def train(net: nn.Module, epochs: int, batch: int, rate: float) -> None:
    """AdamW with a one-cycle learning rate and the spiking network's augmentation, in bfloat16."""
    x, y = training_images()
    held_out = [part[:2000] for part in fashion()["calibration"]]
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3)
    batches = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches, pct_start=0.2)
    for epoch in range(epochs):
        started = time.monotonic()
        net.train()
        for chosen in torch.randperm(len(x), generator=generator)[: batches * batch].split(batch):
            images = augmented(x[chosen], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores = net(images)
            loss = F.cross_entropy(scores.float(), y[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(
            f"epoch {epoch + 1}: held out {accuracy(net, *held_out):.2%}, {time.monotonic() - started:.0f} s",
            flush=True,
        )


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=4e-3, help="greatest learning rate")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    net = untrained().to(memory_format=torch.channels_last)
    train(net, options.epochs, options.batch, options.rate)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, options.out)
    print(f"test images: {accuracy(net, *fashion()['report']):.2%}; wrote {options.out}")


if __name__ == "__main__":
    main()
