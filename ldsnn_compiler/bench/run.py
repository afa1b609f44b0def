"""Running a benchmark: rows built, compared, timed in turn in this process with the same threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldsnn_compiler.bench.compare import compare, exact_summary, summary
from ldsnn_compiler.bench.modules import Peer
from ldsnn_compiler.bench.network import CALIBRATION_IMAGES, SPECS, Network, build, logits
from ldsnn_compiler.bench.ours import OURS, our_peer
from ldsnn_compiler.bench.peers import PEERS, installed, missing
from ldsnn_compiler.bench.versions import versions
from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.results import Latency, Report, Row, machine_name, measure

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to run. ``rows`` empty means every row whose library is installed, ours of whole numbers where ``numerics``
    is int; ``threads`` None all cores. ``tune``: loop structures to try of each region of our rows before all are
    timed."""

    network: str = "vgg16-cifar"
    timesteps: int = 8
    density: float = 0.1
    batch: int = 1
    dyadic: bool = False
    repeats: int = 20
    threads: int | None = None
    seed: int = 0
    rows: Sequence[str] = ()
    numerics: str = "fp32"
    tune: int = 0


def row_names() -> list[str]:
    """Rows that can be built here."""
    return [*OURS, *installed()]


def bench(settings: Settings, tell: Tell = lambda text: None) -> Report:
    """Build, compare and time the rows."""
    names = _rows(settings)
    threads = use_threads(settings.threads)
    network, source = calibrated(settings)
    reference = logits(network, network.spikes[-1])
    peers, compared = [], {}
    for name in names:
        tell(f"building {name}")
        peer = make(name, network, threads, settings.tune)
        if peer.record is not None:
            compared[name] = _compared(peer, network, reference)
        peers.append(peer)
    tell(f"timing {', '.join(names)}: {settings.repeats} rounds")
    times = measure({p.name: p.run for p in peers}, settings.repeats)
    rows = [_row(p, network, times[p.name], compared.get(p.name)) for p in peers]
    details = {**_details(settings, network, source), "notes": {p.name: p.note for p in peers}, "compared": compared}
    details["left_out"] = {} if settings.rows else {name: f"not installed: {what}" for name, what in missing().items()}
    details["integers"] = {p.name: p.extra["integers"] for p in peers if "integers" in p.extra}
    details["tuned_regions"] = {p.name: p.extra["tuned_regions"] for p in peers if "tuned_regions" in p.extra}
    details["speedup_over_spikingjelly"] = _speedup(times)
    details["compile_seconds"] = {p.name: p.extra["compile_seconds"] for p in peers if "compile_seconds" in p.extra}
    return Report(settings.network, "native", settings.numerics, machine_name(), threads, rows, details)


def make(name: str, network: Network, threads: int, trials: int = 0) -> Peer:
    """One row."""
    if name in OURS:
        return our_peer(network, threads, name, trials)
    return PEERS[name][1](network)


def _compared(peer: Peer, network: Network, reference: Tensor) -> dict[str, Any]:
    assert peer.record is not None
    recorded = peer.record()
    if peer.expected is not None:
        return exact_summary(recorded, peer.expected(), network, reference)
    return summary(network, compare(network, recorded[0]), recorded[1], reference)


def use_threads(threads: int | None) -> int:
    """Give PyTorch that many threads (default: all cores this process may use); our own rows are compiled for as
    many."""
    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    return count


def calibrated(settings: Settings) -> tuple[Network, str]:
    """The network, and what its images are: CIFAR-10 test images where ``LDSNN_DATA`` has them, else seeded random
    ones."""
    images, source = _images(settings)
    with torch.no_grad():
        network = build(
            settings.network, settings.timesteps, settings.density, settings.batch,
            dyadic=settings.dyadic, seed=settings.seed, images=images,
        )  # fmt: skip
    return network, source


def _images(settings: Settings) -> tuple[Tensor | None, str]:
    folder = os.environ.get("LDSNN_DATA")
    file = Path(folder) / "cifar10.npz" if folder else None
    if (
        settings.network not in SPECS
        or SPECS[settings.network].shape != (3, 32, 32)
        or file is None
        or not file.exists()
    ):
        return None, "random"
    with np.load(file, allow_pickle=False) as arrays:
        pixels = arrays["x_test"][: max(settings.batch, CALIBRATION_IMAGES)]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, "CIFAR-10 test images"


def _rows(settings: Settings) -> list[str]:
    if settings.numerics not in ("fp32", "int"):
        raise LdsnnError(Problem(f"is fp32 or int, not {settings.numerics!r}", attribute="numerics"))
    known = row_names()
    lacking, hint = missing(), f"there are {', '.join(known)}"
    unknown = [name for name in settings.rows if name not in known]
    if unknown:
        why = {name: f"not installed: {lacking[name]}" if name in lacking else "no such row" for name in unknown}
        raise LdsnnError(Problem(why[name], where=name, hint=hint) for name in unknown)
    if settings.rows:
        return [name for name in known if name in settings.rows]
    return [name for name in known if name not in OURS or settings.numerics == "int" or OURS[name].numerics == "fp32"]


def _row(peer: Peer, network: Network, latency: Latency, compared: Mapping[str, Any] | None) -> Row:
    if compared is None:
        return Row(peer.name, latency_ms=latency.median, latency_ms_iqr=latency.iqr)
    work = peer.extra.get("work", {})
    return Row(
        peer.name,
        timesteps=dict.fromkeys(network.paths, network.timesteps),
        levels=dict.fromkeys(network.paths, 1),
        agreement=compared["agreement"],
        synaptic_updates=work.get("synaptic_updates"),
        synaptic_updates_weighted=work.get("synaptic_updates_weighted"),
        neurons_evaluated=work.get("neurons_evaluated"),
        sum_timesteps=network.timesteps * len(network.paths),
        latency_ms=latency.median,
        latency_ms_iqr=latency.iqr,
    )


def _details(settings: Settings, network: Network, source: str) -> dict[str, Any]:
    layers = [
        {"layer": path, "rate": layer.rate, "input_nonzero": layer.input_nonzero, "threshold": layer.threshold}
        for path, layer in zip(network.paths, network.layers, strict=True)
    ]
    return {
        "settings": asdict(settings),
        "date": date.today().isoformat(),
        "versions": versions(),
        "images": source,
        "layers": layers,
    }


def _speedup(times: Mapping[str, Latency]) -> dict[str, float]:
    """How many times faster than SpikingJelly each row is, from the medians."""
    if "spikingjelly" not in times:
        return {}
    return {name: times["spikingjelly"].median / t.median for name, t in times.items()}
