"""The half that needs a GPU: every row at every batch size, timed with CUDA events, its results compared."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from ldsnn_compiler.bench.gpu.folder import Folder, network_of, read
from ldsnn_compiler.bench.gpu.rows import GpuRow, Run, images, light, ours, theirs
from ldsnn_compiler.bench.network import Network
from ldsnn_compiler.bench.run import versions
from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.results import Latency, Report, Row, machine_name

Tell = Callable[[str], None]
WARM_UP = 10
#: where a row stops being repeated
MOST_SECONDS = 3.0


@dataclass
class _Found:
    """What was measured: rows, which of them gave the reference's scores, and why others are missing."""

    rows: list[Row]
    medians: dict[tuple[str, int], float]
    identical: dict[str, bool]
    left_out: dict[str, str]
    kernels: dict[str, dict[str, float]]
    shares: dict[str, dict[str, float]]


def run(path: Path, repeats: int = 100, budget: float = 440.0, tell: Tell = lambda text: None) -> Report:
    """Measure what :func:`~.prepare.prepare` left in ``path``; no row is started after ``budget`` seconds."""
    check_device()
    started, folder = perf_counter(), read(path)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    network, found = network_of(folder), _Found([], {}, {}, {}, {}, {})
    batches = sorted({e.batch for e in folder.entries if not e.probed})
    with torch.inference_mode():
        spikes = _spikes(folder, network)
        for row in [*ours(folder), *theirs(network)]:
            for batch in batches:
                name = f"{row.name}, batch {batch}"
                if perf_counter() - started > budget:
                    found.left_out[name] = f"no time was left after {budget:.0f} s"
                    continue
                tell(name)
                _measure(row, batch, repeats, found)
        _profile(folder, found)
    return _report(folder, found, spikes, batches, perf_counter() - started)


def check_device() -> None:
    """Raise where nothing can be measured."""
    if not torch.cuda.is_available():
        hint = "python -m ldsnn_compiler.bench.gpu prepare FOLDER compiles here what a machine with one then runs"
        raise LdsnnError(Problem("no CUDA device here, or a PyTorch that cannot use it", where="bench", hint=hint))


def bench(
    target: str, network: str, timesteps: int, density: float, repeats: int, tell: Tell = lambda text: None
) -> Report:
    """Both halves on one machine, with PyTorch, all of TVM, and a GPU."""
    from ldsnn_compiler.bench.gpu.prepare import prepare

    check_device()
    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        prepare(Path(scratch), target, network, timesteps, density, tell=tell)
        return run(Path(scratch), repeats, tell=tell)


def _measure(row: GpuRow, batch: int, repeats: int, found: _Found) -> None:
    name = f"{row.name}, batch {batch}"
    try:
        call = row.make(batch)
        scores = call().float().cpu().reshape(batch, -1)
        times = timed(call, repeats)
    except Exception as error:  # a library that fails on this device is told, and the others are measured
        found.left_out[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    if row.expected is not None:
        found.identical[name] = torch.equal(scores, row.expected.reshape(1, -1).expand(batch, -1))
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


def timed(call: Run, repeats: int) -> Latency:
    """Milliseconds of single calls between two events on the stream, after a warm-up."""
    for _ in range(WARM_UP):
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < repeats and sum(times) < MOST_SECONDS * 1e3:
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        call()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after))
    return Latency(tuple(times))


def _spikes(folder: Folder, network: Network) -> dict[str, Any]:
    """Spikes of every layer of the probed networks that differ from PyTorch's on the CPU."""
    wanted = torch.cat([s.flatten() for s in network.spikes])
    found = {}
    for entry in folder.entries:
        if entry.probed:
            _, *layers = light(folder, entry)(images(folder, 1).numpy())
            mine = torch.cat([torch.from_numpy(s).flatten() for s in layers])
            found[entry.name] = {"spikes": int(wanted.sum()), "differing": int((mine != wanted).sum())}
    return found


def _profile(folder: Folder, found: _Found) -> None:
    """Microseconds of every kernel in one run, from CUDA's own trace, and its share of the limit; of the smallest batch
    and the largest of each of our rows."""
    from torch.profiler import ProfilerActivity, profile

    batches, limits = {e.batch for e in folder.entries if not e.probed}, _limits(folder)
    for row, batch in ((row, batch) for row in ours(folder) for batch in sorted({min(batches), max(batches)})):
        call, name = row.make(batch), f"{row.name}, batch {batch}"
        call()
        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            call()
            torch.cuda.synchronize()
        found.kernels[name] = {e.key: round(e.device_time_total, 2) for e in trace.key_averages()}
        found.shares[name] = shares(limits[name], found.kernels[name])


def shares(limits: Mapping[str, float], taken: Mapping[str, float]) -> dict[str, float]:
    """Limit by time of every function that has both, microseconds."""
    return {name: round(least / taken[name], 3) for name, least in limits.items() if taken.get(name)}


def _limits(folder: Folder) -> dict[str, dict[str, float]]:
    return {f"{e.name}, batch {e.batch}": e.limits for e in folder.entries if not e.probed}


def _report(folder: Folder, found: _Found, spikes: dict[str, Any], batches: Sequence[int], seconds: float) -> Report:
    device = torch.cuda.get_device_properties(0)
    details = {
        "device": device.name,
        "device_memory_gib": round(device.total_memory / 2**30, 1),
        "multiprocessors": device.multi_processor_count,
        "date": date.today().isoformat(),
        "versions": {**versions(), "cuda": torch.version.cuda},
        "settings": {"timesteps": folder.timesteps, "density": folder.density},
        "compiled_for": folder.target,
        "seconds": round(seconds, 1),
        "spikes": spikes,
        "identical_scores": found.identical,
        "left_out": found.left_out,
        "kernels_us": found.kernels,
        "limit_shares": found.shares,
        "notes": {row.name: row.note for row in [*ours(folder), *theirs(network_of(folder))]},
        "speedup": {str(batch): speedups(found.medians, batch) for batch in batches},
    }
    threads = len(os.sched_getaffinity(0))
    return Report(folder.network, "cuda", "fp32 and int", machine_name(), threads, found.rows, details)


def speedups(medians: dict[tuple[str, int], float], batch: int) -> dict[str, float]:
    """How many times faster than SpikingJelly's faster row each row is at a batch size."""
    jelly = [ms for (name, size), ms in medians.items() if size == batch and name.startswith("spikingjelly")]
    if not jelly:
        return {}
    return {name: round(min(jelly) / ms, 3) for (name, size), ms in medians.items() if size == batch}
