"""Watching a pipeline from outside its passes: dumps, times, prints."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TextIO

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.pipeline.base import Pass


class Instrument:
    """Called around passes; the methods of this base do nothing. An instrument never changes the graph."""

    def start(self, graph: Graph) -> None:
        """Before the first pass."""

    def before(self, graph: Graph, each: Pass) -> None:
        """Before a pass."""

    def after(self, graph: Graph, each: Pass, changed: bool) -> None:
        """After a pass whose result was verified."""

    def finish(self, graph: Graph) -> None:
        """After the last pass."""


class DumpIR(Instrument):
    """Write ``00-input.ldir``, ``01-canonicalize.ldir``, ... into a folder, which is made if need be.

    Dumps of an earlier run there are removed, so that the folder never mixes two runs. Tensors show type and shape
    only. Raises LdsnnError where a dump cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.written = Path(folder), 0

    def start(self, graph: Graph) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.iterdir():
                if re.fullmatch(r"\d\d+-[a-z0-9-]+\.ldir", old.name):
                    old.unlink()
        except OSError as error:
            raise LdsnnError(Problem(f"no folder for dumps: {error.strerror}", where=str(self.folder))) from None
        self.written = 0
        self._write(graph, "input")

    def after(self, graph: Graph, each: Pass, changed: bool) -> None:
        self._write(graph, each.name)

    def _write(self, graph: Graph, label: str) -> None:
        path = self.folder / f"{self.written:02d}-{label}.ldir"
        write_atomically(path, graph_text(graph, hashes=False).encode())
        self.written += 1


class TimePasses(Instrument):
    """Seconds of wall time per pass, the runner's checks of it included, in ``seconds`` as (pass name, seconds)."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []
        self._began = 0.0

    def before(self, graph: Graph, each: Pass) -> None:
        self._began = time.perf_counter()

    def after(self, graph: Graph, each: Pass, changed: bool) -> None:
        self.seconds.append((each.name, time.perf_counter() - self._began))

    def table(self) -> str:
        """One line per pass, the slowest last, and the total."""
        lines = [f"{s * 1e3:9.2f} ms  {name}" for name, s in sorted(self.seconds, key=lambda item: item[1])]
        return "\n".join([*lines, f"{sum(s for _, s in self.seconds) * 1e3:9.2f} ms  in all"])


class PrintAfterAll(Instrument):
    """Print the IR after every pass that changed it, by default to standard error."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream

    def after(self, graph: Graph, each: Pass, changed: bool) -> None:
        head = f"// after {each}" + ("" if changed else ": unchanged")
        print(head + (f"\n{graph_text(graph, hashes=False)}" if changed else ""), file=self.stream or sys.stderr)
