"""What spiking templates share: when a neuron fires, how much it emits and what the reset leaves.

Symbols: ``h`` membrane after charging, ``n`` count fired (0..max_count), ``s = n * spike_value`` the emitted value,
``v`` membrane kept. The options:

``compare``
    ``ge``: n = [h >= threshold]; ``gt``: n = [h > threshold].
``max_count`` k
    1: binary. k: n = clamp(floor(h / threshold), 0, k), for ``gt`` clamp(ceil(h / threshold) - 1, 0, k). 0: unbounded.
    With ``own_reset_charge`` the first spike takes threshold and each further one reset_charge:
    n = clamp(floor((h - threshold) / reset_charge) + 1, 0, k), for ``gt`` ceil((h - threshold) / reset_charge);
    with ``own_reset_charge="uncounted"`` the count goes by the threshold all the same.
``reset``
    ``soft``: v = h - n * reset_charge. ``hard``: v = v_reset where fired. ``none``: v = h. ``offset``: v = 0 where
    fired, and v_reset is added everywhere.
``reset_time``
    ``now``. ``next_before_charge``: at the start of the next step, before the decay (hard) or, written after the decay
    as snnTorch does, ``h = charge(v) - n * reset_charge`` (soft). ``next_after_charge``: soft as before; for hard
    ``h = v_reset`` where fired, so that step's input is lost.
``floor``
    v = max(v, v_min) after the reset; ``shifted`` rounds it as max(v - v_min, 0) + v_min.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Choice, Neuron, Options, Param, TensorRef
from ldsnn_compiler.ir.program import Program, program

FIRING_OPTIONS: Mapping[str, Choice] = {
    "compare": Choice("ge", ("ge", "gt"), "fire on h >= threshold or on h > threshold"),
    "max_count": Choice(1, None, "most spikes a step; 1 is binary, 0 unbounded"),
    "reset": Choice(
        "soft", ("soft", "hard", "none", "offset"), "subtract, set to v_reset, leave, or to 0 plus v_reset"
    ),
    "reset_time": Choice("now", ("now", "next_before_charge", "next_after_charge"), "when the reset takes effect"),
    "own_reset_charge": Choice(
        False, (False, True, "uncounted"), "soft reset subtracts reset_charge in place of threshold"
    ),
    "floor": Choice(False, (False, True, "shifted"), "clamp the membrane to v_min after the reset"),
}
FEEDBACK: Mapping[str, Choice] = {
    "feedback": Choice(False, (False, True), "a second operand, a current that is added after the first")
}
FIRING_PARAMS: Mapping[str, Param] = {
    "threshold": Param(1.0, "membrane at which the neuron fires"),
    "reset_charge": Param(None, "what a soft reset subtracts per spike"),
    "v_reset": Param(0.0, "membrane after a hard reset"),
    "v_init": Param(0.0, "membrane before the first step"),
    "v_min": Param(None, "least membrane"),
    "spike_value": Param(1.0, "value of one emitted spike"),
}


def spiking(
    options: Options,
    charge: str,
    state: Mapping[str, str | float] | None = None,
    threshold: str = "threshold",
    **sections: str,
) -> Program:
    """Complete a charge equation (``h = ... v ... x``) with firing and reset; ``sections`` add synapse or reset.

    ``threshold`` names what the membrane is compared with, where the charge equation assigns it.
    """
    late, hard = options.get("reset_time", "now") != "now", options["reset"] in ("hard", "offset")
    before, after = "", ""
    if late and options["reset"] != "none":
        fired, spent = f"n0 = {count(options, 'v')}", f"n0 * {_reset_charge(options, threshold)}"
        if not hard:
            before, after = fired, f"h = h - {spent}"
        elif options["reset_time"] == "next_before_charge":
            before = f"{fired}; v = {_emptied(options, 'n0', 'v')}"
        else:
            before, after = fired, f"h = {_emptied(options, 'n0', 'h')}"
    keep = "v = h" if late or options["reset"] == "none" else _reset_now(options, threshold)
    return program(
        {"v": "v_init", **(state or {})},
        synapse=sections.get("synapse", ""),
        charge=(before, charge, after),
        fire=(f"n = {count(options, 'h', threshold)}", "s = n * spike_value"),
        reset=(keep, floored(options), sections.get("reset", "")),
    )


def drive(options: Options) -> str:
    """The input current as a charge equation ends with it: ``x``, with the option feedback a sum of two terms.

    Written behind what is decayed, ``beta * v + x + feedback`` adds left to right, as recurrent cells do.
    """
    return "x + feedback" if options["feedback"] else "x"


def floored(options: Options) -> str:
    """The membrane clamped to v_min, as the option ``floor`` has it."""
    if options["floor"] == "shifted":
        return "v = max(v - v_min, 0) + v_min"
    return "v = max(v, v_min)" if options["floor"] else ""


def count(options: Options, membrane: str, threshold: str = "threshold") -> str:
    """How often a neuron fires at this membrane."""
    k, strict = int(options["max_count"]), options["compare"] == "gt"
    if k == 1:
        return f"{membrane} {'>' if strict else '>='} {threshold}"
    if options["own_reset_charge"] is True:
        further = f"({membrane} - {threshold}) / reset_charge"
        whole = f"ceil({further})" if strict else f"floor({further}) + 1"
    else:
        whole = f"ceil({membrane} / {threshold}) - 1" if strict else f"floor({membrane} / {threshold})"
    return f"clamp({whole}, 0, {k})" if k else f"max({whole}, 0)"


def _reset_charge(options: Options, threshold: str) -> str:
    return "reset_charge" if options["own_reset_charge"] else threshold


def _reset_now(options: Options, threshold: str) -> str:
    if options["reset"] == "soft":
        return f"v = h - n * {_reset_charge(options, threshold)}"
    return f"v = {_emptied(options, 'n', 'h')}"


def _emptied(options: Options, fired: str, membrane: str) -> str:
    """What a reset to a fixed membrane leaves."""
    if options["reset"] == "offset":
        return f"select({fired} > 0, 0, {membrane}) + v_reset"
    return f"select({fired} > 0, v_reset, {membrane})"


def scaled(value: float | TensorRef, factor: float | Fraction, what: str) -> float:
    """``value * factor`` for a scalar parameter; retiming a tensor parameter is the caller's to materialise."""
    if isinstance(value, TensorRef):
        raise LdsnnError(f"retiming needs a scalar {what}, {value} is a tensor; use method micro")
    return float(value * factor)


def per_level(neuron: Neuron, levels: int, share: Fraction) -> dict[str, Any]:
    """Threshold, reset charge, initial and least membrane and spike value: ``share`` of each divided into ``levels``
    equal charges."""
    charges = ("threshold", "reset_charge", "v_init", "v_min", "spike_value")
    names = [n for n in charges if n in neuron.params]
    return {n: scaled(neuron.params[n], share / levels, n) for n in names}


def over_steps(beta: float, r: int) -> tuple[float, float]:
    """Decay over r steps, beta**r, and their gain for held input, the sum of beta**i for i < r."""
    decay = beta ** int(r)
    return decay, float(r) if beta == 1.0 else (1.0 - decay) / (1.0 - beta)


def keeps_hard_reset(neuron: Neuron, levels: int) -> bool:
    """Whether a retimed neuron resets as hard as before: where it still emits one spike a step at most."""
    return neuron.options["reset"] == "hard" and levels == 1 and neuron.options["max_count"] == 1


def refuse_offset(neuron: Neuron) -> None:
    """One-shot retimings drop what a hard reset discards, not what each step adds to the membrane."""
    if neuron.options["reset"] == "offset":
        raise LdsnnError("oneshot retiming of a neuron that adds v_reset in each step is not defined; use micro")


def leaky_oneshot(neuron: Neuron, levels: int, share: Fraction, gain: float, unit: float) -> Neuron:
    """Firing and reset of a leaky neuron that covers r steps in one; the caller sets the decay. Approximate.

    Over r steps of held input a silent membrane goes from v to d**r v + G x; the step itself has gain g. ``gain`` is
    G / g, ``unit`` what the membrane is divided by (1, or G where the step's equation leaves no room for G). A spike of
    share * r / k former ones subtracts what those, spread evenly over the r steps, would have left at the end,
    c = share * q * gain / k for a former reset charge q. Where that is more than q, the threshold rises by (c - q) / 2:
    the membrane then keeps the mean it had, and with it the leak, and spikes are rounded to the nearest number, not up.
    The threshold is never below the former one, so subthreshold trajectories are exact. What it drops: when within the
    step the spikes fell, single spikes of a weak input, and what a hard reset would have discarded. Where there is one
    spike a step at most, a hard reset stays one, and drops what is above the raised threshold.
    """
    refuse_offset(neuron)
    charge = scaled(neuron.params["reset_charge" if neuron.options["own_reset_charge"] else "threshold"], 1, "charge")
    larger = float(charge * gain * share / levels)
    threshold = scaled(neuron.params["threshold"], 1, "threshold") + max(0.0, larger - charge) / 2
    least = {"v_min": scaled(neuron.params["v_min"], 1 / unit, "v_min")} if neuron.options["floor"] else {}
    if keeps_hard_reset(neuron, levels):
        reset: dict[str, Any] = {"v_reset": scaled(neuron.params["v_reset"], 1 / unit, "v_reset")}
    else:
        reset = {"reset": "soft", "own_reset_charge": True, "reset_charge": larger / unit}
    return neuron.with_(
        None,
        **reset,
        reset_time="now",
        max_count=levels,
        threshold=threshold / unit,
        v_init=scaled(neuron.params["v_init"], 1 / unit, "v_init"),
        spike_value=scaled(neuron.params["spike_value"], share / levels, "spike_value"),
        **least,
    )
