"""A search's ``report.json`` as one HTML page that needs nothing else: no script, no font, no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.store import read_file
from ldsnn_compiler.results import amount
from ldsnn_compiler.search.plots import COLOURS, Mark, scatter

NEEDED = (
    "model",
    "target",
    "rows",
    "front",
    "figures",
    "layers",
    "schedules",
    "headline",
    "reference",
    "budget",
    "data",
)
"""What a report must have."""
PLOTS = (
    ("synaptic_updates", "synaptic updates per sample"),
    ("synaptic_updates_weighted", "synaptic updates, graded events counted in full"),
    ("neurons_evaluated", "neuron evaluations per sample"),
    ("energy_nj", "energy estimate per sample, nJ"),
)
"""Costs that are plotted, with their titles."""


def read_report(path: Path) -> dict[str, Any]:
    """The report in a file; LdsnnError says what is wrong with it."""
    try:
        data = json.loads(read_file(path))
    except ValueError as error:
        raise LdsnnError(Problem(f"is no JSON: {error}", where=str(path))) from None
    missing = [key for key in NEEDED if not isinstance(data, dict) or key not in data]
    if missing:
        hint = "a report.json written by `ldsnn optimize`"
        raise LdsnnError(Problem(f"lacks {', '.join(missing)}", where=str(path), hint=hint))
    return dict(data)


def page(report: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    text = files("ldsnn_compiler.search").joinpath("report.html.j2").read_text()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"amount": amount, "percent": _percent, "ratio": _ratio}
    marks = {key: _marks(report, key) for key, _ in PLOTS}
    measured = "accuracy" if report["data"]["labels"] else "agreement"
    return environment.from_string(text).render(
        report=report,
        measured=measured,
        colours=COLOURS,
        plots=[Markup(scatter(marks[key], title, measured)) for key, title in PLOTS],
        rows=[_row(report, row) for row in report["rows"]],
        tables=[_layers(report, name) for name in report["schedules"] if name.startswith("per layer")],
    )


def _percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _kind(name: str) -> str:
    """Which colour a row has."""
    return name.rpartition(" ")[2] if name.startswith("per layer") else "baseline"


def _marks(report: Mapping[str, Any], cost: str) -> list[Mark]:
    found = [
        Mark(_summary(point["schedule"]), point["spikes"], point["work"][cost], point["accuracy"])
        for point in report["front"]
    ]
    for row in report["rows"]:
        accuracy = row["agreement"] if row["accuracy"] is None else row["accuracy"]
        interval = row["accuracy_ci95"]
        figures = report["figures"][row["name"]]
        low_high = (interval[0], interval[1]) if interval else None
        found.append(Mark(row["name"], _kind(row["name"]), figures["work"][cost], accuracy, low_high, True))
    return found


def _summary(schedule: Mapping[str, Mapping[str, Any]]) -> str:
    """Timesteps, and levels where there are any, in layer order."""
    steps = " ".join(str(layer["timesteps"]) for layer in schedule.values())
    levels = [layer["levels"] for layer in schedule.values()]
    return f"T {steps}" + (f", levels {' '.join(map(str, levels))}" if max(levels, default=1) > 1 else "")


def _row(report: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the baseline table with its ratios and verdict."""
    steps = list(row["timesteps"].values())
    levels = list(row["levels"].values())
    return {
        **row,
        "colour": COLOURS[_kind(row["name"])],
        "steps": str(steps[0]) if len(set(steps)) == 1 else " ".join(map(str, steps)),
        "graded": "" if set(levels) <= {1} else " ".join(str(k) if k else "any" for k in levels),
        "figures": report["figures"][row["name"]],
        "is_reference": row["name"] == report["reference"],
    }


def _layers(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Every node that works, before (uniform T0) and after, with the widths of its bars in percent."""
    before = {entry["path"]: entry for entry in report["layers"][report["reference"]]}
    after = {entry["path"]: entry for entry in report["layers"][name]}
    largest = {
        key: max([e[key] for e in (*before.values(), *after.values())], default=0) or 1
        for key in ("timesteps", "density", "synaptic_updates", "neurons_evaluated")
    }
    schedule = report["schedules"][name]
    entries = []
    for path in dict.fromkeys([*before, *after]):
        pair = (before.get(path), after.get(path))
        cells = {
            key: [{"value": e[key], "width": 100 * e[key] / most} if e else None for e in pair]
            for key, most in largest.items()
        }
        layer = schedule.get(path)
        if layer is None:
            cells["density"] = []  # of currents, which are dense whatever the schedule
        entries.append({"path": path, "op": (pair[1] or pair[0] or {})["op"], "layer": layer, **cells})
    return {"name": name, "colour": COLOURS[_kind(name)], "entries": entries}
