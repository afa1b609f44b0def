"""From continuous time to timesteps: what a NIR neuron's differential equations do in one step of length dt.

All arithmetic is float64; dt is in the unit of the file's time constants. The input is held during a step.

``zoh`` (zero-order hold) solves the equations exactly for held input; ``euler`` takes one first-order step. A first
order system ``tau dv/dt = -v + u`` becomes ``v = beta v + (1 - beta) u`` either way, with

    beta = exp(-dt / tau)    (zoh)        beta = 1 - dt / tau    (euler)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ldsnn_compiler.errors import LdsnnError, Problem

Array = npt.NDArray[np.float64]
Method = Literal["zoh", "euler"]
METHODS: tuple[Method, ...] = ("zoh", "euler")


@dataclass(frozen=True)
class Step:
    """A timestep: its length ``dt`` in the file's unit of time, and how equations are carried over it."""

    dt: float
    method: Method = "zoh"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.dt) and self.dt > 0):
            raise LdsnnError(Problem(f"a timestep has a positive length, not {self.dt}", where="dt"))
        if self.method not in METHODS:
            raise LdsnnError(Problem(f"one of {', '.join(METHODS)}, not {self.method!r}", where="discretise"))

    def decay(self, tau: Array) -> Array:
        """What is left of a state of time constant ``tau`` after one step."""
        with np.errstate(divide="ignore"):
            rate = self.dt / tau
        return np.exp(-rate) if self.method == "zoh" else 1.0 - rate

    def time_constant(self, decay: Array) -> Array:
        """The inverse of :meth:`decay`; infinite where nothing decays."""
        with np.errstate(divide="ignore"):
            return self.dt / (-np.log(decay) if self.method == "zoh" else 1.0 - decay)
