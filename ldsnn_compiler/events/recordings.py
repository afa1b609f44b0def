"""Recordings in the forms that users have, as times and positions in a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.events.binning import AXES, UNITS, Binning

Column = npt.NDArray[np.int64]
FIELDS = "txyp"


@dataclass(frozen=True)
class Events:
    """A recording: time in nanoseconds and the position in a frame, flattened, of each event on the sensor; the time of
    the ``first`` of all (None without events), and how many lie ``outside`` the sensor."""

    t: Column
    cell: Column
    first: int | None
    outside: int = 0


def read(recording: Any, sensor: tuple[int, ...], binning: Binning, where: str) -> Events:
    """A recording for frames of shape ``sensor``; ``where`` is what errors call it."""
    axes = AXES[len(sensor)]
    needed = ["t", *(a for a, size in zip(axes, sensor, strict=True) if not (a == "p" and size == 1))]
    table, problems = _table(recording, needed, where), list[Problem]()
    columns = {name: _column(table[name], name, binning, where, problems) for name in needed}
    if not problems and len({len(c) for c in columns.values()}) > 1:
        found = ", ".join(f"{k}: {len(c)}" for k, c in columns.items())
        problems = [Problem(f"fields differ in length: {found}", where=where)]
    if problems:
        raise LdsnnError(problems)
    if "p" in columns:
        columns["p"] = np.where(columns["p"] == -1, 0, columns["p"])
    kept, cell = np.ones(len(columns["t"]), bool), np.zeros(len(columns["t"]), np.int64)
    for name, size in zip(axes, sensor, strict=True):
        if name in columns:
            inside = (columns[name] >= 0) & (columns[name] < size)
            problems += refused(~inside, columns[name], f"{name} is not in 0..{size - 1}", where, name, binning)
            kept &= inside
            cell = cell * size + columns[name]
    if problems:
        raise LdsnnError(problems)
    first = int(columns["t"].min()) if len(kept) else None
    return Events(columns["t"][kept], cell[kept], first, int((~kept).sum()))


def refused(wrong: Any, values: Column, text: str, where: str, name: str, binning: Binning) -> Iterator[Problem]:
    """A problem if events are ``wrong`` ``[E]`` and ``binning`` does not drop them: how many, and the first's value."""
    count = int(wrong.sum())
    if count and binning.outside == "refuse":
        example = values[np.argmax(wrong)]
        text = f"{count} of {len(wrong)} events lie outside: {text}, but {example}"
        yield Problem(text, where=where, attribute=name, kind="events", hint="outside=drop leaves them out")


def _table(recording: Any, needed: Sequence[str], where: str) -> Mapping[str, Any]:
    if isinstance(recording, Tensor):
        recording = recording.detach().cpu().numpy()
    if isinstance(recording, np.ndarray) and recording.dtype.names is None and recording.ndim == 2:
        recording = dict(zip(FIELDS, recording.T, strict=False))
    if isinstance(recording, np.ndarray) and recording.dtype.names is not None:
        recording = {name: recording[name] for name in recording.dtype.names}
    if not isinstance(recording, Mapping):
        shape = f" of shape {list(recording.shape)}" if hasattr(recording, "shape") else ""
        hint = f"a structured array with the fields {', '.join(needed)}, or an array [E, 4] of t, x, y, p"
        raise LdsnnError(Problem(f"no events: {type(recording).__name__}{shape}", where=where, hint=hint))
    missing = [name for name in needed if name not in recording]
    if missing:
        found = ", ".join(map(str, recording)) or "nothing"
        raise LdsnnError(Problem(f"lacks {', '.join(missing)}, holds {found}", where=where, kind="events"))
    return recording


def _column(values: Any, name: str, binning: Binning, where: str, problems: list[Problem]) -> Column:
    """A field as int64, times in nanoseconds; what is wrong with it goes to ``problems``."""
    scale = UNITS[binning.unit] if name == "t" else 1
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        text = f"expected numbers [E], found {array.dtype} of shape {list(array.shape)}"
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        text = "holds NaN or infinity"
    elif array.dtype.kind == "f" and name != "t" and (array != np.rint(array)).any():
        text = "holds numbers that are not whole"
    elif len(array) and max(abs(int(array.min())), abs(int(array.max()))) >= 2**62 // scale:
        text = f"holds {array[np.argmax(np.abs(array.astype(np.float64)))]}, which is too large"
    else:
        whole = np.rint(array.astype(np.float64) * scale) if array.dtype.kind == "f" else array.astype(np.int64) * scale
        return whole.astype(np.int64)
    problems.append(Problem(text, where=where, attribute=name, kind="events"))
    return np.zeros(0, np.int64)
