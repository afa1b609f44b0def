"""One draw of networks held against the library's own run: bit for bit, or decision by decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from conformance.library import Draw, Library, Variant
from conformance.networks import BATCH, Networks, drawn
from ldsnn_compiler.driver import compile
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.interp.neuron import Env, evaluate, initial_state, step
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.ops.arithmetic import per_channel
from ldsnn_compiler.ir.program import Apply, Expr
from ldsnn_compiler.ir.verify import verify

State = Mapping[str, Mapping[str, Tensor]]


@dataclass
class Outcome:
    """What came of a variant. ``margin``: the largest distance from the threshold at which a decision differed."""

    neuron: str
    reset: str
    networks: int = 0
    least_steps: int = 0
    most_steps: int = 0
    active: float = 0.0
    decisions: int = 0
    flips: int = 0
    margin: float = 0.0
    problems: list[str] = field(default_factory=list)

    def count(self, nets: Networks) -> None:
        """Add these networks."""
        self.networks += len(nets.neurons)
        self.least_steps = min(self.least_steps or nets.steps, nets.steps)
        self.most_steps = max(self.most_steps, nets.steps)


def hold(library: Library, name: str, networks: int, steps: range, together: int, floats: bool = True) -> Outcome:
    """Hold so many networks of a variant against the library, ``together`` of one architecture at a time.

    With ordinary weights compiled code runs for the first of them only, and with ``floats``: compiling takes longest.
    """
    variant = library.variants[name]
    outcome = Outcome(variant.neuron, variant.reset)
    while outcome.networks < networks and not outcome.problems:
        count = min(together, networks - outcome.networks)
        words, first = (library.distribution, name, outcome.networks), not outcome.networks
        try:
            exact(library, variant, Draw(*words), count, steps, outcome)
            decided(library, variant, Draw(*words, "float"), count, steps, outcome, compiled=floats and first)
        except Exception as error:  # whatever goes wrong is this variant's result
            outcome.problems.append(f"{'/'.join(map(str, words))}: {type(error).__name__}: {error}")
    return outcome


# ---- exact


def exact(library: Library, variant: Variant, draw: Draw, count: int, steps: range, outcome: Outcome) -> None:
    """Dyadic weights and inputs: outputs and final state, interpreted, compiled, and compiled in steps."""
    nets = drawn(library, variant, draw, count, steps, dyadic=True)
    model, xs = nets.whole().eval(), nets.inputs(draw.getrandbits(32), dyadic=True)
    graph = library.graph(model, xs)
    verify(graph)
    with torch.no_grad():
        wanted = library.reference(model, xs)
        interpreter, compiled = Interpreter(graph), compile(graph, batch=BATCH)
        outputs = {"interpreted": interpreter.run(*xs), "compiled": compiled.run(*xs)}
        outputs["compiled, in steps"] = compiled.step(*xs)
    for how, found in outputs.items():
        _same(how, dict(enumerate(wanted)), dict(enumerate(found)))
    for how, state in (("interpreted", interpreter.state), ("compiled", compiled.state)):
        _same_state(how, library, model, graph, state)
    outcome.active += float(sum(y.ne(0).float().mean() for y in wanted))
    outcome.count(nets)


def _same(how: str, wanted: Mapping[Any, Tensor], found: Mapping[Any, Tensor]) -> None:
    for name, value in found.items():
        theirs = wanted[name].detach().expand_as(value)
        nan = theirs.isnan()  # an Izhikevich neuron may blow up; then both do
        if not (torch.equal(nan, value.isnan()) and torch.equal(value[~nan], theirs[~nan])):
            raise AssertionError(f"{how}: {name} differs")


def _same_state(how: str, library: Library, model: nn.Module, graph: Graph, state: State) -> None:
    """Every state variable of every neuron node, by the module at the node's path."""
    nodes = graph.of("neuron")
    if not nodes:
        raise AssertionError("the graph has no neuron")
    for node in nodes:
        theirs = library.state(library.module(model, node.path))
        _same(f"{how}: state of {node.path}", theirs, state[node.name])


# ---- decision by decision


def decided(
    library: Library, variant: Variant, draw: Draw, count: int, steps: range, outcome: Outcome, compiled: bool
) -> None:
    """Ordinary weights, layer by layer, each layer fed what the library's layer before it emitted."""
    nets = drawn(library, variant, draw, count, steps, dyadic=False)
    xs = nets.inputs(draw.getrandbits(32), dyadic=False)
    for at in range(len(nets.layers)):
        model = nets.layer(at).eval()
        graph = library.graph(model, xs)
        with torch.no_grad():
            wanted = library.reference(model, xs)
            given, interpreted = _interpreted(graph, xs)
            runs = [interpreted, *([compile(graph, batch=BATCH).run(*xs)] if compiled else [])]
        for found in runs:
            _count(graph, given, wanted, found, outcome, variant)
        xs = wanted


def _interpreted(graph: Graph, xs: tuple[Tensor, ...]) -> tuple[list[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """What every neuron node is given, in the order of the outputs, and the outputs."""
    interpreter, given = Interpreter(graph), dict[str, tuple[Tensor, ...]]()
    interpreter.observers.append(
        lambda node, inputs, _: given.update({node.path: inputs}) if node.op.name == "neuron" else None
    )
    outputs = interpreter.run(*xs)
    return [given[node.path] for node in _emitting(graph)], outputs


def _emitting(graph: Graph) -> list[Node]:
    """The neuron node of each network."""
    return sorted(graph.of("neuron"), key=lambda node: int(node.path.split(".")[1]))


def _count(
    graph: Graph,
    given: list[tuple[Tensor, ...]],
    wanted: tuple[Tensor, ...],
    found: tuple[Tensor, ...],
    outcome: Outcome,
    variant: Variant,
) -> None:
    for node, inputs, theirs, ours in zip(_emitting(graph), given, wanted, found, strict=True):
        if not variant.spiking:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
            outcome.decisions += ours.numel()
            continue
        differ = ours != theirs
        told = differ.flatten(2).any(2)[..., None].expand_as(differ.flatten(2)).reshape(differ.shape)
        seen = told if graph.of("delay") else differ  # what one neuron of a recurrent layer fires, all of them hear
        first = seen.int().cumsum(0) - seen.int() == 0
        outcome.decisions += int(first.sum())
        outcome.flips += int((differ & first).sum())
        if differ.any():
            outcome.margin = max(outcome.margin, float(margins(graph, node, inputs)[differ & first].max()))


def margins(graph: Graph, node: Node, inputs: tuple[Tensor, ...]) -> Tensor:
    """How far each decision of a neuron node is from where it would be another, ``[T, N, *shape]``."""
    neuron = node["neuron"]
    params: Env = {
        k: per_channel(graph.tensors[v.name], inputs[0].ndim - 2) if isinstance(v, TensorRef) else torch.tensor(v)
        for k, v in neuron.params.items()
    }
    state, found = initial_state(neuron, params, inputs[0][0]), []
    (fire,) = (a.value for a in neuron.program.steps if a.target == "n")
    for now in zip(*inputs, strict=True):
        env = step(neuron, params, dict(zip(neuron.program.inputs, now, strict=True)), state)
        state = {name: env[name].expand_as(now[0]) for name in state}
        found.append(torch.stack([d.expand_as(now[0]) for d in _distances(fire, env)]).amin(0))
    return torch.stack(found)


def _distances(expr: Expr, env: Env) -> Iterator[Tensor]:
    """From every comparison to equality, and of what is rounded to the next whole number, in units of the membrane."""
    if not isinstance(expr, Apply):
        return
    values = [evaluate(a, env) for a in expr.args]
    if expr.op in ("ge", "gt"):
        yield (values[0] - values[1]).abs()
    elif expr.op in ("floor", "ceil"):
        yield (values[0] - values[0].round()).abs() * env["threshold"]
    for each in expr.args:
        yield from _distances(each, env)
