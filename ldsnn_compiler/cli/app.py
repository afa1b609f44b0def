"""The Typer application: every command registered. Heavy modules are imported inside the commands, so that help is
quick."""

from __future__ import annotations

import typer

from ldsnn_compiler.cli import (
    bench,
    check,
    compile,
    demo,
    diff,
    exchange,
    execute,
    listing,
    look,
    numerics,
    optimize,
    report,
    stream,
    tune,
)
from ldsnn_compiler.cli.common import command

app = typer.Typer(
    name="ldsnn",
    help="Compile spiking neural networks, with a number of timesteps per layer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for _function in (
    demo.demo,
    check.check,
    exchange.import_,
    exchange.export,
    compile.compile,
    numerics.quantize,
    optimize.optimize,
    tune.tune,
    execute.run,
    stream.stream,
    execute.profile,
    look.inspect,
    diff.diff,
    look.opt,
    bench.bench,
    report.report,
    listing.ops,
    listing.passes,
    listing.targets,
):
    command(app)(_function)
