"""Neurons whose program the user's model writes out itself, statement by statement.

The program is not built from options: it *is* the options, one text for each section (see
:mod:`ldsnn_compiler.ir.program`), and ``state``, the state variables with their initial values. Numbers stand in the
text; ``p0``, ``p1``, ... are parameters that are tensors, per channel or per neuron. ``written`` emits the count ``n``,
``written_readout`` the real number ``s``.
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.program import Program, program

PARAMETERS = tuple(f"p{i}" for i in range(8))
"""Names of parameters that are tensors."""


def build(options: Options) -> Program:
    pairs = (part.partition("=") for part in str(options["state"]).split(";"))
    state: dict[str, str | float] = {name.strip(): value.strip() for name, _, value in pairs}
    sections = {name: str(options[name]) for name in ("charge", "fire", "reset")}
    return program(state, membrane=str(options["membrane"]), **sections)


def _options(fire: str) -> dict[str, Choice]:
    return {
        "state": Choice("v = 0.0", None, "state variables and their initial values"),
        "charge": Choice("h = v + x", None, "assignments"),
        "fire": Choice(fire, None, "assignments, the last of them to s"),
        "reset": Choice("v = h", None, "assignments to the state variables"),
        "membrane": Choice("v", None, "the state variable shown as the second result"),
    }


_PARAMS = {name: Param(None, "a tensor that the program reads") for name in PARAMETERS}
WRITTEN = register(
    Template(
        "written",
        "Neuron written out by a model, spiking: its options are the program.",
        _PARAMS,
        {**_options("n = h >= 1.0; s = n"), "max_count": Choice(1, (1,), "binary spikes only")},
        build,
    )
)
WRITTEN_READOUT = register(
    Template(
        "written_readout",
        "Neuron written out by a model, emitting real numbers: its options are the program.",
        _PARAMS,
        _options("s = h"),
        build,
        spiking=False,
    )
)
