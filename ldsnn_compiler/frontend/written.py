"""Neurons written by hand in a time loop become neuron programs of their own.

Before, unrolled::

    v1 = 0.9 * v0 + fc(x[0]); s1 = (v1 > 1).float(); v1' = v1 - s1;    v2 = 0.9 * v1' + fc(x[1]); ...

After::

    s1, v1' = neuron1(fc(x[0]));                                       s2, v2' = neuron1(fc(x[1])); ...

What is carried from turn to turn by elementwise arithmetic is state; states that need each other are one neuron, and so
is everything between what they were and what they become. Its one input is the only value that comes from elsewhere.
:mod:`ldsnn_compiler.frontend.reroll` then takes the calls for what they are, steps of a neuron. Sums and maxima that
run along are left to it, and so are loops that call the neurons of a library.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import networkx as nx
import torch
from torch import fx, nn

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.frontend import elementwise
from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.families import at, describe
from ldsnn_compiler.frontend.first_turn import completed
from ldsnn_compiler.frontend.parameters import parameter
from ldsnn_compiler.frontend.periods import Turns, turns
from ldsnn_compiler.frontend.registry import FrontEnd
from ldsnn_compiler.frontend.reroll import is_stateful
from ldsnn_compiler.frontend.traced import BATCH, Traced
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.neurons.written import PARAMETERS
from ldsnn_compiler.ir.program import Const, Expr, Var

_ALIKE: Final = "do the same in every turn, and start states from zeros of their shape, torch.zeros_like(...)"


class WrittenNeuron(nn.Module):
    """A neuron found in a loop: the settings of the template ``written`` or ``written_readout``, and its tensors."""

    def __init__(self, template: str, settings: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.template, self.settings, self.tensors = template, settings, tensors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def import_written(m: WrittenNeuron, ctx: Context, x: Any) -> tuple[Traced, Traced]:
    """Emitted values and membrane."""
    x = ctx.expect(x, (BATCH,))
    ctx.once(m)
    tensors = {name: parameter(ctx, x, name, value) for name, value in m.tensors.items()}
    node = ctx.emit("neuron", x.value, neuron=neuron(m.template, **m.settings, **tensors), membrane=True)
    return x.like(node.result), x.like(node.results[1])


@dataclass(frozen=True)
class Region:
    """One neuron: the places of a turn that belong to it and the states among them.

    ``source`` is its input: operand number so many of the node at a place. ``results`` says which places others read as
    what is emitted (0) and as the membrane (1), ``emitted`` and ``membrane`` where these two come from.
    """

    places: tuple[int, ...]
    states: tuple[int, ...]
    source: tuple[int, int]
    emitted: int
    membrane: int
    results: Mapping[int, int]


class Refusal(Exception):
    """Why a loop cannot be read as neurons."""

    def __init__(self, node: fx.Node, message: str, hint: str) -> None:
        super().__init__(message)
        self.node, self.hint = node, hint


class Loop:
    """The turns of a loop, and what each reads of the one before. Places are those of :class:`Turns`."""

    def __init__(self, found: Turns, root: nn.Module) -> None:
        self.turns, self.root, self.constants = found, root, elementwise.Constants(root)
        self.place = found.places()
        self.body = found.nodes[1]
        self.arithmetic = {
            j for j, node in enumerate(self.body) if elementwise.knows(node) and not self._is_constant(node)
        }
        self.idle = {n for n in found.graph.nodes if elementwise.asks(n) or self._is_constant(n)}
        self.edges = self._reads()
        self.states = [j for j in self.arithmetic if ("old", j) in self.edges and not self._runs_along(j)]

    def _is_constant(self, node: Any) -> bool:
        return self.constants.number(node) is not None or self.constants.value(node) is not None

    def _reads(self) -> nx.DiGraph:
        """Edges place -> place of arithmetic in one turn, and ``("old", place)`` -> place for what is carried."""
        edges = nx.DiGraph()
        edges.add_nodes_from(self.arithmetic)
        for j in self.arithmetic:
            for operand in elementwise.operands(self.body[j]):
                turn, place = self.place.get(operand, (-1, 0))
                if place in self.arithmetic and turn in (0, 1):
                    edges.add_edge(place if turn == 1 else ("old", place), j)
        return edges

    def _runs_along(self, j: int) -> bool:
        """Whether a carried value is a sum or maximum that only the end of the loop reads."""
        name = elementwise.name_of(self.body[j])
        users = {user for turn in self.turns.nodes[:-1] for user in turn[j].users if user not in self.idle}
        return name in ("add", "iadd", "add_", "maximum") and users <= {turn[j] for turn in self.turns.nodes}

    # ---- regions

    def regions(self) -> list[Region]:
        """Every neuron of the loop."""
        needs = nx.DiGraph()
        needs.add_nodes_from(self.states)
        for j in self.states:
            needs.add_edges_from((i, j) for i in nx.descendants(self.edges, ("old", j)) & set(self.states))
            needs.add_edges_from((j, i) for i in self._readers_of_old(j))
        return [self._region(tuple(sorted(group))) for group in nx.strongly_connected_components(needs)]

    def _readers_of_old(self, j: int) -> set[int]:
        """States that read what state j was, and not what it becomes: only one neuron knows both."""
        others = self.edges.subgraph(set(self.edges) - {j})
        reached: set[int] = nx.descendants(others, ("old", j))
        return reached & set(self.states)

    def _region(self, states: tuple[int, ...]) -> Region:
        after = set().union(*(nx.descendants(self.edges, ("old", j)) for j in states))
        before = set(states).union(*(nx.ancestors(self.edges, j) for j in states))
        places = after & before
        if not places.issuperset(states):
            raise self._lost(states, after)
        self._add_decisions(places, after)
        for j in states:
            self._check_start(j, places)
        found = [s for j in sorted(places) for s in self._sources(j, places, states)]
        sources: dict[Any, tuple[int, int]] = dict(reversed([(self.body[j].args[k], (j, k)) for j, k in found]))
        node = self.body[min(places)]
        if len(sources) != 1:
            named = ", ".join(describe(s, self.root) for s in sources) or "none"
            raise Refusal(
                node, f"its state is driven by {len(sources)} values, {named}", "add them up first, in brackets"
            )
        emitted, membrane = self._results(places, states)
        kinds = {emitted: 0, **({self.root_of(membrane): 1} if self.root_of(membrane) != emitted else {})}
        results = {j: kinds[self.root_of(j)] for j in places if self.root_of(j) in kinds}
        return Region(tuple(sorted(places)), states, sources.popitem()[1], emitted, membrane, results)

    def _lost(self, states: tuple[int, ...], after: set[int]) -> Refusal:
        """A state that becomes the next one by something else than arithmetic."""
        readers = [u for j in (*sorted(after), *states) for turn in self.turns.nodes[:2] for u in turn[j].users]
        odd = next(
            (u for u in readers if self.place.get(u, (0, -1))[1] not in self.arithmetic | {-1}), self.body[states[0]]
        )
        return Refusal(
            odd,
            f"{describe(odd, self.root)} is no operation of a neuron program",
            "use + - * /, comparisons, where, clamp",
        )

    def _add_decisions(self, places: set[int], after: set[int]) -> None:
        """Comparisons of the neuron's values, and their casts, though no state needs them."""
        for j in sorted(after - places):
            node = self.body[j]
            inner = [self.place.get(n, (-1, -1)) for n in elementwise.operands(node) if not self._is_constant(n)]
            if (elementwise.is_comparison(node) or elementwise.is_cast(node)) and all(
                turn == 1 and place in places for turn, place in inner
            ):
                places.add(j)

    def _sources(self, j: int, places: set[int], states: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """Operands from elsewhere, as (place, number)."""
        for operand in elementwise.operands(self.body[j]):
            turn, place = self.place.get(operand, (-1, 0))
            inside = (turn == 1 and place in places) or (turn == 0 and place in states)
            if inside or self._is_constant(operand):
                continue
            if turn == 0:
                what = describe(operand, self.root)
                raise Refusal(
                    self.body[j], f"reads {what} of one turn before", "feed spikes back through a neuron's own call"
                )
            numbers = [k for k, a in enumerate(self.body[j].args) if a is operand]
            if not numbers or any(not isinstance(turn[j].args[numbers[0]], fx.Node) for turn in self.turns.nodes):
                raise Refusal(self.body[j], f"takes {describe(operand, self.root)} otherwise in one turn", _ALIKE)
            yield j, numbers[0]

    def _check_start(self, j: int, places: set[int]) -> None:
        """The first turn reads a number where the others read the state."""
        self.start(j, places)
        for turn in self.turns.nodes[:-1]:
            odd = [
                u
                for u in turn[j].users
                if self.place.get(u, (0, j))[1] not in self.arithmetic and self._is_next(u, turn)
            ]
            if odd:
                hint = "only arithmetic may read it; feed spikes back through a recurrent neuron"
                raise Refusal(odd[0], f"{describe(odd[0], self.root)} reads the state of one turn before", hint)

    def _is_next(self, user: fx.Node, turn: tuple[fx.Node, ...]) -> bool:
        return self.place.get(user, (-1, 0))[0] == self.place[turn[0]][0] + 1

    def start(self, j: int, places: set[int]) -> float:
        """What a state is before the first turn."""
        found = set()
        for reader in places:
            pairs = zip(self.body[reader].args, self.turns.nodes[0][reader].args, strict=True)
            found |= {self.constants.number(first) for later, first in pairs if later is self.turns.nodes[0][j]}
        (start,) = found if len(found) == 1 else (None,)
        if start is None:
            raise Refusal(self.body[j], "starts from a state that is not one number", _ALIKE)
        return start

    def root_of(self, j: int) -> int:
        """The place that gives the numbers of this one, before casts."""
        while elementwise.is_cast(self.body[j]):
            (inner,) = elementwise.operands(self.body[j])
            turn, place = self.place.get(inner, (-1, 0))
            if turn != 1 or place not in self.arithmetic:
                break
            j = place
        return j

    def _results(self, places: set[int], states: tuple[int, ...]) -> tuple[int, int]:
        """(place emitted, state shown): what others read of the neuron."""
        read = {self.root_of(j) for j in places if self._is_read(j, places)}
        spikes = [j for j in read if elementwise.is_comparison(self.body[j])]
        shown = {self.root_of(j): j for j in states}
        rest = [j for j in read if j not in spikes]
        emitted = spikes[0] if spikes else next(iter(sorted(rest)), self.root_of(states[0]))
        others = read - {emitted}
        if len(others) > 1 or not others <= shown.keys():
            names = ", ".join(describe(self.body[j], self.root) for j in sorted(read))
            raise Refusal(
                self.body[min(places)], f"more is read of it than spikes and one state: {names}", "keep one of them"
            )
        return emitted, shown[others.pop()] if others else states[0]

    def _is_read(self, j: int, places: set[int]) -> bool:
        users = {user for turn in self.turns.nodes for user in turn[j].users if user not in self.idle}
        return any(self.place.get(user, (0, -1))[1] not in places for user in users)


class Writer:
    """The program of a region, as settings of the template ``written`` or ``written_readout``."""

    def __init__(self, loop: Loop, region: Region) -> None:
        self.loop, self.region = loop, region
        self.names = {j: ("v", "u", "w")[i] if i < 3 else f"v{i}" for i, j in enumerate(region.states)}
        self.tensors: dict[str, torch.Tensor] = {}
        self.values: dict[int, Expr] = {}
        self.source = loop.body[region.source[0]].args[region.source[1]]

    def module(self) -> WrittenNeuron:
        """The neuron."""
        charge: list[str] = []
        spiking = elementwise.is_comparison(self.loop.body[self.region.emitted])
        for j in self.region.places:
            if elementwise.is_cast(self.loop.body[j]):
                self.values[j] = self._read(self.loop.body[j].args[0])
                continue
            name = "n" if spiking and j == self.region.emitted else f"h{len(charge)}"
            charge.append(f"{name} = {elementwise.expression(self.loop.body[j], self._read)}")
            self.values[j] = Var(name)
        emitted = self.values[self.region.emitted]
        settings = {
            "state": "; ".join(f"{n} = {self.loop.start(j, set(self.region.places))!r}" for j, n in self.names.items()),
            "charge": "; ".join(charge),
            "fire": f"s = {emitted}",
            "reset": "; ".join(f"{name} = {self.values[j]}" for j, name in self.names.items()),
            "membrane": self.names[self.region.membrane],
        }
        return WrittenNeuron("written" if spiking else "written_readout", settings, self.tensors)

    def _read(self, operand: Any) -> Expr:
        if operand is self.source:
            return Var("x")
        turn, place = self.loop.place.get(operand, (-1, 0)) if isinstance(operand, fx.Node) else (-1, 0)
        if turn == 1 and place in self.values:
            return self.values[place]
        if turn == 0 and place in self.names:
            return Var(self.names[place])
        number = self.loop.constants.number(operand)
        return Const(number) if number is not None else self._tensor(operand)

    def _tensor(self, operand: Any) -> Expr:
        name = f"p{len(self.tensors)}"
        if name not in PARAMETERS:
            raise Refusal(operand, "reads too many tensors", f"at most {len(PARAMETERS)} in one neuron")
        self.tensors[name] = self.loop.constants.value(operand)
        return Var(name)


def write_neurons(traced: fx.GraphModule, ctx: Context) -> None:
    """Normaliser: replace the hand-written neurons of unrolled loops by calls of modules."""
    calls = [traced.get_submodule(str(n.target)) for n in traced.graph.nodes if n.op == "call_module"]
    if any(map(is_stateful, calls)):
        return
    done: set[fx.Node] = set()
    count = 0
    while (found := turns(traced.graph, done)) is not None:
        found = completed(found, traced, done)
        try:
            made = _replaced(traced, found, count)
        except Refusal as refusal:
            problem = Problem(str(refusal), hint=refusal.hint, **at(refusal.node, traced))
            where = ".".join(p for p in (ctx.site.module, problem.where) if p) or "the model"
            ctx.problems.append(Problem(problem.message, where, problem.kind, "", problem.hint))
            return
        count += len(made)
        done.update(*found.nodes, *(each.new for each in made))


def _replaced(traced: fx.GraphModule, found: Turns, count: int) -> list[_Calls]:
    """The neurons of one loop, replaced by calls; ``count`` neurons have been before."""
    loop = Loop(found, traced)
    if loop.states and not found.whole:
        message = "the first turn of this loop is unlike the others"
        raise Refusal(found.nodes[0][0], message, "start states from zeros: torch.zeros_like(...)")
    regions = loop.regions()
    modules = [Writer(loop, region).module() for region in regions]
    names = [f"neuron{count + i}" for i in range(1, len(regions) + 1)]
    for name, module in zip(names, modules, strict=True):
        traced.add_module(name, module)
    made = [_Calls(traced, name, loop, region) for name, region in zip(names, regions, strict=True)]
    for each in made:
        each.take_over()
    _tidy(traced.graph, {n for each in made for n in each.old} | loop.idle)
    return made


class _Calls:
    """The calls of one neuron, a turn each, beside the nodes that they replace."""

    def __init__(self, traced: fx.GraphModule, name: str, loop: Loop, region: Region) -> None:
        self.old = [turn[j] for turn in loop.turns.nodes for j in region.places]
        self.new: list[fx.Node] = []
        self.pairs: list[tuple[fx.Node, fx.Node]] = []
        reader, number = region.source
        for turn in loop.turns.nodes:
            made = self._made(traced.graph, name, turn[reader].args[number], turn[reader])
            self.pairs += [(turn[j], made[k]) for j, k in region.results.items()]

    def _made(self, graph: fx.Graph, name: str, source: Any, reader: fx.Node) -> list[fx.Node]:
        with graph.inserting_before(reader):
            call = graph.call_module(name, (source,))
            results = [graph.call_function(operator.getitem, (call, i)) for i in range(2)]
        for node in (call, *results):
            node.meta = dict(reader.meta)
            self.new.append(node)
        return results

    def take_over(self) -> None:
        """Let everything read the calls' results."""
        for old, new in self.pairs:
            old.replace_all_uses_with(new)


def _tidy(graph: fx.Graph, gone: set[fx.Node]) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node in gone:
            graph.erase_node(node)


def front_end() -> FrontEnd:
    """The normaliser, which goes before re-rolling, and the modules that it makes."""
    return FrontEnd("written neurons", modules={WrittenNeuron: import_written}, normalisers=(write_neurons,))
