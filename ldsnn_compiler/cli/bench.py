"""``ldsnn bench``: our rows beside the other libraries', in one process, spikes compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ldsnn_compiler.cli.common import Answer, Threads, note

N = TypeVar("N", int, float)
Network = Annotated[str, typer.Argument(metavar="NETWORK", help="vgg16-cifar, vgg-tiny or mlp")]
Numbers = Annotated[str | None, typer.Option(help="comma-separated; with the other one, a sweep of our kernels")]


def bench(
    network: Network = "vgg16-cifar",
    timesteps: Annotated[int, typer.Option("--timesteps", min=1)] = 8,
    density: Annotated[float, typer.Option("--density", help="firing rate of every IF layer")] = 0.1,
    batch: Annotated[int, typer.Option("--batch", min=1)] = 1,
    dyadic: Annotated[bool, typer.Option("--dyadic", help="weights on a grid: all rows must be identical")] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="rounds of timing")] = 20,
    rows: Annotated[str, typer.Option("--rows", help="comma-separated; default all that are installed")] = "",
    densities: Numbers = None,
    sweep_timesteps: Numbers = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    threads: Threads = None,
    numerics: Annotated[str, typer.Option("--numerics", help="int: rows of whole numbers as well")] = "fp32",
    target: Annotated[str, typer.Option("--target", help="native, or cuda: this machine's GPU")] = "native",
    tune: Annotated[int, typer.Option("--tune", min=0, help="tune our rows first: loops to try of each region")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="write the JSON there as well")] = None,
) -> Answer:
    """Time a network against SpikingJelly, snnTorch, PyTorch and its ANN twin in ONNX Runtime, interleaved, and compare
    every spike.

    With --densities and --sweep-timesteps: our event-driven kernels against our dense ones, over all combinations.
    With --target cuda: dyadic weights, batches of 1, 16 and 256, against SpikingJelly and PyTorch on the GPU.
    """
    from ldsnn_compiler.bench.run import Settings

    chosen = tuple(name.strip() for name in rows.split(",") if name.strip())
    settings = Settings(network, timesteps, density, batch, dyadic, repeats, threads, seed, chosen, numerics, tune)
    if target != "native":
        answer = _gpu(settings, target)
    elif densities is None and sweep_timesteps is None:
        answer = _rows(settings)
    else:
        answer = _sweep(
            settings, _numbers(densities, float) or [density], _numbers(sweep_timesteps, int) or [timesteps]
        )
    if output is not None:
        from ldsnn_compiler.ir.store import write_atomically

        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, (json.dumps(answer.data, indent=1) + "\n").encode())
        note(f"wrote {output}")
    return answer


def _rows(settings: Any) -> Answer:
    from ldsnn_compiler.bench.run import bench as run

    report = run(settings, note)
    data = report.to_json()
    return Answer(data, (report.table(), _layers(data), *_compared(data)))


def _gpu(settings: Any, target: str) -> Answer:
    from ldsnn_compiler.bench.gpu.measure import bench as run
    from ldsnn_compiler.errors import LdsnnError, Problem
    from ldsnn_compiler.targets.boards import board

    if board(target).gpu is None:
        raise LdsnnError(Problem("benchmarks run on this machine: native, or cuda for its GPU", where=target))
    report = run(target, settings.network, settings.timesteps, settings.density, settings.repeats, note)
    return Answer(report.to_json(), (report.table(),))


def _sweep(settings: Any, densities: list[float], timesteps: list[int]) -> Answer:
    from ldsnn_compiler.bench.run import use_threads
    from ldsnn_compiler.bench.sweep import sweep, sweep_json, sweep_table

    points = sweep(settings, densities, timesteps, note)
    data = sweep_json(settings, points, use_threads(settings.threads))
    return Answer(data, (sweep_table(points), f"largest ratio to dense: {data['worst_ratio']:.2f}"))


def _numbers(text: str | None, kind: type[N]) -> list[N]:
    try:
        return [kind(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise typer.BadParameter(f"{what} separated by commas, not {text!r}") from None


def _layers(data: dict[str, Any]) -> str:
    rates = ", ".join(f"{100 * x['rate']:.1f}" for x in data["layers"])
    inputs = ", ".join(f"{100 * x['input_nonzero']:.0f}" for x in data["layers"])
    return f"firing rates reached, %: {rates}\nnon-zero share of each layer's input, %: {inputs}"


def _compared(data: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in data["compared"].items():
        if found["identical"]:
            lines.append(f"{name}: all {found['spikes']} spikes identical to the {found.get('reference', 'reference')}")
            continue
        lines.append(
            f"{name}: {found['differing']} spikes differ from the reference; "
            f"{found['flips']} neurons flip by themselves, at most {found['largest_margin']:.1e} of the threshold "
            f"away from it, {found['unexplained']} unexplained"
        )
    lines += [f"{name}: {data['notes'][name]}" for name in data["notes"] if name not in data["compared"]]
    lines += [f"{name}: left out, {why}" for name, why in data["left_out"].items()]
    lines += [f"{name}: {_whole(found)}" for name, found in data["integers"].items()]
    for name, factor in data["speedup_over_spikingjelly"].items():
        lines.append(f"{name}: {factor:.2f}x SpikingJelly's speed")
    return lines


def _whole(found: dict[str, Any]) -> str:
    return f"weights of {found['weight_bits']} bits, sums in int16 in {found['int16_share']:.0%} of the layers"
