"""Reading ``.ldir`` text. The grammar is in :mod:`ldsnn_compiler.ir.text`; errors give line and column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, NoReturn

import torch

from ldsnn_compiler.errors import LdsnnError, ParseError, Problem
from ldsnn_compiler.ir.graph import STAGES, Graph, Node, Value
from ldsnn_compiler.ir.neuron import RUNNING, Neuron, TensorRef, neuron
from ldsnn_compiler.ir.op import Attr, op
from ldsnn_compiler.ir.placement import Placement
from ldsnn_compiler.ir.text import VERSION
from ldsnn_compiler.ir.types import REAL, Signal, Stream

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<ref>@[\w.~/#-]+)|(?P<value>%[\w.]+(?:\#\d+)?)
    |(?P<number>-?(?:inf|nan|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w]))|(?P<hash>sha256:[0-9a-f]+)
    |(?P<word>[A-Za-z_][\w.-]*)|(?P<punct>[=(){}\[\],:<>/-])""",
    re.VERBOSE,
)


class _Line:
    """A cursor over the tokens of one line."""

    def __init__(self, text: str, number: int, file: str) -> None:
        self.text, self.number, self.file, self.at = text, number, file, 0
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                self.fail(f"unexpected {text[position]!r}", position)
            if match.lastgroup != "space":
                self.tokens.append((str(match.lastgroup), match.group(), position))
            position = match.end()

    def fail(self, message: str, column: int | None = None) -> NoReturn:
        if column is None:
            column = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
        raise ParseError(Problem(message, where=f"{self.file}:{self.number}:{column + 1}"))

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, kind: str, what: str = "") -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] != kind:
            self.fail(f"expected {what or kind}, found {self.peek() or 'end of line'!r}")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def skip(self, text: str) -> bool:
        if self.peek() == text:
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.skip(text):
            self.fail(f"expected {text!r}, found {self.peek() or 'end of line'!r}")

    def integer(self) -> int:
        text = self.take("number", "a whole number")
        if not re.fullmatch(r"-?\d+", text):
            self.at -= 1
            self.fail(f"expected a whole number, found {text!r}")
        return int(text)

    def fraction(self) -> Fraction:
        value = Fraction(self.integer())
        if not self.skip("/"):
            return value
        if (divisor := self.integer()) == 0:
            self.at -= 1
            self.fail("cannot divide by 0")
        return value / divisor

    def string(self, what: str) -> str:
        text = self.take("string", what)
        try:
            return str(json.loads(text))
        except ValueError as error:
            self.at -= 1
            self.fail(f"not a string: {error}")

    def listed(self, item: Callable[[], Any], opening: str = "[", closing: str = "]") -> list[Any]:
        self.expect(opening)
        found: list[Any] = []
        while not self.skip(closing):
            if found:
                self.expect(",")
            found.append(item())
        return found


def parse_graph(text: str, tensors: Mapping[str, torch.Tensor] | None = None, file: str = "<text>") -> Graph:
    """Build the graph that ``text`` describes; :class:`ParseError` gives ``file:line:column``.

    ``tensors`` supplies the weights by name. Without it zeros of the declared shape stand in, enough to inspect a
    graph.
    """
    graph: Graph | None = None
    delays: list[tuple[Node, list[str], _Line]] = []
    values: dict[str, Value] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = _Line(
            "" if raw.lstrip().startswith("//") else raw.split("//")[0] if '"' not in raw else raw, number, file
        )
        if not line.tokens:
            continue
        if graph is None:
            graph = _header(line, text, file)
        elif line.peek() == "graph":
            graph.name, graph.base_timesteps, graph.stage = _graph_line(line)
        elif line.peek() == "tensor":
            _tensor_line(line, graph, tensors)
        elif line.peek().startswith("%"):
            _node_line(line, graph, values, delays)
        else:
            line.fail(f"expected a node, a tensor or the graph line, found {line.peek()!r}")
        if line.at < len(line.tokens):
            line.fail(f"unexpected {line.peek()!r}")
    if graph is None:
        raise ParseError(Problem("the file is empty", where=f"{file}:1:1"))
    for node, names, line in delays:
        graph.set_operands(node, [_lookup(line, values, name) for name in names])
    return graph


def _header(line: _Line, text: str, file: str) -> Graph:
    if line.take("word", "'ldir'") != "ldir":
        line.at = 0
        line.fail("not an .ldir file: the first line is 'ldir 1'")
    if (version := line.integer()) != VERSION:
        line.at -= 1
        line.fail(f"version {version} cannot be read, only {VERSION}")
    return Graph()


def _graph_line(line: _Line) -> tuple[str, int, str]:
    line.expect("graph")
    name = line.string("the graph's name")
    line.expect("base_timesteps")
    line.expect("=")
    steps = line.integer()
    line.expect("stage")
    line.expect("=")
    stage = line.take("word", "a stage")
    if stage not in STAGES:
        line.at -= 1
        line.fail(f"a stage is one of {', '.join(STAGES)}, not {stage!r}")
    return name, steps, stage


def _tensor_line(line: _Line, graph: Graph, tensors: Mapping[str, torch.Tensor] | None) -> None:
    from ldsnn_compiler.ir.text import tensor_hash

    line.expect("tensor")
    name = line.take("ref", "a tensor name")[1:]
    dtype = getattr(torch, line.take("word", "a dtype"), None)
    if not isinstance(dtype, torch.dtype):
        line.at -= 1
        line.fail(f"unknown dtype {line.peek()!r}")
    shape = line.listed(line.integer)
    expected = line.take("hash") if line.at < len(line.tokens) else None
    if any(d < 0 for d in shape):
        line.fail(f"tensor @{name}: a dimension is negative", 0)
    if tensors is None:
        graph.tensors[name] = torch.zeros(shape, dtype=dtype)
        return
    value = tensors.get(name)
    if value is None:
        line.fail(f"tensor @{name} is not among the weights", 0)
    if expected is not None and tensor_hash(value) != expected:
        line.fail(f"tensor @{name} differs from its hash: the weights belong to another graph or were edited", 0)
    graph.tensors[name] = value


def _node_line(line: _Line, graph: Graph, values: dict[str, Value], delays: list[Any]) -> None:
    results = [line.take("value", "a result")[1:]]
    while line.skip(","):
        results.append(line.take("value", "a result")[1:])
    line.expect("=")
    at, name = line.at, line.take("word", "an op")
    try:
        definition = op(name)
    except LdsnnError as error:
        line.at = at
        line.fail(str(error))
    operands = line.listed(lambda: line.take("value", "an operand")[1:], "(", ")")
    attrs = _attributes(line, definition.attrs) if line.peek() == "{" else {}
    line.expect(":")
    types = [_stream(line)]
    while line.skip(","):
        types.append(_stream(line))
    attrs |= {k: types[0] for k, a in definition.attrs.items() if a.type is Stream}
    placement = _placement(line) if line.peek() == "place" else None
    path = line.string("a module path") if line.skip("at") else ""
    late = name == "delay"
    given = [] if late else [_lookup(line, values, o) for o in operands]
    try:
        node = graph.add(name, given, path=path, name=results[0], **attrs)
    except LdsnnError as error:
        line.fail(str(error), 0)
    if late:
        delays.append((node, operands, line))
    node.placement = placement
    _define(line, node, results, types, values)


def _define(line: _Line, node: Node, results: list[str], types: list[Stream], values: dict[str, Value]) -> None:
    if node.name != results[0]:
        line.fail(f"%{results[0]} is defined twice", 0)
    for result, name, type in zip(node.results, results, types, strict=False):
        if result.type != type:
            line.fail(f"%{name} is annotated {type} but is {result.type}", 0)
        values[name] = result
    if [r.name for r in node.results] != results or len(types) != len(results):
        line.fail(f"{node.op.name} gives {', '.join(f'%{r.name}' for r in node.results)}, each with a type", 0)


def _lookup(line: _Line, values: Mapping[str, Value], name: str) -> Value:
    if name not in values:
        line.fail(f"%{name} is not defined", max(line.text.find(f"%{name}"), 0))
    return values[name]


def _attributes(line: _Line, known: Mapping[str, Attr]) -> dict[str, Any]:
    def item() -> tuple[str, Any]:
        at, name = line.at, line.take("word", "an attribute")
        if name not in known:
            line.at = at
            line.fail(f"no attribute {name!r}, known are {', '.join(known)}")
        line.expect("=")
        return name, _attribute(line, known[name])

    return dict(line.listed(item, "{", "}"))


def _attribute(line: _Line, attr: Attr) -> Any:
    start = line.at
    value = _neuron(line) if attr.type is Neuron else _scalar(line, attr.type)
    try:
        return attr.coerce(value)
    except (TypeError, ValueError) as error:
        line.at = start
        line.fail(str(error))


def _scalar(line: _Line, wanted: type | None = None) -> Any:
    if line.peek() == "[":
        return line.listed(line.integer)
    kind = line.tokens[line.at][0] if line.at < len(line.tokens) else ""
    if kind == "string":
        return line.string("a string")
    if kind == "ref":
        return TensorRef(line.take("ref")[1:])
    if kind == "number":
        if wanted is Fraction:
            return line.fraction()
        text = line.take("number")
        return int(text) if re.fullmatch(r"-?\d+", text) and wanted is not float else float(text)
    word = line.take("word", "a value")
    return {"true": True, "false": False, "none": None}.get(word, word)


def _neuron(line: _Line) -> Neuron:
    start = line.at
    name = line.take("word", "a neuron")

    def item() -> tuple[str, Any]:
        key = line.take("word", "a setting")
        line.expect("=")
        return key, _scalar(line)

    settings = dict(line.listed(item, "(", ")"))
    running = {key: settings.pop(key) for key in RUNNING if key in settings}
    try:
        return replace(neuron(name, **settings), **running)
    except LdsnnError as error:
        line.at = start
        line.fail(str(error))


def _stream(line: _Line) -> Stream:
    start = line.at
    line.expect("stream")
    line.expect("<")
    steps = line.integer()
    line.expect(",")
    dt = line.fraction()
    line.expect(",")
    shape = line.listed(line.integer)
    line.expect(",")
    dtype = line.take("word", "a dtype")
    line.expect(",")
    signal = _signal(line)
    line.expect(">")
    try:
        return Stream(steps, dt, tuple(shape), dtype, signal)
    except ValueError as error:
        line.at = start
        line.fail(str(error))


def _signal(line: _Line) -> Signal:
    if line.skip("real"):
        return REAL
    line.expect("event")
    line.expect("(")
    levels = line.integer()
    line.expect(",")
    unit = float(line.take("number", "a unit"))
    line.expect(")")
    if levels < 0 or not 0 < unit < float("inf"):
        line.fail(f"events have levels from 0 and a positive unit, not {levels} and {unit!r}")
    return Signal(levels, unit)


def _placement(line: _Line) -> Placement:
    start = line.at
    line.expect("place")
    kernel, form, order, region = line.listed(lambda: line.take(_placement_token(line)), "(", ")")
    try:
        return Placement(kernel, form, "" if region == "-" else region.strip('"'), order)
    except ValueError as error:
        line.at = start
        line.fail(str(error))


def _placement_token(line: _Line) -> str:
    """Words, ``-`` for no region, a quoted region if its name is no word."""
    return {"-": "punct", '"': "string"}.get(line.peek()[:1], "word")
