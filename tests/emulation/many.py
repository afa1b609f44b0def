"""Many random networks on the emulated machine: ``PYTHONPATH=tests python -m emulation.many --networks 1000``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import hypothesis
from graphs import inputs_of, networks
from hypothesis import HealthCheck, Phase, given
from hypothesis.strategies import SearchStrategy
from test_pass_quantize import NEURONS, quantized, scheduled

from emulation.compare import CORES, case, differences, run
from ldsnn_compiler.ir.graph import Graph


def draw(strategy: SearchStrategy[Graph], count: int, seed: int) -> list[Graph]:
    """So many networks, always the same for a seed."""
    found: list[Graph] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )  # fmt: skip
    @given(net=strategy)
    def collect(net: Graph) -> None:
        found.append(net)

    collect()
    return found[:count]


def whole_numbers(count: int, seed: int) -> list[Graph]:
    """Random networks in integer mode, calibrated on the data that they will be run on."""
    drawn = (scheduled(net) for net in draw(networks(neurons=NEURONS), count, seed))
    return [quantized(net, inputs_of(net)) for net in drawn]


def failures(graphs: list[Graph], target: str, batch: int = 2) -> list[str]:
    """Networks that are not what the interpreter says, run in one emulator process."""
    with tempfile.TemporaryDirectory() as scratch:
        cases = []
        for i, graph in enumerate(graphs):
            folder = Path(scratch) / str(i)
            folder.mkdir()
            cases.append(case(folder, graph, target, batch))
        run(cases, CORES[target])
        found = {i: differences(c) for i, c in enumerate(cases)}
        return [f"network {i}: {', '.join(wrong)}" for i, wrong in found.items() if wrong]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emulation.many", description=__doc__)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--target", choices=sorted(CORES), default="raspberry-pi-5")
    parser.add_argument("--numerics", choices=("int", "fp32"), default="int", help="fp32: dyadic numbers, exact")
    parser.add_argument("--together", type=int, default=50, help="networks in one emulator process")
    parser.add_argument("--seed", type=int, default=0, help="of the first; others continue from it")
    given = parser.parse_args()
    wrong: list[str] = []
    for first in range(0, given.networks, given.together):
        count, seed = min(given.together, given.networks - first), given.seed + first
        graphs = whole_numbers(count, seed) if given.numerics == "int" else draw(networks(), count, seed)
        found = failures(graphs, given.target)
        wrong += [f"seed {seed}: {text}" for text in found]
        print(f"{first + len(graphs)} networks, {len(wrong)} differ", flush=True)
    sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
