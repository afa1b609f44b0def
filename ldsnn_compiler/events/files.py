"""Recordings in ``.npz`` files, as DATA arguments: ``"recordings.npz{dt=1ms,outside=drop}"``.

The arrays t, x, y, p hold the events of all recordings one behind the other, or ``events`` does as one structured
array; recording i is ``offsets[i]:offsets[i + 1]``, and ``labels``, which may be left out, are class numbers. With
``_train`` and ``_test`` behind these names the splits are given. Options are those of
:class:`~ldsnn_compiler.events.binning.Binning`, and

``timesteps``  of the window, where the network's input does not say it
``first``      use that many recordings of each split only
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.events.binning import Binning
from ldsnn_compiler.events.framing import Framing, warn_of
from ldsnn_compiler.events.recordings import FIELDS
from ldsnn_compiler.ir.graph import Node

ARRAYS = (*FIELDS, "events", "offsets", "labels")
NAMES = tuple(name + split for split in ("", "_train", "_test") for name in ARRAYS)
"""Of arrays that are read."""
_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("dt", "unit", "start", "mode", "outside"), str),
    "sensor": lambda text: tuple(map(int, text.split("x"))),
    "timesteps": int,
    "first": int,
}


def holds_events(names: Any) -> bool:
    """Whether arrays of these names are recordings."""
    return bool({"t", "events", "t_train", "events_train"} & set(names))


def read_options(text: str, where: str) -> dict[str, Any]:
    """``dt=1ms,outside=drop`` as values; all problems at once."""
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, _, value = part.partition("=")
        try:
            found[key] = _OPTIONS[key](value)
        except KeyError:
            known = f"known are {', '.join(_OPTIONS)}"
            problems.append(Problem(f"unknown option of events {key!r}", where=where, hint=known))
        except ValueError:
            problems.append(
                Problem(f"cannot be read: {part!r}", where=where, hint="such as sensor=2x34x34, timesteps=10")
            )
    if "dt" not in found:
        hint = f'say how long a timestep is, such as "{where}{{dt=1ms}}"'
        problems.append(Problem("holds events", where=where, hint=hint))
    if problems:
        raise LdsnnError(problems)
    return found


class EventFile:
    """What was read of a file of recordings, to be made into frames: those of the input ``node``, where it is known."""

    def __init__(self, path: Path, arrays: Mapping[str, Any], options: str, node: Node | None) -> None:
        self.path, self.arrays = path, arrays
        given = read_options(options, str(path))
        timesteps, self.first = given.pop("timesteps", None), given.pop("first", None)
        binning = Binning(**given)
        if node is not None and timesteps in (None, node.type.timesteps):
            self.framing = Framing.of(node, binning)
        elif timesteps is not None and binning.sensor is not None:
            self.framing = Framing.sized(binning.sensor, timesteps, binning.step, binning, str(path))
        elif node is not None:
            text = f"timesteps={timesteps}, but the network's input has {node.type.timesteps}"
            raise LdsnnError(Problem(text, where=str(path)))
        else:
            hint = "say it, such as timesteps=340,sensor=2x34x34"
            raise LdsnnError(Problem("the shape of the network's input is not known yet", where=str(path), hint=hint))

    def split(self, suffix: str) -> tuple[Tensor, Any]:
        """Frames ``[N, T, *shape]`` and labels (or None) of the arrays whose names end so."""
        recordings, name = list(self._recordings(suffix))[: self.first], suffix.lstrip("_")
        names = [f"{self.path}, {name} recording {i}".replace(",  ", ", ") for i in range(len(recordings))]
        frames, dropped = self.framing.window(recordings, names)
        warn_of(dropped, f"{self.path}, {name}".rstrip(", "))
        labels = self.arrays.get(f"labels{suffix}")
        return frames, None if labels is None else labels[: self.first]

    def _recordings(self, suffix: str) -> Iterator[Mapping[str, Any] | Any]:
        whole = self.arrays.get(f"events{suffix}")
        columns = {name: self.arrays[name + suffix] for name in FIELDS if name + suffix in self.arrays}
        offsets = self._offsets(suffix, min(map(len, columns.values())) if whole is None else len(whole))
        for low, high in pairwise(offsets):
            if whole is not None:
                yield whole[low:high]
            else:
                yield {name: values[low:high] for name, values in columns.items()}

    def _offsets(self, suffix: str, count: int) -> list[int]:
        found, name = self.arrays.get(f"offsets{suffix}"), f"offsets{suffix}"
        hint = "recording i is events offsets[i] to offsets[i + 1]"
        if found is None:
            raise LdsnnError(Problem(f"lacks {name}", where=str(self.path), hint=hint))
        good = (
            found.ndim == 1 and len(found) > 1 and found.dtype.kind in "iu" and (np.diff(found.astype(int)) >= 0).all()
        )
        if not good or found[0] != 0 or found[-1] != count:
            text = f"expected whole numbers from 0 up to {count}, the number of events"
            raise LdsnnError(Problem(text, where=str(self.path), kind="events", attribute=name, hint=hint))
        return [int(n) for n in found]
