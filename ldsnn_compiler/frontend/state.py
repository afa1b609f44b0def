"""State as libraries hand it back from their modules, to be passed to the next call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ldsnn_compiler.frontend.traced import Traced, leaves


class State:
    """What a call returns besides its spikes. A graph keeps its state itself, so this is no output of a network.

    ``read`` gives the parts that a model may record, by the names they have in the library: ``state.v``. The state of
    one timestep and that of all are the same object, for neither is recorded.
    """

    def __init__(self, **read: Callable[[], Traced]) -> None:
        self._read = read

    def __getitem__(self, step: int) -> State:
        return self

    def __getattr__(self, name: str) -> Traced:
        if name not in self._read:
            known = ", ".join(self._read) or "nothing"
            raise AttributeError(f"{name} cannot be recorded; of this state only: {known}")
        return self._read[name]()


def is_state(result: Any) -> bool:
    """Whether a result is a state, or a nest of states and of None where a layer has none."""
    return isinstance(result, State) or (
        isinstance(result, list | tuple | dict) and all(isinstance(leaf, State | None) for leaf in leaves(result))
    )


__all__ = ["State", "is_state"]
