"""``ldsnn demo``: the whole chain on scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ldsnn_compiler.cli.common import Answer, Limit, Threads, note

Out = Annotated[Path, typer.Option("-o", "--output", help="folder for the bundle and the IR dumps")]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="timed calls per row")]


def demo(output: Out = Path("out"), threads: Threads = None, repeats: Repeats = 20, limit: Limit = None) -> Answer:
    """Compile a small SNN for handwritten digits four ways and compare accuracy, work and latency."""
    from ldsnn_compiler.demo.run import run_demo

    made = run_demo(output, threads, repeats, limit, note)
    for each in made.notes:
        note(f"note: {each}")
    where = (f"IR after every pass: {made.dumps}", f"compiled network:    {made.bundle}")
    work = "work is per image; T per neuron layer; ms for one image, median and half the interquartile range"
    return Answer(made.report.to_json(), (made.report.table(), work, *where))
