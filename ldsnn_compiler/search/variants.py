"""Variants of a spiking neuron that recalibration may try, and the climb to the one of least error.

They are named by what they change; each takes a neuron and an amount, and gives None where the neuron has no such
variant (a parameter that differs per channel, a resting membrane that is not 0):

``size``    fewer, larger spikes: threshold, reset charge, initial and least membrane and value of a spike together. The
            gain of an integrate-and-fire neuron stays; larger spikes clip less, smaller ones round less
``gain``    the same but for the value of a spike: how much is emitted for a current
``charge``  the reset charge alone, of leaky neurons after oneshot retiming: how much a spike takes
``start``   the initial membrane alone, in thresholds, within 0..1

No count, and no number of timesteps, changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ldsnn_compiler.ir.neuron import Neuron

Variant = Callable[[Neuron, float], Neuron | None]

WIDE = (-1.5, -0.5, -0.2, 0.2, 0.5)
"""Amounts that are tried first, one by one: a layer that is silent shows no way to go."""
STEP, MOST = 0.05, 6
"""Amount of a further move, and how many there may be."""
CHARGES = ("threshold", "reset_charge", "v_init", "v_min")


def _size(neuron: Neuron, amount: float) -> Neuron | None:
    return _scaled(neuron, (*CHARGES, "spike_value"), amount)


def _gain(neuron: Neuron, amount: float) -> Neuron | None:
    return _scaled(neuron, CHARGES, amount)


def _charge(neuron: Neuron, amount: float) -> Neuron | None:
    return _scaled(neuron, ("reset_charge",), amount) if "reset_charge" in neuron.params else None


def _start(neuron: Neuron, amount: float) -> Neuron | None:
    threshold, start = (neuron.params.get(name) for name in ("threshold", "v_init"))
    if not isinstance(threshold, float) or not isinstance(start, float):
        return None
    moved = start + amount * threshold
    return neuron.with_(v_init=moved) if 0.0 <= moved < threshold else None


def _scaled(neuron: Neuron, names: Sequence[str], amount: float) -> Neuron | None:
    """Those parameters that the neuron has, up by the amount, or down by as much that the way back leads here."""
    factor = 1.0 + amount if amount > 0 else 1.0 / (1.0 - amount)
    values = {name: neuron.params[name] for name in names if name in neuron.params}
    if any(neuron.params.get(name, 0.0) != 0.0 for name in ("v_rest", "v_reset")):
        return None
    scaled = {name: value * factor for name, value in values.items() if isinstance(value, float)}
    return neuron.with_(None, **scaled) if len(scaled) == len(values) else None


VARIANTS: Mapping[str, Variant] = {"size": _size, "gain": _gain, "charge": _charge, "start": _start}


def best(neuron: Neuron, error: Callable[[Neuron], float]) -> Neuron:
    """The neuron of least error, one kind of variant after the other: the best of wide moves, then small ones for as
    long as the error falls."""
    least = error(neuron)
    for variant in VARIANTS.values():
        wide = [tried for amount in WIDE if (tried := variant(neuron, amount)) is not None]
        errors = [error(tried) for tried in wide]
        if errors and min(errors) < least:
            neuron, least = wide[errors.index(min(errors))], min(errors)
        neuron, least = _climb(neuron, least, variant, error)
    return neuron


def _climb(neuron: Neuron, least: float, variant: Variant, error: Callable[[Neuron], float]) -> tuple[Neuron, float]:
    """Up while the error falls; down if no step up has made it fall."""
    start = neuron
    for amount in (STEP, -STEP):
        for _ in range(MOST):
            tried = variant(neuron, amount)
            if tried is None or (found := error(tried)) >= least:
                break
            neuron, least = tried, found
        if neuron != start:
            break
    return neuron, least
