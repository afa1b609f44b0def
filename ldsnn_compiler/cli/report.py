"""``ldsnn report``: one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ldsnn_compiler.cli.common import Answer

File = Annotated[Path, typer.Argument(metavar="REPORT", help="report.json of `ldsnn optimize`")]
Page = Annotated[Path | None, typer.Option("-o", "--output", help="HTML file; default beside the report")]


def report(file: File, output: Page = None) -> Answer:
    """Write a search's report as a self-contained HTML page."""
    from ldsnn_compiler.ir.store import write_atomically
    from ldsnn_compiler.search.page import page, read_report

    path = output or file.with_suffix(".html")
    write_atomically(path, page(read_report(file)).encode())
    return Answer({"written": str(path)}, (f"written: {path}",))
