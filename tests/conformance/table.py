"""The conformance table, as documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from conformance.compare import Outcome

MOST_FLIPS = 1e-5
"""Share of decisions that may differ with ordinary weights."""
MARGIN = 1e-5
"""How far from the threshold a membrane may be where a decision differs."""


@dataclass(frozen=True)
class Result:
    """What came of one library."""

    library: str
    version: str
    outcomes: tuple[Outcome, ...]


def problems(results: Iterable[Result]) -> list[str]:
    """Everything that does not conform."""
    return [f"{r.library}: {p}" for r in results for o in r.outcomes for p in faults(o)]


def faults(outcome: Outcome) -> list[str]:
    """What is wrong with one variant."""
    found = list(outcome.problems)
    where = f"{outcome.neuron}, {outcome.reset}"
    if outcome.flips > MOST_FLIPS * outcome.decisions:
        found.append(f"{where}: {outcome.flips} of {outcome.decisions} decisions differ")
    if outcome.margin > MARGIN:
        found.append(f"{where}: a decision differs {outcome.margin:.1e} from the threshold")
    if outcome.networks and not outcome.active:
        found.append(f"{where}: no network of {outcome.networks} emits anything")
    return found


def markdown(results: Iterable[Result], command: str) -> str:
    """The whole page."""
    return "\n".join([HEAD.format(command=command).rstrip(), *(line for r in results for line in _section(r)), ""])


HEAD = f"""# Conformance

Random small networks of each library, imported, interpreted and compiled, against the library's own run. Written by
`{{command}}`;
`tests/conformance/__init__.py` says how to add a library or a variant.

*exact*: weights and inputs are multiples of 1/16, neuron parameters ordinary numbers. The outputs of every timestep and
the whole state at the end are equal bit for bit: interpreted, compiled, and compiled in steps of one timestep.

*float*: weights and inputs are ordinary float32 numbers. Layer by layer, each fed what the library's layer before it
emitted, every spike decision is counted up to the first one of a neuron that differs, with its distance from the
threshold: interpreted for every network, compiled for the first half of each variant's. A share of at most
{MOST_FLIPS:g} may differ, none further than {MARGIN:g} from the threshold. What
readouts emit agrees to 1e-5.
"""


def _section(result: Result) -> Iterator[str]:
    networks = sum(o.networks for o in result.outcomes)
    yield ""
    yield f"## {result.library} ({result.version}): {networks:,} networks"
    yield ""
    yield "| neuron | reset | networks | timesteps | exact | float: decisions | differ |"
    yield "|---|---|---:|---|---|---:|---|"
    for o in result.outcomes:
        exact = "differs" if o.problems else "identical"
        differ = f"{o.flips}" + (f" (within {o.margin:.0e})" if o.flips else "")
        yield (
            f"| {o.neuron} | {o.reset} | {o.networks:,} | {o.least_steps}-{o.most_steps} | {exact} "
            f"| {o.decisions:,} | {differ} |"
        )
