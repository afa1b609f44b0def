"""Does time follow spikes? Our kernels over densities and timesteps, event-driven against dense, interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import pairwise
from typing import Any

from rich.table import Table

from ldsnn_compiler.bench.run import Settings, Tell, calibrated, make, use_threads
from ldsnn_compiler.bench.versions import versions
from ldsnn_compiler.results import amount, machine_name, measure


@dataclass(frozen=True)
class Point:
    """One density and number of timesteps; spikes per sample over all layers, times in milliseconds."""

    timesteps: int
    density: float
    spikes: int
    ldsnn_ms: float
    ldsnn_ms_iqr: float
    dense_ms: float
    dense_ms_iqr: float

    @property
    def ratio(self) -> float:
        """Event-driven over dense; above 1 the dense kernel would have been the better choice."""
        return self.ldsnn_ms / self.dense_ms


def sweep(
    settings: Settings, densities: Sequence[float], timesteps: Sequence[int], tell: Tell = lambda text: None
) -> list[Point]:
    """Every combination, densities growing first."""
    threads, points = use_threads(settings.threads), []
    for steps in timesteps:
        for density in sorted(densities):
            tell(f"T={steps}, density {density}")
            network, _ = calibrated(replace(settings, timesteps=steps, density=density))
            event, dense = (make(name, network, threads) for name in ("ldsnn", "ldsnn_dense"))
            times = measure({"event": event.run, "dense": dense.run}, settings.repeats)
            spikes = sum(int(s.sum()) for s in network.spikes) // len(network.images)
            e, d = times["event"], times["dense"]
            points.append(Point(steps, density, spikes, e.median, e.iqr, d.median, d.iqr))
    return points


def growth(points: Sequence[Point]) -> list[dict[str, float]]:
    """Between neighbouring densities of one T: how many times more spikes, and how many times more time."""
    return [
        {"timesteps": a.timesteps, "from": a.density, "to": b.density,
         "spikes": b.spikes / max(1, a.spikes), "time": b.ldsnn_ms / a.ldsnn_ms}
        for a, b in pairwise(points)
        if a.timesteps == b.timesteps
    ]  # fmt: skip


def sweep_json(settings: Settings, points: Sequence[Point], threads: int) -> dict[str, Any]:
    """The sweep as plain JSON data."""
    return {
        "model": settings.network, "target": "native", "numerics": "fp32",
        "machine": machine_name(), "threads": threads,
        "settings": asdict(settings), "date": date.today().isoformat(), "versions": versions(),
        "points": [{**asdict(p), "ratio": p.ratio} for p in points],
        "growth": growth(points), "worst_ratio": max(p.ratio for p in points),
    }  # fmt: skip


def sweep_table(points: Sequence[Point]) -> Table:
    """Time against spikes."""
    table = Table(title="event-driven or dense, chosen by cost (ldsnn), against dense kernels forced")
    for title in ("T", "density", "spikes", "ldsnn ms", "dense ms", "ldsnn / dense", "ns a spike"):
        table.add_column(title, justify="right")
    for p in points:
        cells = [str(p.timesteps), f"{p.density:g}", amount(p.spikes), f"{p.ldsnn_ms:.2f}", f"{p.dense_ms:.2f}"]
        table.add_row(*cells, f"{p.ratio:.2f}", f"{p.ldsnn_ms * 1e6 / max(1, p.spikes):.1f}")
    return table
