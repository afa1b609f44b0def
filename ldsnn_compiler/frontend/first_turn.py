"""Completing the first turn of a loop whose states start as numbers, ``mem = 0``.

Python itself computes with a number, so that the first turn lacks what the others do to the state::

    h = 0.0 + cur0;  s = h > 1;  v = h * (1 - s);       m = v * 0.5;  h = m + cur1;  s = h > 1;  v = h * (1 - s);   ...

The operations that it lacks are found by laying a later turn over it and put back, ``m = 0.0 * 0.5``, wherever the
first turn has just what they give when every state starts as zero. Zero times and plus zero are exact, so that the
result is what the model computes, bit for bit; other starting numbers are not guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from torch import fx, nn

from ldsnn_compiler.frontend.elementwise import Constants, name_of
from ldsnn_compiler.frontend.periods import Turns, laid_over

_ZERO = 0.0


class _Unlike(Exception):
    """The first turn is no turn of this loop."""


def completed(found: Turns, root: nn.Module, done: Collection[fx.Node]) -> Turns:
    """The loop with what its first turn lacks, if starting from zero is all that makes that unlike the others."""
    if found.whole:
        return found
    later, same = laid_over(found, done)
    if not 0 < len(same) < len(later.nodes[0]):
        return found
    try:
        first = _First(later, same, Constants(root))
    except _Unlike:
        return found
    return Turns(found.graph, (first.put_back(found.graph), *later.nodes), whole=True)


class _First:
    """The first turn: ``values`` of every place, a node or the number that Python computed."""

    def __init__(self, later: Turns, same: dict[int, fx.Node], constants: Constants) -> None:
        self.second, self.body = later.nodes[:2]
        self.same, self.constants = same, constants
        self.place = later.places()
        self.values: list[Any] = []
        for j, node in enumerate(self.body):
            self.values.append(same[j] if j in same else self._computed(node))
        self.changes = [*self._in_first(), *self._in_second()]

    def put_back(self, graph: fx.Graph) -> tuple[fx.Node, ...]:
        """Make the nodes that the first turn lacks, and let the others read them; the whole first turn."""
        made = dict(self.same)
        for j, node in enumerate(self.body):
            if j in made:
                continue
            after = next((self.same[k] for k in range(j, len(self.body)) if k in self.same), self.second[0])
            with graph.inserting_before(after):
                args = tuple(self._operand(a, made) for a in node.args)
                made[j] = graph.create_node(node.op, node.target, args, dict(node.kwargs))
            made[j].meta = dict(node.meta)
        for reader, number, j in self.changes:
            reader.update_arg(number, made[j])
        return tuple(made[j] for j in range(len(self.body)))

    def _operand(self, argument: Any, made: dict[int, fx.Node]) -> Any:
        turn, j = self._where(argument)
        return argument if turn is None else made[j] if turn == 1 else _ZERO

    def _where(self, argument: Any) -> tuple[int | None, int]:
        """(0, place) of the turn before the body, (1, place) of its own, (None, 0) of what comes from elsewhere."""
        turn, j = self.place.get(argument, (None, 0)) if isinstance(argument, fx.Node) else (None, 0)
        return (turn, j) if turn in (0, 1) else (None, 0)

    def _expected(self, argument: Any) -> Any:
        """What stands in the first turn where ``argument`` stands in the body."""
        turn, j = self._where(argument)
        return argument if turn is None else self.values[j] if turn == 1 else _ZERO

    def _in_first(self) -> Iterator[tuple[fx.Node, int, int]]:
        """(node, operand number, place): where nodes of the first turn read what is put back."""
        for j, node in self.same.items():
            for number, (mine, later) in enumerate(zip(node.args, self.body[j].args, strict=True)):
                turn, place = self._where(later)
                if turn is not None and not self._equal(self._expected(later), mine):
                    raise _Unlike
                if turn == 1 and place not in self.same:
                    yield node, number, place

    def _in_second(self) -> Iterator[tuple[fx.Node, int, int]]:
        """The same of the second turn, which reads what the first one left."""
        for node, later in zip(self.second, self.body, strict=True):
            for number, (mine, argument) in enumerate(zip(node.args, later.args, strict=True)):
                turn, place = self._where(argument)
                if turn != 0:
                    continue
                if not self._equal(self.values[place], mine):
                    raise _Unlike
                if place not in self.same:
                    yield node, number, place

    def _equal(self, expected: Any, found: Any) -> bool:
        number = self.constants.number(found)
        return expected is found or (number is not None and number == self.constants.number(expected))

    def _computed(self, node: fx.Node) -> Any:
        """What Python made of an operation on numbers and, at most, one tensor that it leaves as it is."""
        operands = [self._expected(a) for a in node.args]
        if len(operands) != 2 or node.kwargs:
            raise _Unlike
        a, b = operands
        x, y = map(self.constants.number, operands)
        match name_of(node).strip("_"):
            case "mul" | "imul" | "rmul" | "multiply" if 0 in (x, y):
                return _ZERO
            case "truediv" | "itruediv" | "div" | "divide" if x == 0:
                return _ZERO
            case "mul" | "imul" | "rmul" | "multiply" if 1 in (x, y):
                return b if x == 1 else a
            case "add" | "iadd" | "radd" if 0 in (x, y):
                return b if x == 0 else a
            case "sub" | "isub" | "subtract" if y == 0:
                return a
            case "sub" | "isub" | "subtract" if x is not None and y is not None:
                return x - y
        raise _Unlike
