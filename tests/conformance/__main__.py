"""Run the conformance suite: ``PYTHONPATH=tests python -m conformance --help``."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from math import ceil
from pathlib import Path

from conformance.compare import Outcome, hold
from conformance.library import LIBRARIES, library
from conformance.table import Result, markdown, problems

ROOT = Path(__file__).parents[2]


def run(name: str, networks: int, steps: range, together: int, only: str, made: Path) -> None:
    """Hold a library that can be imported here against itself, at least ``networks`` in all.

    What has been found so far is written to ``made`` after every variant, and gone on from where a run was killed.
    """
    found = library(name)
    variants = [v for v in found.variants if only in v]
    each = ceil(networks / len(variants))
    outcomes = list(read(made).outcomes) if made.exists() else []
    for variant in variants[len(outcomes) :]:
        started = time.process_time()
        outcomes.append(hold(found, variant, each, steps, together or ceil(each / 2)))
        print(f"{name} {variant}: {time.process_time() - started:.1f} s", file=sys.stderr, flush=True)
        made.write_text(json.dumps(asdict(Result(name, found.version, tuple(outcomes)))))


def elsewhere(name: str, options: argparse.Namespace, folder: Path) -> Result:
    """Run a library in a process of its own, with the version that it needs before all others."""
    entry = LIBRARIES[name]
    paths = [str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    if entry.requirement:
        paths.insert(0, str(_installed(entry.requirement, folder)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "OMP_NUM_THREADS": "1"}
    asked = re.sub(r"\W+", "_", f"{options.networks}_{options.steps}_{options.together}_{options.only}")
    made, going = folder / f"{name}.json", folder / f"{name}.{asked}.json"
    command = [sys.executable, "-m", "conformance", "--one", name, "--json", str(going), "--only", options.only]
    command += ["--networks", str(options.networks), "--steps", options.steps, "--together", str(options.together)]
    subprocess.run(command, env=environment, check=True)
    return read(going.rename(made))


def _installed(requirement: str, folder: Path) -> Path:
    """A folder with one package that cannot share this environment; everything else is taken from here."""
    target = folder / requirement.replace("==", "-")
    if not target.exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), requirement]
        subprocess.run(install, check=True)
    return target


def read(path: Path) -> Result:
    """A result that was written as JSON."""
    kept = json.loads(path.read_text())
    return Result(kept["library"], kept["version"], tuple(Outcome(**o) for o in kept["outcomes"]))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--networks", type=int, default=1000, help="at least so many for each library")
    parser.add_argument("--steps", default="32..64", help="fewest and most timesteps")
    parser.add_argument("--together", type=int, default=0, help="networks of one architecture; 0: half of a variant's")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="names, separated by commas")
    parser.add_argument("--only", default="", help="variants whose name has this in it")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "conformance", help="results and packages")
    parser.add_argument("--kept", action="store_true", help="take the results that are in the folder")
    parser.add_argument("--write", type=Path, help="the documentation to write")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        warnings.simplefilter("ignore")  # the library's own
        low, _, high = options.steps.partition("..")
        steps = range(int(low), int(high) + 1)
        run(options.one, options.networks, steps, options.together, options.only, options.json)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    names = options.libraries.split(",")
    made = {name: options.folder / f"{name}.json" for name in names}
    results = [read(made[n]) if options.kept else elsewhere(n, options, options.folder) for n in names]
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        command = f"PYTHONPATH=tests python -m conformance --networks {options.networks} --steps {options.steps}"
        options.write.write_text(markdown(results, f"{command} --write {options.write}"))
    faults = problems(results)
    print(
        "\n".join([*faults, f"{sum(o.networks for r in results for o in r.outcomes)} networks, {len(faults)} problems"])
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
