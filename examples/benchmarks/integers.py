"""What whole numbers cost the benchmark networks: test images right in fp32 and in integer mode, compiled code.

    export LDSNN_DATA=.../data
    python examples/benchmarks/integers.py mnist_cnn fashion_lif resnet20 [--images 1000] [--weight-bits 6]
        [--schedule schedule.json] [-o results/integers/benchmarks.json]

Input ranges are read off calibration images, weights are rounded as they are: nothing is trained. The first images also
run through the interpreter, whose outputs must be those of the compiled network, bit for bit.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from run import BENCHMARKS, Benchmark
from torch import Tensor

import ldsnn_compiler as ld
from ldsnn_compiler.cli.models import open_graph
from ldsnn_compiler.data import load_data
from ldsnn_compiler.evaluate import compiled_scores, full_layout, measured_density
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.proofs import layer_proofs
from ldsnn_compiler.results import machine_name, wilson

BATCH = 25
CALIBRATION_SAMPLES = 500
DENSITY_SAMPLES = 16


def measure(benchmark: Benchmark, images: int | None, interpreted: int, threads: int | None, schedule: str | None,
            **numbers: Any) -> dict[str, Any]:  # fmt: skip
    """Accuracy of both, where they differ, and what is proved of the layers."""
    graph, data = open_graph(benchmark.options), load_data(benchmark.options.data or "")
    x, y = (part[: images or benchmark.test] for part in data.report if part is not None)
    seen = data.calibration[0]
    chosen = ld.Schedule.read(schedule) if schedule else None
    density = measured_density(graph, seen[:DENSITY_SAMPLES], chosen)
    options: dict[str, Any] = {"schedule": chosen, "batch": BATCH, "density": density, "threads": threads}
    calibration = calibrate(graph, full_layout(graph, seen[:CALIBRATION_SAMPLES]))
    networks = {
        "fp32": ld.compile(graph, **options),
        "int": ld.compile(graph, numerics="int", calibration=calibration, **numbers, **options),
    }
    scores = {name: compiled_scores(network, x) for name, network in networks.items()}
    whole = networks["int"]
    return {
        "images": len(x),
        **{name: counted(found, y) for name, found in scores.items()},
        "lost": round(100 * (accuracy(scores["fp32"], y) - accuracy(scores["int"], y)), 3),
        "agreement": float((scores["fp32"].argmax(1) == scores["int"].argmax(1)).float().mean()),
        "interpreter": identical(whole, x[:interpreted]),
        "layers": [asdict(proof) for proof in layer_proofs(whole.graph)],
    }


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share classified correctly."""
    return float((scores.argmax(1) == labels).double().mean())


def counted(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy with its interval."""
    right = int((scores.argmax(1) == labels).sum())
    return {"accuracy": right / len(labels), "accuracy_ci95": wilson(right, len(labels))}


def identical(compiled: ld.Compiled, x: Tensor) -> dict[str, int]:
    """Samples of which the compiled network's outputs are not the interpreter's bits."""
    differing = 0
    for part in x.split(BATCH):
        whole = part if len(part) == BATCH else torch.cat([part, part[-1:].expand(BATCH - len(part), *part.shape[1:])])
        given = full_layout(compiled.graph, whole)
        with torch.no_grad():
            wanted = ld.Interpreter(compiled.graph).run(given)[0]
        found = compiled.run(given)[0]
        differing += int((wanted != found).transpose(0, 1).flatten(1).any(1)[: len(part)].sum())
    return {"samples": len(x), "differing": differing}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--images", type=int, help="the first so many; default all")
    parser.add_argument("--interpreted", type=int, default=2 * BATCH, help="images that the interpreter runs too")
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--schedule", help="of one network: timesteps and levels per layer")
    parser.add_argument("-o", "--output", type=Path, help="JSON file; other networks in it are kept")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    results = json.loads(given.output.read_text()) if given.output and given.output.exists() else {}
    for name in given.names:
        found = measure(BENCHMARKS[name], given.images, given.interpreted, given.threads, given.schedule,
                        weight_bits=given.weight_bits)  # fmt: skip
        results[name] = {"date": date.today().isoformat(), "machine": machine_name(), **found}
        shown = {k: v for k, v in results[name].items() if k != "layers"}
        print(json.dumps({name: shown}), flush=True)
        if given.output:
            write_atomically(given.output, (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
