"""The document's table, made from a result file: rows by batch size, milliseconds and how that compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def markdown(data: Mapping[str, Any]) -> str:
    """A caption with device, date and versions, the table, and what the comparison of results says."""
    cells: dict[str, dict[str, float]] = {}
    for row in data["rows"]:
        name, _, batch = row["name"].rpartition(", batch ")
        cells.setdefault(name, {})[batch] = row["latency_ms"]
    batches = sorted({b for of_row in cells.values() for b in of_row}, key=int)
    titles = ["row", *(f"batch {b}, ms" for b in batches), *(f"SpikingJelly / row, batch {b}" for b in batches)]
    lines = [_caption(data), "", "| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    for name, times in cells.items():
        shown = [f"{times[b]:.3g}" if b in times else "" for b in batches]
        ratios = [data["speedup"].get(b, {}).get(name) for b in batches]
        lines.append("| " + " | ".join([name, *shown, *(f"{r:.2f}x" if r else "" for r in ratios)]) + " |")
    return "\n".join([*lines, "", _compared(data)])


def _caption(data: Mapping[str, Any]) -> str:
    settings = data["settings"]
    versions = ", ".join(f"{k} {v}" for k, v in data["versions"].items())
    of = f"firing rate {settings['density']:g}" if "density" in settings else f"schedules of {settings['schedules']}"
    return f"**{data['model']}**, T = {settings['timesteps']}, {of}, {data['device']}, {data['date']} ({versions})"


def _compared(data: Mapping[str, Any]) -> str:
    lines = [
        f"`{name}`: {found['differing']} of {found['spikes']} spikes differ." for name, found in data["spikes"].items()
    ]
    wrong = [_differing(name, data) for name, same in data["identical_scores"].items() if not same]
    lines.append(f"Other scores than expected: {', '.join(wrong)}." if wrong else "All scores are as expected.")
    for name, found in data.get("limit_shares", {}).items():
        each = ", ".join(f"`{kernel}` {share:.0%}" for kernel, share in found.items())
        lines.append(f"Share of the L2 or tensor-core limit, {name}: {each}.")
    lines += [f"Left out: {name} ({why})." for name, why in data["left_out"].items()]
    return "\n".join(lines)


def _differing(name: str, data: Mapping[str, Any]) -> str:
    found = data.get("scores", {}).get(name)
    if found is None:
        return str(name)
    same = f"the same class for {found['same_class']} of {found['samples']}"
    return f"{name} ({same}, largest difference {found['largest_difference']:.2g})"
