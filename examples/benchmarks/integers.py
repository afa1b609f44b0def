"""What whole numbers cost the benchmark networks: test images right in fp32 and in integer mode, compiled code.

    export LDSNN_DATA=.../data
    python examples/benchmarks/integers.py mnist_cnn fashion_lif resnet20 [--images 1000] [--weight-bits 6]
        [--schedule "best uniform, graded"] [-o results/integers/benchmarks.json]

Input ranges are read off calibration images, weights are rounded as they are: nothing is trained. The first images also
run through the interpreter, whose outputs must be those of the compiled network, bit for bit. The networks are those of
results/schedules, as they are or under one of the rows there; the images are the whole report split, of which the
official test set is the beginning where it is not all of it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from run import BENCHMARKS, network
from twins import schedules

import ldsnn_compiler as ld
from ldsnn_compiler.bench.run import versions
from ldsnn_compiler.evaluate import compiled_scores, full_layout, measured_density
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.proofs import layer_proofs
from ldsnn_compiler.results import machine_name, wilson
from ldsnn_compiler.search.criterion import Comparison
from ldsnn_compiler.search.evaluate import predictions_drop

BATCH = 25
CALIBRATION_SAMPLES = 500
DENSITY_SAMPLES = 16
ALLOWED = 0.003
"""What whole numbers may cost, as a share of all images."""


def measure(name: str, images: int | None, interpreted: int, threads: int | None, row: str,
            **numbers: Any) -> dict[str, Any]:  # fmt: skip
    """Accuracy of both, where they differ, and what is proved of the layers."""
    benchmark = BENCHMARKS[name]
    graph, data = network(benchmark)
    x, y = (part[:images] for part in data.report if part is not None)
    seen = data.calibration[0]
    chosen = schedules(graph, name, row)[1][row] if row else None
    density = measured_density(graph, seen[:DENSITY_SAMPLES], chosen)
    options: dict[str, Any] = {"schedule": chosen, "batch": BATCH, "density": density, "threads": threads}
    calibration = calibrate(graph, full_layout(graph, seen[:CALIBRATION_SAMPLES]))
    networks = {
        "fp32": ld.compile(graph, **options),
        "int": ld.compile(graph, numerics="int", calibration=calibration, **numbers, **options),
    }
    answers = {kind: compiled_scores(each, x).argmax(1) for kind, each in networks.items()}
    whole, test = networks["int"], benchmark.test
    official = {kind: counted(found[:test], y[:test]) for kind, found in answers.items()} if test else {}
    return {
        "schedule": row or "T0", "images": len(x),
        **{kind: counted(found, y) for kind, found in answers.items()},
        "paired": drop(answers, y),
        "agreement": float((answers["fp32"] == answers["int"]).double().mean()),
        **({"official": {"images": test, **official}} if test else {}),
        "interpreter": identical(whole, x[:interpreted]),
        "layers": [asdict(proof) for proof in layer_proofs(whole.graph)],
    }  # fmt: skip


def counted(answers: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy with its interval."""
    right = int((answers == labels).sum())
    return {"accuracy": right / len(labels), "accuracy_ci95": wilson(right, len(labels))}


def drop(answers: Mapping[str, Tensor], labels: Tensor) -> dict[str, Any]:
    """What integer mode loses, image by image."""
    lost, won = predictions_drop(answers["fp32"].tolist(), answers["int"].tolist(), labels.tolist())
    return Comparison(len(labels), lost, won).to_json(ALLOWED)


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
    parser.add_argument("--schedule", default="", help="of one network: a row of its result file, or a schedule file")
    parser.add_argument("-o", "--output", type=Path, help="JSON file; other networks in it are kept")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    results = json.loads(given.output.read_text()) if given.output and given.output.exists() else {}
    for name in given.names:
        found = measure(name, given.images, given.interpreted, given.threads, given.schedule,
                        weight_bits=given.weight_bits)  # fmt: skip
        key = f"{name}, {given.schedule}" if given.schedule else name
        made = {"date": date.today().isoformat(), "machine": machine_name(), "versions": versions()}
        results[key] = {**made, "command": shlex.join(["python", *sys.argv]), **found}
        shown = {k: v for k, v in results[key].items() if k != "layers"}
        print(json.dumps({key: shown}), flush=True)
        if given.output:
            write_atomically(given.output, (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
