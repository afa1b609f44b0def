"""Random networks of whole numbers: the interpreter, this machine and an emulated ARM core give the same bits.

    PYTHONPATH=tests python -m emulation.many --networks 1000 --journal many.jsonl --report results/arm/networks.json

Many share a library and a process (:mod:`emulation.together`). The journal has a line for every network; a run that was
stopped goes on after the last whole part, and several runs may fill parts of their own (``--every 2 --first 1``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from graphs import inputs_of, networks
from hypothesis import HealthCheck, Phase, given
from hypothesis.strategies import SearchStrategy
from test_pass_quantize import NEURONS, quantized, scheduled

from emulation import together
from emulation.compare import CORES, Case, differences, run
from emulation.kinds import kinds
from ldsnn_compiler.driver import DEFAULT_PIPELINE, Prepared, prepare
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.passes.assign_timesteps import with_schedule
from ldsnn_compiler.passes.quantize import Quantize
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.results import machine_name
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers

HERE = "native"
BATCH = 2
BOARDS = ("raspberry-pi-5", "raspberry-pi-4")
#: every so many parts are compiled as for users; the others without LLVM's optimiser, in a third of the time
OPTIMISED_EVERY = 5
BEFORE_KERNELS = DEFAULT_PIPELINE.partition(",select-kernels")[0]


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


def failures(graphs: Sequence[Graph], target: str, batch: int = BATCH) -> list[str]:
    """Networks that are not what the interpreter says, run in one emulator process."""
    prepared = [prepare(graph, target=target, batch=batch, threads=1) for graph in graphs]
    with tempfile.TemporaryDirectory() as scratch:
        made = ran(Path(scratch), prepared, target, batch)
        return [f"network {i}: {', '.join(wrong)}" for i, wrong in enumerate(map(differences, made)) if wrong]


def ran(folder: Path, prepared: Sequence[Prepared], target: str, batch: int, level: int | None = None) -> list[Case]:
    """Networks compiled into one library and run, here or on the emulated core."""
    made = together.cases(folder, prepared, batch, level)
    together.run_here(made) if target == HERE else run(made, CORES[target])
    return made


# ---- drawing


@dataclass(frozen=True)
class Drawn:
    """A network with the options of its compilation; ``schedule`` None leaves every layer its timesteps."""

    net: Graph
    schedule: Schedule | None
    kernel: str | None
    numbers: Mapping[str, Any]

    def whole(self) -> Graph:
        """In whole numbers; LdsnnError says what cannot be proved."""
        graph = run_pipeline(self.net.clone(), with_schedule(parse_pipeline(BEFORE_KERNELS), self.schedule))
        calibration = calibrate(self.net, *inputs_of(self.net, BATCH))
        return run_pipeline(graph, [Quantize.of(calibration, **self.numbers)])

    def prepared(self, whole: Graph, target: str) -> Prepared:
        """With kernels chosen for a board."""
        option = f"{{kernel={self.kernel}}}" if self.kernel else ""
        return prepare(whole, target=target, batch=BATCH, threads=1, pipeline=f"select-kernels{option},fuse-timesteps")

    def options(self) -> list[str]:
        """The options as words."""
        given = [f"{name} {value}" for name, value in self.numbers.items()]
        return [*given, f"kernels {self.kernel or 'chosen'}", *([] if self.schedule is None else ["schedule"])]

    @property
    def digest(self) -> str:
        """Equal for equal networks."""
        text = "\n".join([graph_text(self.net), *self.options(), self.schedule.text() if self.schedule else ""])
        weights = (self.net.tensors[name].numpy().tobytes() for name in sorted(self.net.tensors))
        return hashlib.sha256(b"".join([text.encode(), *weights])).hexdigest()[:16]


def drawn(count: int, seed: int) -> Iterator[Drawn]:
    """Networks with options, always the same for a seed."""
    for i, net in enumerate(draw(networks(neurons=NEURONS), count, seed)):
        chance = random.Random(f"{seed}/{i}")
        numbers = {"weight_bits": chance.choice((8, 8, 6, 4, 10)), "per": chance.choice(("channel", "layer"))}
        kernel = chance.choice((None, None, "event", "dense"))
        yield Drawn(net, _schedule(net, chance) if chance.random() < 0.5 else None, kernel, numbers)


def _schedule(net: Graph, chance: random.Random) -> Schedule | None:
    """Timesteps, levels and methods by chance; None where the layers cannot be retimed so."""
    layers = {}
    for path, node in neuron_layers(net).items():
        fewer = chance.choice([r for r in (1, 1, 2, 4, 8) if node.type.timesteps % r == 0])
        levels = chance.choice((1, 2, 4)) if fewer > 1 else 1
        layers[path] = LayerSchedule(node.type.timesteps // fewer, levels, chance.choice(("closed", "micro")))
    schedule = Schedule(net.base_timesteps, layers)
    try:
        run_pipeline(net.clone(), with_schedule(parse_pipeline(BEFORE_KERNELS), schedule))
    except LdsnnError:
        return None
    return schedule


# ---- a part of the run


def part(number: int, count: int) -> list[dict[str, Any]]:
    """The journal's lines of so many networks, drawn with seed ``number``."""
    board = BOARDS[number % len(BOARDS)]
    level = 0 if (number + 1) % OPTIMISED_EVERY else None
    lines: list[dict[str, Any]] = []
    given: list[tuple[Drawn, Graph]] = []
    for i, each in enumerate(drawn(count, number)):
        line = {"seed": number, "number": i, "digest": each.digest, "board": board, "optimised": level is None}
        lines.append(line)
        try:
            given.append((each, each.whole()))
        except LdsnnError as error:
            line |= {"outcome": "refused", "why": [p.message for p in error.problems]}
    found = [line for line in lines if "outcome" not in line]
    for line, outcome in zip(found, _outcomes(given, board, level), strict=True):
        line |= outcome
    return lines


def _outcomes(given: Sequence[tuple[Drawn, Graph]], board: str, level: int | None) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        made: dict[str, list[Case]] = {}
        for target in (HERE, board):
            folder = Path(scratch) / target
            folder.mkdir()
            made[target] = ran(folder, [d.prepared(whole, target) for d, whole in given], target, BATCH, level)
        return [_outcome(d, here, there) for (d, _), here, there in zip(given, *made.values(), strict=True)]


def _outcome(drawn: Drawn, here: Case, there: Case) -> dict[str, Any]:
    wrong = [f"x86 {name}" for name in differences(here)] + [f"arm {name}" for name in differences(there)]
    with np.load(here.folder / "found.npz") as a, np.load(there.folder / "found.npz") as b:
        wrong += [f"x86 is not arm in {n}" for n in sorted({*a.files, *b.files}) if not _same(a, b, n)]
        silent = not any(a[name].any() for name in a.files if name.startswith("run/"))
        numbers = sum(a[name].size for name in a.files)
    words = [*kinds(drawn.net, there.graph), *drawn.options(), *(["silent"] if silent else [])]
    return {"outcome": "differs" if wrong else "identical", "why": wrong, "compared": numbers, "kinds": words}


def _same(a: Mapping[str, Any], b: Mapping[str, Any], name: str) -> bool:
    return name in a and name in b and np.array_equal(a[name], b[name])


# ---- the whole run


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the journal says, every network once."""
    once = list({line["digest"]: line for line in lines}.values())
    ran = [line for line in once if line["outcome"] != "refused"]
    refused = Counter(_reason(why) for line in once if line["outcome"] == "refused" for why in line["why"][:1])
    boards = {b: sum(line["board"] == b for line in ran) for b in BOARDS}
    words = Counter(word for line in ran for word in line["kinds"])
    return {
        "networks": len(ran),
        "identical": sum(line["outcome"] == "identical" for line in ran),
        "differing": [line for line in ran if line["outcome"] == "differs"],
        "numbers_compared": sum(line["compared"] for line in ran),
        "boards": {board: {"networks": n, "core": CORES[board]} for board, n in boards.items()},
        "optimised_by_llvm": sum(line["optimised"] for line in ran),
        "drawn": len(lines), "drawn_twice": len(lines) - len(once),
        "refused": dict(refused.most_common()),
        "seeds": sorted({line["seed"] for line in lines}),
        "share_with": {word: round(n / len(ran), 3) for word, n in words.most_common()},
    }  # fmt: skip


def _reason(why: str) -> str:
    """A refusal without the numbers of the case."""
    return " ".join("..." if any(c.isdigit() for c in w) and not w.startswith("int") else w for w in why.split())


def journal(path: Path) -> list[dict[str, Any]]:
    """All lines so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Draw, compile, run, compare, report."""
    parser = argparse.ArgumentParser(prog="python -m emulation.many", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--networks", type=int, default=1000, help="that are compared; refused ones do not count")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--report", type=Path, help="JSON file; written whenever a part is done")
    parser.add_argument("--together", type=int, default=112, help="networks drawn for a library")
    parser.add_argument("--first", type=int, default=0, help="number and seed of the first part")
    parser.add_argument("--every", type=int, default=1, help="only so many-th parts from it on")
    given = parser.parse_args()
    number = given.first
    while (found := summary(journal(given.journal)))["networks"] < given.networks:
        if number not in found["seeds"]:
            lines = part(number, given.together)
            with given.journal.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
        number += given.every
        found = summary(journal(given.journal))
        if given.report:
            made = {
                "date": date.today().isoformat(),
                "machine": machine_name(),
                "command": shlex.join(["python", "-m", "emulation.many", *sys.argv[1:]]),
            }
            write_atomically(given.report, (json.dumps({**made, **found}, indent=1) + "\n").encode())
        print(
            f"part {number - given.every}: {found['networks']} networks, {len(found['differing'])} differ", flush=True
        )
    sys.exit("\n".join(f"{line['seed']}/{line['number']}: {line['why']}" for line in found["differing"]))


if __name__ == "__main__":
    main()
