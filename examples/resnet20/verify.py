"""Hold compiled ResNet-20 against the interpreter and the labels, image by image.

    python examples/resnet20/verify.py BUNDLE [--images 1000] [--interpreter 1000] [-o results/resnet20.json]

The bundle comes from `ldsnn compile examples/resnet20/model.py:resnet20 --convert --timesteps 64 --calibrate bias=true
--data examples/resnet20/model.py:cifar10`. Both run the same scheduled graph; where their predictions differ, the
margins between the two best logits show how close the call was. Single spikes may flip: fp32 sums depend on their
order.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path

import torch

import ldsnn_compiler as ld
from ldsnn_compiler.data import load_data
from ldsnn_compiler.results import machine_name, wilson

DATA = f"{Path(__file__).with_name('model.py')}:cifar10"
BATCH = 10


def margin(logits: torch.Tensor) -> torch.Tensor:
    """Difference of the two largest logits of each sample."""
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def compiled_logits(bundle: str, x: torch.Tensor) -> tuple[ld.Compiled, torch.Tensor, float]:
    """The bundle's answers one image at a time, and seconds per image."""
    compiled = ld.load(bundle)
    began = time.perf_counter()
    logits = torch.cat([compiled(x[i : i + 1]) for i in range(len(x))])
    return compiled, logits, (time.perf_counter() - began) / len(x)


def interpreted_logits(graph: ld.Graph, x: torch.Tensor) -> torch.Tensor:
    """The interpreter's answers."""
    interpreter = ld.Interpreter(graph)
    with torch.no_grad():
        return torch.cat([interpreter(part) for part in x.split(BATCH)])  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--interpreter", type=int, default=1000, help="how many of them the interpreter runs too")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()

    x, y = load_data(DATA).report
    assert y is not None
    compiled, logits, seconds = compiled_logits(given.bundle, x[: given.images])
    correct = int((logits.argmax(1) == y[: given.images]).sum())
    found = {
        "model": "resnet20-cifar10",
        "machine": machine_name(),
        "date": date.today().isoformat(),
        "images": given.images,
        "accuracy": correct / given.images,
        "accuracy_ci95": wilson(correct, given.images),
        "milliseconds_per_image": round(seconds * 1e3, 2),
    }
    print(json.dumps(found))
    reference = interpreted_logits(compiled.graph, x[: given.interpreter])
    mine = logits[: given.interpreter]
    differ = (mine.argmax(1) != reference.argmax(1)).nonzero().flatten().tolist()
    found |= {
        "compared": len(reference),
        "same_prediction": len(reference) - len(differ),
        "differing": [
            {"image": i, "margin_compiled": float(margin(mine)[i]), "margin_interpreter": float(margin(reference)[i])}
            for i in differ
        ],
        "largest_logit_difference": float((mine - reference).abs().max()),
    }
    print(json.dumps(found, indent=1))
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
