"""``python -m ldsnn_compiler.bench.gpu prepare|run|table``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.store import read_file, write_atomically

if TYPE_CHECKING:
    from ldsnn_compiler.bench.gpu.cases import Case


def main(arguments: list[str] | None = None) -> int:
    """Do one half; 1 and a line per problem if that cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        {"prepare": _prepare, "run": _run, "table": _table}[options.command](options)
    except LdsnnError as error:
        sys.stderr.writelines(f"error: {p}\n" for p in error.problems)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ldsnn_compiler.bench.gpu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="compile, without a GPU")
    prepare.add_argument("folder", type=Path)
    prepare.add_argument("--target", default="h100")
    prepare.add_argument("--network", default="vgg16-cifar")
    prepare.add_argument("--timesteps", type=int, help="default 8")
    prepare.add_argument("--density", type=float, default=0.1)
    prepare.add_argument("--batches", default="1,16,256")
    searched = prepare.add_argument_group("instead of --network, a network with schedules that were searched")
    searched.add_argument("--schedules", type=Path, help="a result file of examples/benchmarks/run.py")
    searched.add_argument("--model", help="the network, as `ldsnn compile` takes it")
    searched.add_argument("--data", help="its data: densities are of the calibration split, images of the other")
    searched.add_argument("--convert", action="store_true", help="convert a ReLU network")
    searched.add_argument("--calibrate", help="how to convert it")
    searched.add_argument("--images", type=int, default=64, help="that results are compared on")
    run = commands.add_parser("run", help="measure, with PyTorch and TVM's run time")
    run.add_argument("folder", type=Path)
    run.add_argument("-o", "--output", type=Path, required=True)
    run.add_argument("--repeats", type=int, default=100)
    run.add_argument("--budget", type=float, default=440.0, help="seconds after which no row is started")
    run.add_argument("--rehearse", action="store_true", help="without a GPU: all of it that needs none, on the CPU")
    table = commands.add_parser("table", help="write a document's table from a result file")
    table.add_argument("result", type=Path)
    table.add_argument("document", type=Path)
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _prepare(options: argparse.Namespace) -> None:
    from ldsnn_compiler.bench.gpu.prepare import prepare

    batches = [int(b) for b in options.batches.split(",")]
    made = prepare(options.folder, _case(options), options.target, batches, tell=_tell)
    size = sum(file.stat().st_size for file in options.folder.iterdir())
    _tell(f"wrote {len(made.libraries)} libraries and their arguments, {size / 2**20:.0f} MiB, into {options.folder}")


def _case(options: argparse.Namespace) -> Case:
    from ldsnn_compiler.bench.gpu.cases import built, searched

    if options.schedules is None:
        _tell(f"calibrating {options.network}")
        return built(options.network, options.timesteps or 8, options.density)
    if options.model is None:
        raise LdsnnError(Problem("schedules are of a network", where="--schedules", hint="--model file.py:factory"))
    from ldsnn_compiler.cli.models import ModelOptions

    given = ModelOptions(options.model, options.timesteps, options.convert, options.data, calibrate=options.calibrate)
    _tell(f"reading {options.model}")
    return searched(given, options.schedules, options.images)


def _run(options: argparse.Namespace) -> None:
    from ldsnn_compiler.bench.gpu.machine import Cuda, Rehearsal
    from ldsnn_compiler.bench.gpu.measure import run

    machine = Rehearsal() if options.rehearse else Cuda()
    report = run(options.folder, options.repeats, options.budget, _tell, machine)
    write_atomically(options.output, (json.dumps(report.to_json(), indent=1) + "\n").encode())
    _tell(f"wrote {options.output}")


def _table(options: argparse.Namespace) -> None:
    from ldsnn_compiler.bench.gpu.table import markdown
    from ldsnn_compiler.bench.report import rewritten

    data = json.loads(read_file(options.result))
    before = read_file(options.document).decode()
    write_atomically(options.document, rewritten(before, markdown(data), str(options.document)).encode())


if __name__ == "__main__":
    sys.exit(main())
