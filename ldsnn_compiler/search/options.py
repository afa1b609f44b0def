"""What each neuron layer may become: (timesteps, levels, method), and which layers stay as they are, by name.

A group is one layer, or all layers of one cycle, which share a grid. A layer of T steps may run at every t for which
r = T/t is whole (with ``uneven``, a closed form also at 3/2 of those). What it emits at t decides the ``spikes`` mode:

``binary``  one spike a step: ``closed`` where the neuron has it, else ``oneshot``;
``graded``  those, and counts: up to ``levels`` = 2, 4, ... <= r spikes a step, and where there is no closed form
            ``micro``, whose events are counts of up to r. A closed form fed by a static input counts in one step only:
            counts in t steps of k levels say nothing that one step of t * k does not, and spikes of early steps that
            later ones disprove cannot be taken back.

With ``ranges`` = n, binary spikes also come in ranges of 1/2, 1/4, ... 1/2**n (with ``uneven`` also at 3/2 of those),
while they stand for no less than one spike of the original: layers that fire seldom keep finer spikes.

With ``reads`` = (a, b, ...), binary layers of the whole range may also read their input on a, b, ... timesteps, where
those divide their own, unless they are in a cycle: what waits until it knows more spreads its spikes evenly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import networkx as nx

from ldsnn_compiler.errors import LdsnnError, Problem, ScheduleError
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.passes._retime import retimed
from ldsnn_compiler.passes.assign_timesteps import apply_schedule
from ldsnn_compiler.schedule import METHODS, LayerSchedule, Schedule, neuron_layers

SPIKES = ("binary", "graded")


@dataclass(frozen=True)
class Choice:
    """What the layers of a group get together, in the order of the group's paths."""

    layers: tuple[LayerSchedule, ...]

    def __str__(self) -> str:
        first = self.layers[0]
        return str(Uniform(first.timesteps, first.levels, first.method, first.range, first.reads))

    def is_finer(self, other: Choice) -> bool:
        """Whether this differs in more timesteps or levels alone."""
        return all(
            (a.method, a.range, a.input_timesteps) == (b.method, b.range, b.input_timesteps)
            and a.timesteps >= b.timesteps and a.levels >= b.levels
            for a, b in zip(self.layers, other.layers, strict=True)
        )  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Layers that choose together. ``choices[0]`` leaves them as they are; ``held`` says why there is no other."""

    paths: tuple[str, ...]
    choices: tuple[Choice, ...]
    held: str = ""

    @property
    def name(self) -> str:
        return " + ".join(self.paths)


@dataclass(frozen=True)
class Uniform:
    """One setting for all layers: ``timesteps`` of a whole run, ``levels``, ``method``, ``range``, and the timesteps on
    which the input is read, None for the layer's own."""

    timesteps: int
    levels: int
    method: str
    range: float = 1.0
    reads: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether timesteps and levels are all that it sets."""
        return self.range == 1 and self.reads in (None, self.timesteps)

    def __str__(self) -> str:
        levels = f" x{self.levels}" if self.levels > 1 else ""
        share = f" range {self.range:.3g}" if self.range != 1 else ""
        reads = "" if self.reads in (None, self.timesteps) else f" reads {self.reads}"
        return f"T={self.timesteps}{levels} {self.method}{share}{reads}"


@dataclass(frozen=True)
class Space:
    """All schedules of a network: one choice per group. ``shares`` is the part of a run that a group's layers cover."""

    base_timesteps: int
    groups: tuple[Group, ...]
    shares: tuple[Fraction, ...]

    @property
    def held(self) -> Mapping[str, str]:
        """Reason by path, for every layer that is not retimed."""
        return {path: group.held for group in self.groups if group.held for path in group.paths}

    def schedule(self, picks: Sequence[int]) -> Schedule:
        """The schedule of choice ``picks[i]`` in group i."""
        layers: dict[str, LayerSchedule] = {}
        for group, pick in zip(self.groups, picks, strict=True):
            layers |= dict(zip(group.paths, group.choices[pick].layers, strict=True))
        return Schedule(self.base_timesteps, layers)

    def uniforms(self) -> tuple[Uniform, ...]:
        """Every setting that some group has, fewest timesteps first; what a uniform schedule may be."""
        found = {
            Uniform(int(first.timesteps / share), first.levels, first.method, first.range, int(first.reads / share))
            for group, share in zip(self.groups, self.shares, strict=True)
            for choice in group.choices
            if (first := choice.layers[0]) and (first.timesteps / share).denominator == 1
            and (first.reads / share).denominator == 1
        }  # fmt: skip
        return tuple(
            sorted(found, key=lambda u: (u.timesteps, u.levels, METHODS.index(u.method), u.range, u.reads or 0))
        )

    def uniform(self, wanted: Uniform) -> tuple[int, ...]:
        """Picks that come nearest to one setting everywhere: never fewer timesteps than wanted, nor more levels."""
        return tuple(
            min(range(len(group.choices)), key=lambda i: _distance(group.choices[i], wanted, share))
            for group, share in zip(self.groups, self.shares, strict=True)
        )


def _distance(
    choice: Choice, wanted: Uniform, share: Fraction
) -> tuple[int, Fraction, bool, int, float, Fraction, bool, int]:
    first = choice.layers[0]
    steps = first.timesteps - wanted.timesteps * share
    more = first.levels > wanted.levels
    reads = (wanted.reads or wanted.timesteps) * share
    return (
        int(steps < 0),
        abs(steps),
        more,
        abs(wanted.levels - first.levels),
        abs(wanted.range - first.range),
        abs(reads - first.reads),
        first.method != wanted.method,
        METHODS.index(first.method),
    )


def space(
    graph: Graph, spikes: str = "binary", *, hold: Iterable[str] = (), uneven: bool = False, ranges: int = 0,
    reads: Iterable[int] = (),
) -> Space:  # fmt: skip
    """All schedules of a traced graph.

    Args:
        spikes: ``binary`` or ``graded``.
        hold: paths of layers that are to stay as they are.
        uneven: closed forms may also run at 3/2 of a divisor of T.
        ranges: how often the range of binary spikes may be halved.
        reads: timesteps of their own on which layers may read their input.

    Raises:
        ScheduleError: unknown ``spikes``, ``reads`` below 1, or ``hold`` names layers that the graph does not have.
    """
    layers, hold, reads = neuron_layers(graph), set(hold), tuple(sorted(set(reads), reverse=True))
    problems = [Problem("the network has no neuron layer of that path", where=p) for p in sorted(hold - layers.keys())]
    if spikes not in SPIKES:
        problems.append(Problem(f"is one of {', '.join(SPIKES)}, not {spikes!r}", where="spikes"))
    problems += [Problem(f"are whole numbers from 1, not {n}", where="reads") for n in reads if n < 1]
    if problems:
        raise ScheduleError(problems)
    groups, shares = [], []
    offer = _Offer(spikes, frozenset(hold), uneven, ranges, reads)
    cyclic = {n for names in nx.strongly_connected_components(graph.dag) if len(names) > 1 for n in names}
    for members in _together(graph, layers):
        is_cyclic = any(node.name in cyclic for node in members.values())
        groups.append(_group(graph, members, replace(offer, reads=()) if is_cyclic else offer))
        shares.append(next(iter(members.values())).type.duration / graph.base_timesteps)
    return Space(graph.base_timesteps, tuple(groups), tuple(shares))


@dataclass(frozen=True)
class _Offer:
    """What :func:`space` was asked for."""

    spikes: str
    hold: frozenset[str]
    uneven: bool
    ranges: int
    reads: tuple[int, ...]


def _together(graph: Graph, layers: Mapping[str, Node]) -> list[dict[str, Node]]:
    """Layers by group, in graph order: those of one cycle belong together."""
    component = {name: i for i, names in enumerate(nx.strongly_connected_components(graph.dag)) for name in names}
    groups: dict[int, dict[str, Node]] = {}
    for path, node in layers.items():
        groups.setdefault(component[node.name], {})[path] = node
    return list(groups.values())


def _group(graph: Graph, members: dict[str, Node], offer: _Offer) -> Group:
    paths, nodes = tuple(members), list(members.values())
    same = Choice(tuple(LayerSchedule(n.type.timesteps, 1, _identity(n["neuron"])) for n in nodes))
    if asked := sorted(offer.hold & members.keys()):
        return Group(paths, (same,), f"held as asked ({', '.join(asked)})")
    if len({(n.type.timesteps, n.type.dt) for n in nodes}) > 1:
        return Group(paths, (same,), "layers of one cycle that differ in time already")
    steps = nodes[0].type.timesteps
    if steps == 1:
        return Group(paths, (same,), "runs one timestep already")
    choices, refusals = [same], list[str]()
    if len(nodes) == 1:
        choices += [Choice((replace(same.layers[0], input_timesteps=n),)) for n in _reads(nodes[0], steps, offer)]
    for t in _candidates(steps, offer.uneven):
        choices += _choices(graph, nodes, t, offer, refusals)
    held = "" if len(choices) > 1 else "; ".join(dict.fromkeys(refusals)) or "no number of timesteps divides its own"
    return Group(paths, tuple(choices), held)


def _identity(neuron: Neuron) -> str:
    """A method under which the same number of steps leaves the neuron as it is."""
    try:
        return "closed" if neuron.retime(1, 1, "closed") == neuron else "micro"
    except LdsnnError:
        return "micro"


def _candidates(steps: int, uneven: bool) -> Iterator[int]:
    """Timesteps below ``steps``, most first."""
    divisors = {t for t in range(1, steps) if steps % t == 0}
    if uneven:
        divisors |= {3 * t // 2 for t in divisors if t % 2 == 0 and 3 * t // 2 < steps}
    return iter(sorted(divisors, reverse=True))


def _choices(graph: Graph, nodes: list[Node], t: int, offer: _Offer, refusals: list[str]) -> list[Choice]:
    """Choices of a group at t steps; layers without some number of levels take the most they have below it, in the
    nearest range."""
    each = [_layer_options(graph, node, t, offer, refusals) for node in nodes]
    if not all(each):
        return []
    if len(each) == 1:
        return [Choice((option,)) for option in each[0]]
    wanted = sorted({(option.levels, option.range) for options in each for option in options})
    found = [Choice(tuple(_nearest(options, levels, share) for options in each)) for levels, share in wanted]
    return list(dict.fromkeys(found))


def _nearest(options: list[LayerSchedule], levels: int, share: float) -> LayerSchedule:
    return max((o for o in options if o.levels <= levels), key=lambda o: (o.levels, -abs(o.range - share)))


def _layer_options(graph: Graph, node: Node, t: int, offer: _Offer, refusals: list[str]) -> list[LayerSchedule]:
    """What one layer may be at t steps; ``refusals`` collects why not more."""
    neuron: Neuron = node["neuron"]
    r = Fraction(node.type.timesteps, t)
    static = all(n["time"] == "static" for n in graph.inputs)
    found: list[LayerSchedule] = []
    for method in ("closed", "oneshot"):
        if method not in neuron.family.retimings or (method == "oneshot" and r.denominator != 1):
            continue
        counts = offer.spikes == "graded" and (t == 1 or method != "closed" or not static)
        tried = [LayerSchedule(t, k, method) for k in _level_numbers(neuron, r, counts)]
        tried += [LayerSchedule(t, 1, method, share) for share in _ranges(neuron, r, offer)]
        tried += [LayerSchedule(t, 1, method, input_timesteps=n) for n in _reads(node, t, offer)]
        found = [option for option in tried if _fits(graph, node, option, refusals)]
        if found:
            break
    if (not found or found[0].method != "closed") and _micro(neuron, r, offer.spikes, refusals):
        micro = LayerSchedule(t, 1, "micro")
        found += [micro] if _fits(graph, node, micro, refusals) else []
    return found


def _level_numbers(neuron: Neuron, r: Fraction, counts: bool) -> list[int]:
    """1, and where spikes may count the powers of two up to r, which is all r binary steps can say, and r itself."""
    if not counts or neuron.options.get("max_count", 1) != 1:
        return [1]
    return sorted({2**i for i in range(int(r).bit_length())} | {int(r)})


def _ranges(neuron: Neuron, r: Fraction, offer: _Offer) -> list[float]:
    """Ranges of a binary neuron below the whole one, widest first, down to a spike of the original a step."""
    if neuron.options.get("max_count", 1) != 1:
        return []
    halves = [0.5**i for i in range(offer.ranges + 1)]
    found = halves[1:] + [0.75 * share for share in halves[:-1] if offer.uneven]
    return sorted((share for share in found if r * Fraction(share) >= 1), reverse=True)


def _reads(node: Node, t: int, offer: _Offer) -> list[int]:
    """Numbers of timesteps below t on which a layer of t steps, held to one spike a step, may read its input."""
    neuron: Neuron = node["neuron"]
    binary = offer.spikes == "binary" and neuron.family.spiking and neuron.options.get("max_count", 1) == 1
    return [n for n in offer.reads if n < t and t % n == 0] if binary else []


def _micro(neuron: Neuron, r: Fraction, spikes: str, refusals: list[str]) -> bool:
    """Whether micro retiming is on offer: it counts spikes, which a layer held to binary ones may not emit."""
    if r.denominator != 1:
        refusals.append("micro retiming needs a whole number of steps in one")
    elif spikes == "binary" and neuron.signal.levels == 1:
        refusals.append("has no closed or oneshot form, and micro retiming emits counts: graded spikes allow it")
    else:
        return True
    return False


def _fits(graph: Graph, node: Node, option: LayerSchedule, refusals: list[str]) -> bool:
    """Whether the neuron can be retimed so; if its membrane is read, whether the whole network can."""
    r = Fraction(node.type.timesteps, option.timesteps)
    try:
        if node["membrane"]:
            same = {
                p: LayerSchedule(n.type.timesteps, 1, _identity(n["neuron"])) for p, n in neuron_layers(graph).items()
            }
            path = next(p for p, n in neuron_layers(graph).items() if n is node)
            apply_schedule(graph.clone(), Schedule(graph.base_timesteps, same | {path: replace(option)}))
        else:
            retimed(graph.clone(), node, r, option)
    except LdsnnError as error:
        refusals.extend(p.message for p in error.problems)
        return False
    return True
