"""What NIR has no place for, in the ``metadata`` of its nodes, so that it survives a round trip.

Graph: ``ldsnn.timesteps`` (T0), ``ldsnn.dt``, ``ldsnn.discretise``. Input: ``ldsnn.time`` (``static``). Output:
``ldsnn.readout`` (``mean``, ``max``, ``last``). Neurons: ``ldsnn.reset`` (``soft``, ``none``) and, beside it,
``ldsnn.compare`` (``ge``) and ``ldsnn.v_init``; of a scheduled network ``ldsnn.timesteps``, ``ldsnn.levels``,
``ldsnn.method`` and what else a layer's schedule holds. Other readers pass over all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ldsnn_compiler.frontend.nir.source import Net, plain
from ldsnn_compiler.schedule import LayerSchedule, Schedule

PREFIX = "ldsnn."


def entries(**values: Any) -> dict[str, Any]:
    """Metadata of ours; None is left out."""
    return {f"{PREFIX}{name}": value for name, value in values.items() if value is not None}


def entry(metadata: Mapping[str, Any], name: str) -> Any:
    """An entry of ours as a plain number or string; None if there is none."""
    value = plain(metadata.get(f"{PREFIX}{name}"))
    return value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value


def schedule_entries(layer: LayerSchedule | None) -> dict[str, Any]:
    """A layer's schedule as metadata."""
    return {} if layer is None else entries(**asdict(layer))


def schedule_of(net: Net, timesteps: int, layers: list[str]) -> Schedule | None:
    """The schedule in the metadata of these neurons; one that has none keeps all its timesteps."""
    found = {name: _layer(net.units[name].metadata, timesteps) for name in layers}
    if not any(entry(net.units[name].metadata, "timesteps") for name in layers):
        return None
    return Schedule(timesteps, found)


def _layer(metadata: Mapping[str, Any], timesteps: int) -> LayerSchedule:
    given = {field.name: entry(metadata, field.name) for field in fields(LayerSchedule)}
    return LayerSchedule(**{"timesteps": timesteps, **{k: v for k, v in given.items() if v is not None}})
