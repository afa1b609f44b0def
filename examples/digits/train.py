"""Train the demo network on scikit-learn's digits and write its weights.

    OMP_NUM_THREADS=1 python examples/digits/train.py [--epochs 40] [--out digits.safetensors]

Surrogate gradients (ATan) through 4, 8 or 16 timesteps. In every batch each neuron layer draws its own number of
timesteps, and its input current is averaged over the base steps that one of its own covers, so that the weights
also serve under a per-layer schedule. A small penalty on the firing rates keeps the spikes, and with them the
synaptic updates, few. Prints the accuracy of the calibration split, never the report split, while it trains; at the
end the report split once, for uniform T = 16, 8, 4, 2, 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from ldsnn_compiler.demo.data import Split, digits_splits
from ldsnn_compiler.demo.model import WEIGHTS, DigitsNet

TIMESTEPS = (4, 8, 16)


def mean_resample(x: Tensor, timesteps: int) -> Tensor:
    """Average ``[T, ...]`` over equal groups of steps to ``[timesteps, ...]``; repeat it when that is longer."""
    if timesteps > len(x):
        return x.repeat_interleave(timesteps // len(x), dim=0)
    return x.unflatten(0, (timesteps, -1)).mean(dim=1)


def forward_per_layer(net: DigitsNet, x: Tensor, steps: list[int]) -> tuple[Tensor, Tensor]:
    """Scores ``[N, 10]`` and the mean firing rate, with ``steps[i]`` timesteps in neuron layer i."""
    drive = net.bn1(net.conv1(x.unsqueeze(0)))
    s1 = net.sn1(mean_resample(drive, steps[0]))
    s2 = net.sn2(mean_resample(net.bn2(net.conv2(s1)), steps[1]))
    current = mean_resample(net.fc1(net.flatten(net.pool(s2))), steps[2])
    # A leaky neuron keeps its base step: it sees the averaged current, held.
    s3 = net.sn3(mean_resample(current, max(TIMESTEPS)))
    return net.fc2(s3).mean(dim=0), torch.stack([s.mean() for s in (s1, s2, s3)]).mean()


def shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to one pixel in both directions, filling with zeros."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)
    row, column = torch.randint(0, 3, (2, len(x)), generator=generator)
    return windows[torch.arange(len(x)), :, row, column]


def accuracy(net: DigitsNet, split: Split, timesteps: int) -> float:
    """Share of ``split`` classified correctly by the network as it is, at uniform ``timesteps``."""
    net.eval()
    net.timesteps = timesteps
    functional.reset_net(net)
    with torch.no_grad():
        hits = net(torch.from_numpy(split[0])).argmax(1) == torch.from_numpy(split[1])
    functional.reset_net(net)
    return float(hits.float().mean())


def firing_rates(net: DigitsNet, split: Split) -> list[float]:
    """Mean firing rate of the three neuron layers on ``split`` at 16 timesteps."""
    rates: list[float] = []
    hooks = [
        sn.register_forward_hook(lambda _m, _i, out: rates.append(float(out.mean())))
        for sn in (net.sn1, net.sn2, net.sn3)
    ]
    accuracy(net, split, 16)
    for hook in hooks:
        hook.remove()
    return rates


def train(net: DigitsNet, splits: dict[str, Split], epochs: int, batch: int, rate_penalty: float) -> None:
    """AdamW with a one-cycle learning rate; prints one line every ten epochs."""
    x, y = (torch.from_numpy(part) for part in splits["train"])
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-3)
    batches = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * batches)
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(x), generator=generator)
        for chosen in order[: batches * batch].split(batch):
            steps = [TIMESTEPS[int(i)] for i in torch.randint(0, len(TIMESTEPS), (3,), generator=generator)]
            scores, rate = forward_per_layer(net, shift(x[chosen], generator), steps)
            loss = nn.functional.cross_entropy(scores, y[chosen], label_smoothing=0.05) + rate_penalty * rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            functional.reset_net(net)
        if epoch % 10 == 9:
            calibration = [f"{accuracy(net, splits['calibration'], t):.3f}" for t in (16, 8, 4)]
            print(f"epoch {epoch + 1}: loss {float(loss.detach()):.3f}, calibration at T=16, 8, 4: {calibration}")


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate-penalty", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    net, splits = DigitsNet(), digits_splits()
    train(net, splits, options.epochs, options.batch, options.rate_penalty)
    for timesteps in (16, 8, 4, 2, 1):
        print(f"report split, T={timesteps}: {accuracy(net, splits['report'], timesteps):.2%}")
    print(
        "firing rates of sn1, sn2, sn3 on the report split:", [f"{r:.3f}" for r in firing_rates(net, splits["report"])]
    )
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
