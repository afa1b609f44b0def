"""Result rows: one schema for everything this package reports, and how it is written, printed and measured.

A report is ``{"model", "target", "numerics", "machine", "threads", "rows": [...]}``; a row holds what :class:`Row`
lists. Work is per sample; a figure that was not taken is None, never 0.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Interval = tuple[float, float]

#: standard normal quantile of a two-sided 95 % interval
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Row:
    """One way of running one model.

    ``timesteps`` and ``levels`` are keyed by module path. ``accuracy`` and ``agreement`` (share of samples whose
    prediction is the reference's) lie in 0..1; ``accuracy_ci95`` is Wilson's interval. Work counts are per sample.
    ``latency_ms`` is the median time of one call, ``latency_ms_iqr`` the width of its interquartile range.
    """

    name: str
    timesteps: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    accuracy: float | None = None
    accuracy_ci95: Interval | None = None
    agreement: float | None = None
    synaptic_updates: float | None = None
    synaptic_updates_weighted: float | None = None
    neurons_evaluated: float | None = None
    sum_timesteps: int | None = None
    latency_ms: float | None = None
    latency_ms_iqr: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON data, keys in schema order."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """Rows that belong together; ``details`` adds keys of its own beside those of the schema."""

    model: str
    target: str
    numerics: str = "fp32"
    machine: str = field(default_factory=lambda: machine_name())
    threads: int = 1
    rows: Sequence[Row] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON data."""
        head = {name: getattr(self, name) for name in ("model", "target", "numerics", "machine", "threads")}
        return {**head, **self.details, "rows": [row.to_json() for row in self.rows]}

    def table(self) -> Table:
        """A Rich table with a column for every figure that some row has."""
        from rich.table import Table

        shown = Table(title=f"{self.model} on {self.target}, {self.numerics}, {self.threads} threads, {self.machine}")
        for title, _ in (columns := self._columns()):
            shown.add_column(title, justify="left" if title == "name" else "right", no_wrap=title == "name")
        for row in self.rows:
            shown.add_row(*(text(row) for _, text in columns))
        return shown

    def markdown(self) -> str:
        """The same table in Markdown."""
        columns = self._columns()
        lines = [
            "| " + " | ".join(title for title, _ in columns) + " |",
            "|" + "|".join("---" if title == "name" else "---:" for title, _ in columns) + "|",
        ]
        lines += ["| " + " | ".join(text(row) for _, text in columns) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def _columns(self) -> list[tuple[str, Callable[[Row], str]]]:
        return [c for c in COLUMNS if c[0] == "name" or any(c[1](row) for row in self.rows)]


def _timesteps(row: Row) -> str:
    distinct = set(row.timesteps.values())
    if len(distinct) == 1:
        return str(distinct.pop())
    return " ".join(map(str, row.timesteps.values()))


def _levels(row: Row) -> str:
    distinct = set(row.levels.values())
    if distinct <= {1}:
        return ""
    return " ".join(str(k) if k else "any" for k in row.levels.values())


def _accuracy(row: Row) -> str:
    if row.accuracy is None:
        return ""
    low, high = row.accuracy_ci95 or (row.accuracy, row.accuracy)
    return f"{row.accuracy:.2%} ({low:.1%}-{high:.1%})"


def _latency(row: Row) -> str:
    return "" if row.latency_ms is None else f"{row.latency_ms:.3g} ± {(row.latency_ms_iqr or 0.0) / 2:.2g}"


COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("name", lambda row: row.name),
    ("T", _timesteps),
    ("levels", _levels),
    ("accuracy (95 %)", _accuracy),
    ("agreement", lambda row: "" if row.agreement is None else f"{row.agreement:.2%}"),
    ("synaptic updates", lambda row: amount(row.synaptic_updates)),
    ("weighted", lambda row: amount(row.synaptic_updates_weighted)),
    ("neurons", lambda row: amount(row.neurons_evaluated)),
    ("sum of T", lambda row: "" if row.sum_timesteps is None else str(row.sum_timesteps)),
    ("ms", _latency),
]
"""Column title and the text of its cell; a column that is empty in every row is left out."""


def amount(value: float | None) -> str:
    """A count in three digits with k, M or G; empty for None."""
    if value is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def wilson(successes: int, trials: int, z: float = Z95) -> Interval:
    """Wilson's score interval for a proportion (Wilson, J. Am. Stat. Assoc. 22, 1927); 95 % by default."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    # The share itself lies inside, whatever the rounding: all right means an upper bound of exactly 1.
    return (max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


@dataclass(frozen=True)
class Latency:
    """Times of single calls in milliseconds, in the order taken."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median time."""
        return median(self.samples)

    @property
    def iqr(self) -> float:
        """Width of the interquartile range; 0 for a single sample."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = quantiles(self.samples, n=4, method="inclusive")
        return high - low


def measure(calls: Mapping[str, Callable[[], object]], repeats: int = 20, warm: int = 2) -> dict[str, Latency]:
    """Time several callables in turn: round after round, each once warmed and once timed, so that drift hits all alike.

    Args:
        repeats: rounds, and so samples per callable.
        warm: untimed calls of each before the first round. Each timed call also follows an untimed one of the same
            callable, which brings its weights back into the cache and its thread pool out of sleep.
    """
    for call in calls.values():
        for _ in range(warm):
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            call()
            samples[name].append((time.perf_counter() - start) * 1e3)
    return {name: Latency(tuple(times)) for name, times in samples.items()}


def machine_name() -> str:
    """CPU model and the number of cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpu_model()}, {cores} cores"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(part for line in reversed(lines) if len(part := [p.strip() for p in line.split(":", 1)]) == 2)
    name = fields.get("model name") or platform.machine()
    family = ", ".join(f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    return f"{name} ({family})" if family else name
