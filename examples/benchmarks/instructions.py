"""Instructions that one inference executes on a 64-bit ARM core, region by region: event-driven beside dense kernels.

    export LDSNN_DATA=.../data
    python examples/benchmarks/instructions.py mnist_cnn resnet20 --numerics int     # writes results/arm/NAME-...json
    python examples/benchmarks/instructions.py --table                               # all result files into docs/arm.md

The network is compiled to plain C for the board, linked into a program that reads images and runs it on each, and
executed on an emulated core that counts (``armcount``). The region's figure is what is executed from the call of its
kernel to the next one's; the sum is what the program executes with the runs in it less what it executes without. The
network's outputs are compared with the interpreter's. Needs the extra ``count`` and ``aarch64-linux-gnu-gcc``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from armcount import count
from run import BENCHMARKS, EXAMPLES, RESULTS, network
from twins import calibration, schedules

from ldsnn_compiler.bench.report import rewritten
from ldsnn_compiler.data import Data
from ldsnn_compiler.driver import DEFAULT_PIPELINE, compile_c
from ldsnn_compiler.evaluate import interpreted
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.results import amount, machine_name
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.search.evaluate import as_input
from ldsnn_compiler.targets.c import CBundle
from ldsnn_compiler.targets.c.program import Call

KERNELS = ("event", "dense")
PAGE = EXAMPLES.parent / "docs" / "arm.md"
CORES = {"raspberry-pi-4": "cortex-a72"}
"""The emulated core of a board, where the emulator has it; elsewhere one with every feature."""

MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
#include "%(name)s.h"

static %(name)s_context context;
static %(upper)s_ALIGNED unsigned char weights[%(upper)s_WEIGHTS_BYTES];
static float inputs[%(samples)d][%(upper)s_%(input)s_COUNT], outputs[%(samples)d][%(upper)s_%(output)s_COUNT];

static int filled(const char *path, void *to, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    return file != NULL && fread(to, 1, bytes, file) == bytes;
}

/* the last kernel's part of the count ends where this is called */
__attribute__((noinline)) void finished(void)
{
    __asm__ volatile("");
}

/* WEIGHTS INPUTS RUNS: the outputs of the first so many samples go to standard output as they are in memory */
int main(int argc, char **argv)
{
    if (argc != 4 || !filled(argv[1], weights, sizeof weights) || !filled(argv[2], inputs, sizeof inputs))
        return 1;
    if (%(name)s_init(&context, weights) != %(upper)s_OK)
        return 2;
    for (int i = 0; i < atoi(argv[3]); i++)
        %(name)s_run(&context, inputs[i], outputs[i]);
    finished();
    return fwrite(outputs, sizeof outputs, 1, stdout) != 1;
}
"""


@dataclass(frozen=True)
class Program:
    """A linked network with its inputs: the programs's arguments but the last, and where its outputs should be."""

    path: Path
    arguments: tuple[str, ...]
    calls: tuple[Call, ...]


def main() -> None:
    """Compile, link, count, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--table", action="store_true", help="write the tables of all result files into docs/arm.md")
    parser.add_argument("--numerics", default="fp32", help="fp32 or int")
    parser.add_argument("--board", default="raspberry-pi-4")
    parser.add_argument("--schedule", default="", help="a row of the result file, or a schedule file")
    parser.add_argument("--samples", type=int, default=4, help="images that are run")
    parser.add_argument("--out", type=Path, default=RESULTS.parent / "arm")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        sys.exit(f"no benchmark {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    for name in options.names:
        result = counted(name, options.board, options.numerics, options.schedule, options.samples)
        options.out.mkdir(parents=True, exist_ok=True)
        row = "".join(f"-{word}" for word in options.schedule.replace(",", "").split())
        path = options.out / f"{name}{row}-{options.numerics}-{options.board}.json"
        write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
        print(table([result]), f"wrote {path}", sep="\n")
    if options.table:
        write_table(options.out)


def counted(name: str, board: str, numerics: str, row: str, samples: int) -> dict[str, Any]:
    """Both ways of computing one network."""
    graph, data = network(BENCHMARKS[name])
    chosen, schedule = list(schedules(graph, name, row)[1].items())[-1]
    x = data.report[0][:samples]
    kinds = {kernel: one(graph, data, schedule, board, numerics, kernel, x) for kernel in KERNELS}
    return {
        "model": name, "target": board, "numerics": numerics, "schedule": chosen, "samples": samples,
        "core": CORES.get(board, "max"), "date": date.today().isoformat(), "machine": machine_name(),
        "command": shlex.join(["python", *sys.argv]), "kernels": kinds,
        "fewer": kinds["dense"]["instructions"] / kinds["event"]["instructions"],
    }  # fmt: skip


def one(
    graph: Graph, data: Data, schedule: Schedule, board: str, numerics: str, kernel: str, x: Tensor
) -> dict[str, Any]:
    """Instructions of the network with event-driven kernels wherever there can be any, or with dense ones."""
    bundle = compile_c(
        graph, schedule, board, batch=1, numerics=numerics,
        pipeline=DEFAULT_PIPELINE.replace("select-kernels", f"select-kernels{{kernel={kernel}}}"),
        calibration=calibration(graph, data.calibration[0]) if numerics == "int" else None,
    )  # fmt: skip
    scores, work = interpreted(bundle.network.graph, x)
    with tempfile.TemporaryDirectory() as folder:
        program = linked(bundle, x, Path(folder))
        core = CORES.get(board, "max")
        marked = {"finished", *(call.symbol for call in program.calls)}
        with_runs, without = (
            count(program.path, [*program.arguments, str(runs)], core, marked) for runs in (len(x), 0)
        )
    check(bundle, with_runs.printed, scores, len(x))
    layers = {name: layer.synaptic_updates / len(x) for name, layer in work.layers.items()}
    regions = by_region(program.calls, with_runs.parts[:-1], layers, len(x))
    return {"instructions": (with_runs.total - without.total) / len(x), "regions": regions}


def linked(bundle: CBundle, x: Tensor, folder: Path) -> Program:
    """The network and :data:`MAIN` as one static program."""
    net = bundle.network
    bundle.save(folder / "net")
    ports = {"input": net.inputs[0].parameter.upper(), "output": net.outputs[0].parameter.upper()}
    (folder / "main.c").write_text(MAIN % {"name": net.name, "upper": net.name.upper(), "samples": len(x), **ports})
    (folder / "inputs.bin").write_bytes(as_input(net.graph.inputs[0], x).transpose(0, 1).contiguous().numpy().tobytes())
    files = [folder / "main.c", folder / "net" / f"{net.name}.c", folder / "net" / f"{net.name}_kernels.o"]
    flags = ["-O2", "-static", f"-mcpu={net.board.cpu}", f"-I{folder / 'net'}", "-o", str(folder / "program")]
    subprocess.run(["aarch64-linux-gnu-gcc", *map(str, files), *flags, "-lm"], check=True)
    arguments = (str(folder / "net" / f"{net.name}_weights.bin"), str(folder / "inputs.bin"))
    calls = tuple(s for s in net.entries["run"].statements if isinstance(s, Call))
    return Program(folder / "program", arguments, calls)


def check(bundle: CBundle, printed: bytes, scores: Tensor, samples: int) -> None:
    """The outputs are the interpreter's: all bits in integer mode, the same classes elsewhere."""
    port = bundle.network.outputs[0]
    outputs = torch.from_numpy(np.frombuffer(printed, port.dtype).reshape(samples, *port.shape).copy())
    mine = outputs.flatten(0, 1).mean(1).reshape(scores.shape) if port.shape[0] > 1 else outputs.reshape(scores.shape)
    exact = bundle.settings.numerics == "int"
    if not (torch.equal(mine, scores) if exact else torch.equal(mine.argmax(1), scores.argmax(1))):
        raise RuntimeError(f"the program computes {mine.tolist()}, the interpreter {scores.tolist()}")


def by_region(
    calls: Sequence[Call], parts: Sequence[tuple[str, int]], updates: Mapping[str, float], samples: int
) -> list[dict[str, Any]]:
    """Per call of a kernel: instructions, and synaptic updates, a sample."""
    if [name for name, _ in parts] != [call.symbol for call in calls] * samples:
        raise RuntimeError("the program calls other kernels than the bundle says")
    found = []
    for i, call in enumerate(calls):
        instructions = sum(n for _, n in parts[i :: len(calls)]) / samples
        done = sum(updates.get(node, 0.0) for node in call.nodes)
        found.append({"nodes": list(call.nodes), "instructions": instructions, "synaptic_updates": done})
    return found


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """What all results say, in Markdown: the sums, then every network region by region."""
    lines = [
        "| network | schedule | numbers | board | event-driven | dense | dense / event |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for r in results:
        sums = " | ".join(amount(r["kernels"][kernel]["instructions"]) for kernel in KERNELS)
        lines.append(
            f"| {r['model']} | {r['schedule']} | {r['numerics']} | {r['target']} | {sums} | {r['fewer']:.2f} |"
        )
    return "\n\n".join(["\n".join(lines), *map(_regions, results)])


def _regions(result: Mapping[str, Any]) -> str:
    """Both ways side by side; what moves data between layouts has no nodes."""
    rows: dict[str, dict[str, Any]] = {}
    for kernel in KERNELS:
        for region in result["kernels"][kernel]["regions"]:
            row = rows.setdefault(", ".join(region["nodes"]) or "layouts", {"updates": region["synaptic_updates"]})
            row[kernel] = row.get(kernel, 0.0) + region["instructions"]
    title = f"**{result['model']}**, {result['numerics']}, {result['target']} (emulated: {result['core']})"
    lines = [f"{title}, {result['schedule']}, mean of {result['samples']} test images, {result['date']}:", ""]
    lines += [
        "| region | event-driven | dense | synaptic updates | instructions / update |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        counts = " | ".join(amount(row.get(kernel)) for kernel in KERNELS)
        per = f"{row['event'] / row['updates']:.2f}" if row["updates"] and "event" in row else ""
        lines.append(f"| {name} | {counts} | {amount(row['updates'] or None)} | {per} |")
    return "\n".join(lines)


def write_table(folder: Path) -> None:
    """The tables of all result files with counts into ``docs/arm.md``."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    counts = [result for result in results if "kernels" in result]
    write_atomically(PAGE, rewritten(PAGE.read_text(), table(counts), str(PAGE)).encode())


if __name__ == "__main__":
    main()
