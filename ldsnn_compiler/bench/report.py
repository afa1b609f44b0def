"""``python -m ldsnn_compiler.bench.report``: the README's results tables, written from the files under ``results/``.

Between ``<!-- results: begin -->`` and ``<!-- results: end -->`` everything is replaced; nothing else is touched. With
``--check`` nothing is written, and a README that differs is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.store import read_file, write_atomically
from ldsnn_compiler.results import amount

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def markdown(files: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables, in the order of the file names."""
    return "\n\n".join(_section(name, data) for name, data in sorted(files.items()))


def rewritten(readme: str, tables: str, where: str = "README.md") -> str:
    """The README with its results replaced; an error if it has no place for them."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise LdsnnError(Problem("has no place for results", where=where, hint=f"put {BEGIN} and {END} there"))
    return f"{head}{BEGIN}\n{tables}\n{END}{tail}"


def read_results(folder: Path) -> dict[str, Any]:
    """Every ``.json`` of a folder by file name; one that is no result is an error."""
    files, problems = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(read_file(path))
        except ValueError as error:
            problems.append(Problem(f"not JSON: {error}", where=str(path)))
            continue
        if not isinstance(data, dict) or not ({"rows", "points"} & data.keys()):
            problems.append(Problem("holds neither rows nor points", where=str(path)))
        files[path.name] = data
    if not files and not problems:
        problems.append(Problem("holds no results", where=str(folder), hint="ldsnn bench ... -o results/NAME.json"))
    if problems:
        raise LdsnnError(problems)
    return files


def _section(name: str, data: Mapping[str, Any]) -> str:
    table = _points(data) if "points" in data else _rows(data)
    return "\n".join([_caption(data), "", *table, "", f"*From `results/{name}`.*"])


def _caption(data: Mapping[str, Any]) -> str:
    settings, versions = data.get("settings", {}), data.get("versions", {})
    parts = [f"**{data['model']}**"]
    if "points" not in data and "timesteps" in settings:
        parts.append(f"T = {settings['timesteps']}, firing rate {settings['density']:g}")
    if "batch" in settings:
        parts.append(f"batch {settings['batch']}")
    parts += [data["numerics"], f"{data['threads']} threads", data["machine"]]
    if data.get("date"):
        parts.append(data["date"])
    listed = ", ".join(f"{k} {v}" for k, v in versions.items())
    return ", ".join(parts) + (f" ({listed})" if listed else "")


def _rows(data: Mapping[str, Any]) -> list[str]:
    speedups, compared = data.get("speedup_over_spikingjelly", {}), data.get("compared", {})
    titles = ["row", "ms", "interquartile range"]
    titles += ["SpikingJelly / row"] if speedups else []
    titles += ["accuracy (95 %)"] if any(r["accuracy"] is not None for r in data["rows"]) else []
    titles += ["synaptic updates"] if any(r["synaptic_updates"] for r in data["rows"]) else []
    titles += ["spikes"] if compared else []
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    for row in data["rows"]:
        cells = {
            "row": row["name"],
            "ms": f"{row['latency_ms']:.3g}" if row["latency_ms"] is not None else "",
            "interquartile range": f"{row['latency_ms_iqr']:.2g}" if row["latency_ms_iqr"] is not None else "",
            "SpikingJelly / row": f"{speedups[row['name']]:.2f}x" if row["name"] in speedups else "",
            "accuracy (95 %)": _accuracy(row),
            "synaptic updates": amount(row["synaptic_updates"]),
            "spikes": _spikes(compared.get(row["name"])),
        }
        lines.append("| " + " | ".join(cells[t] for t in titles) + " |")
    return lines


def _accuracy(row: Mapping[str, Any]) -> str:
    if row["accuracy"] is None:
        return ""
    low, high = row["accuracy_ci95"]
    return f"{row['accuracy']:.2%} ({low:.1%}-{high:.1%})"


def _spikes(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["identical"]:
        return "identical"
    return f"{found['flips']} flips by rounding, {found['unexplained']} unexplained"


def _points(data: Mapping[str, Any]) -> list[str]:
    lines = ["| T | firing rate | spikes | ms | dense kernels, ms | ratio |", "|---:|---:|---:|---:|---:|---:|"]
    for p in data["points"]:
        times = f"{p['ldsnn_ms']:.2f} | {p['dense_ms']:.2f} | {p['ratio']:.2f}"
        lines.append(f"| {p['timesteps']} | {p['density']:g} | {amount(p['spikes'])} | {times} |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Write (or with ``--check`` compare) the README; 1 and a line per problem if that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m ldsnn_compiler.bench.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    try:
        before = read_file(options.readme).decode()
        after = rewritten(before, markdown(read_results(options.results)), str(options.readme))
        if options.check and after != before:
            hint = "run python -m ldsnn_compiler.bench.report"
            raise LdsnnError(Problem("its results are not those of the files", where=str(options.readme), hint=hint))
        if not options.check:
            write_atomically(options.readme, after.encode())
    except LdsnnError as error:
        sys.stderr.writelines(f"error: {p}\n" for p in error.problems)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
