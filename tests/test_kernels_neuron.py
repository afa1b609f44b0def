"""Every built-in neuron through the TIR emitter, against the interpreter, bit for bit."""

from __future__ import annotations

import random
from itertools import product

import pytest
from kernels_harness import check, check_all, prepare

from ldsnn_compiler.ir.neuron import neuron, templates
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Source, Tuning

#: not dyadic on purpose: roundings must happen where the program writes them
VALUES = {"threshold": 1.1, "v_reset": -0.3, "v_min": -0.7, "reset_charge": 0.9, "spike_value": 0.5, "v_init": 0.2}
EULER = {"mem_rate": 0.3, "syn_rate": 0.21, "v_leak": 0.1}
OWN = {
    "lif": {"tau": 3.0, "k": 0.3, "decay": 0.7, "v_rest": 0.1},
    "alif": {"beta": 0.87, "rho": 0.93, "adapt_gain": 0.21},
    "alpha": {"alpha": 0.71, "beta": 0.43, "gain": 0.6},
    "cuba_lif": {"alpha": 0.71, "beta": 0.83},
    "izhikevich": {"tau": 2.3, "tau_w": 3.7, "k_w": 0.27, "a": 0.3, "b": 0.4, "a0": 0.02},
    "leaky": {"beta": 0.91},
    "li": {"beta": 0.91},
    "li_euler": EULER,
    "lif_euler": EULER,
    "lsnn": {**EULER, "adapt_rate": 0.03, "adapt_gain": 0.21},
}


def variants(name: str) -> list[dict]:
    """All combinations of the template's options that differ in kind; a second operand is for other kernels."""
    options = templates()[name].options
    choices = {
        k: c.values or ((c.default,) if isinstance(c.default, str) else (0, 1, 3))
        for k, c in options.items()
        if k != "feedback"
    }
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def build(name: str, options: dict, substeps: int = 1):
    known = templates()[name].params
    values = {k: v for k, v in {**VALUES, **OWN.get(name, {})}.items() if k in known}
    return neuron(name, **values, **options).with_(substeps=substeps)


def region(cell, timesteps: int, output: str, channels: int = 16) -> RegionSpec:
    current = Source("current", channels, (1, 4), timesteps)
    return RegionSpec(1, timesteps, channels, (1, 4), (current,), cell, output=output, state_io=True, membrane=True)


def sampled(name: str, most: int) -> list[dict]:
    """A spread of the variants: every option value, in many combinations."""
    known = variants(name)
    return known if len(known) <= most else random.Random(name).sample(known, most)


@pytest.mark.parametrize("name", templates())
def test_variants(name: str) -> None:
    cells = [build(name, options) for options in sampled(name, 24)]
    check_all([prepare(region(c, 32, "bits" if c.signal.is_bounded else "dense"), seed=i) for i, c in enumerate(cells)])


@pytest.mark.parametrize("name", templates())
def test_substeps(name: str) -> None:
    cells = [build(name, options, substeps=4) for options in sampled(name, 4)]
    dense = [prepare(region(c, 5, "dense", channels=10), seed=1) for c in cells]
    bits = [prepare(region(c, 5, "bits", channels=10), seed=2) for c in cells if c.signal.is_bounded]
    check_all(dense + bits)


def test_narrow_vectors_keep_the_rounding() -> None:
    for lanes in (4, 8):
        spec = region(build("leaky", {}), 64, "bits")
        check(RegionSpec(**{**spec.__dict__, "tuning": Tuning(lanes=lanes, block=64)}))
