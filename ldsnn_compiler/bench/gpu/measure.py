"""The half that needs a GPU: every row at every batch size, timed with CUDA events, its results compared."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from ldsnn_compiler.bench.gpu.folder import Folder, read
from ldsnn_compiler.bench.gpu.machine import Cuda, Machine
from ldsnn_compiler.bench.gpu.peers import theirs
from ldsnn_compiler.bench.gpu.rows import GpuRow, check_loads, images, light, needs_gpu, ours, repeated
from ldsnn_compiler.bench.versions import versions
from ldsnn_compiler.results import Report, Row, machine_name

Tell = Callable[[str], None]


@dataclass
class _Found:
    """What was measured: rows, which of them gave the reference's scores, how far the others' are from them, and why
    rows are missing. ``loaded``: libraries that could be. ``labels`` of the images, if there are any."""

    labels: torch.Tensor | None = None

    rows: list[Row] = field(default_factory=list)
    medians: dict[tuple[str, int], float] = field(default_factory=dict)
    identical: dict[str, bool] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, dict[str, float]] = field(default_factory=dict)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    loaded: int = 0


def run(
    path: Path,
    repeats: int = 100,
    budget: float = 440.0,
    tell: Tell = lambda text: None,
    machine: Machine | None = None,
) -> Report:
    """Measure what :func:`~.prepare.prepare` left in ``path``; no row is started after ``budget`` seconds. A rehearsal
    takes the smallest batch only."""
    machine = machine or Cuda()
    started, folder = perf_counter(), read(path)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    labels = folder.model.get("labels")
    found = _Found(labels=None if labels is None else torch.from_numpy(folder.arrays[labels]))
    mine, batches = ours(folder), folder.batches[:1] if machine.is_rehearsal else folder.batches
    runs = not (machine.is_rehearsal and needs_gpu(folder))
    _load(folder, found)
    with torch.inference_mode():
        spikes = _spikes(folder, found) if runs else {}
        for row in [*mine, *theirs(folder, machine.device)]:
            for batch in batches:
                name = f"{row.name}, batch {batch}"
                if perf_counter() - started > budget:
                    found.left_out[name] = f"no time was left after {budget:.0f} s"
                elif machine.is_rehearsal and row.needs_gpu:
                    found.left_out[name] = "needs a GPU"
                else:
                    tell(name)
                    with _told(found, name):
                        _measure(row, batch, repeats, found, machine)
        if runs:
            _profile(folder, mine, found, machine)
    return _report(folder, found, spikes, machine, perf_counter() - started)


def bench(
    target: str, network: str, timesteps: int, density: float, repeats: int, tell: Tell = lambda text: None
) -> Report:
    """Both halves on one machine, with PyTorch, all of TVM, and a GPU."""
    machine = Cuda()
    from ldsnn_compiler.bench.gpu.cases import built
    from ldsnn_compiler.bench.gpu.prepare import prepare

    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        prepare(Path(scratch), built(network, timesteps, density), target, tell=tell)
        return run(Path(scratch), repeats, tell=tell, machine=machine)


@contextmanager
def _told(found: _Found, name: str) -> Iterator[None]:
    """What fails on this device is told, and the rest is measured."""
    try:
        yield
    except Exception as error:
        found.left_out[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _load(folder: Folder, found: _Found) -> None:
    for entry in folder.entries:
        with _told(found, f"loading {entry.library}"):
            check_loads(folder, entry)
            found.loaded += 1


def _measure(row: GpuRow, batch: int, repeats: int, found: _Found, machine: Machine) -> None:
    name = f"{row.name}, batch {batch}"
    machine.tidy()
    call = row.make(batch)
    scores = call().float().cpu().reshape(batch, -1)
    times = machine.timed(call, repeats)
    if row.expected is not None:
        expected = repeated(row.expected, batch).reshape(batch, -1)
        found.identical[name] = torch.equal(scores, expected)
        found.scores[name] = compared(scores, expected, found.labels)
    found.medians[row.name, batch] = times.median
    found.rows.append(
        Row(
            name,
            timesteps=row.timesteps,
            sum_timesteps=sum(row.timesteps.values()) or None,
            latency_ms=times.median,
            latency_ms_iqr=times.iqr,
        )
    )


def compared(scores: torch.Tensor, expected: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, float]:
    """Scores ``[N, classes]`` beside those expected: samples, of how many the class is the same, the largest
    difference, and, with ``labels`` (in turn again where they are fewer), of how many it is right."""
    classes = scores.argmax(1)
    found = {
        "samples": len(scores),
        "same_class": int((classes == expected.argmax(1)).sum()),
        "largest_difference": float((scores - expected).abs().max()),
    }
    return found if labels is None else {**found, "right": int((classes == repeated(labels, len(scores))).sum())}


def _spikes(folder: Folder, found: _Found) -> dict[str, Any]:
    """Of every probed network how many neurons, timestep by timestep, do not emit what they should."""
    spikes = {}
    for entry in (e for e in folder.entries if e.probed):
        with _told(found, f"spikes of {entry.name}"):
            _, *layers = light(folder, entry)(images(folder, 1).numpy())
            wanted = [torch.from_numpy(folder.arrays[key]).long() for key in entry.spikes]
            mine = [(torch.from_numpy(x) / u).round().long() for x, u in zip(layers, entry.units, strict=True)]
            differing = sum(int((a != b).sum()) for a, b in zip(mine, wanted, strict=True))
            spikes[entry.name] = {"spikes": int(sum(each.sum() for each in wanted)), "differing": differing}
    return spikes


def _profile(folder: Folder, mine: Sequence[GpuRow], found: _Found, machine: Machine) -> None:
    """Microseconds of every kernel in one run, and its share of the limit; of the smallest batch and the largest of
    each of our rows."""
    limits = {f"{e.name}, batch {e.batch}": e.limits for e in folder.entries if not e.probed}
    for row in mine:
        for batch in sorted({folder.batches[0], folder.batches[-1]}):
            name = f"{row.name}, batch {batch}"
            if (row.name, batch) in found.medians:
                with _told(found, f"kernels of {name}"):
                    found.kernels[name] = machine.kernels(row.make(batch))
                    found.shares[name] = shares(limits[name], found.kernels[name])


def shares(limits: Mapping[str, float], taken: Mapping[str, float]) -> dict[str, float]:
    """Limit by time of every function that has both, microseconds."""
    return {name: round(least / taken[name], 3) for name, least in limits.items() if taken.get(name)}


def _report(folder: Folder, found: _Found, spikes: dict[str, Any], machine: Machine, seconds: float) -> Report:
    details = {
        **machine.facts(),
        "date": date.today().isoformat(),
        "versions": {**versions(), "cuda": torch.version.cuda},
        "settings": folder.settings,
        "compiled_for": folder.target,
        "seconds": round(seconds, 1),
        "libraries": {"prepared": len(folder.libraries), "loaded": found.loaded},
        "spikes": spikes,
        "identical_scores": found.identical,
        "scores": found.scores,
        "left_out": found.left_out,
        "kernels_us": found.kernels,
        "limit_shares": found.shares,
        "notes": {row.name: row.note for row in [*ours(folder), *theirs(folder, machine.device)]},
        "speedup": {str(batch): speedups(found.medians, batch) for batch in folder.batches},
    }
    threads = len(os.sched_getaffinity(0))
    return Report(folder.network, machine.device, "fp32 and int", machine_name(), threads, found.rows, details)


def speedups(medians: dict[tuple[str, int], float], batch: int) -> dict[str, float]:
    """How many times faster than SpikingJelly's faster row each row is at a batch size."""
    jelly = [ms for (name, size), ms in medians.items() if size == batch and name.startswith("spikingjelly")]
    if not jelly:
        return {}
    return {name: round(min(jelly) / ms, 3) for (name, size), ms in medians.items() if size == batch}
