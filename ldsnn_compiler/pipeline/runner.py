"""Running passes: verify after each one, check what each one claims, and say precisely what went wrong where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.verify import verify
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.excerpt import excerpt
from ldsnn_compiler.pipeline.instruments import Instrument

if TYPE_CHECKING:
    from collections.abc import Iterator


class PassError(LdsnnError):
    """A pass broke its contract."""


def run_pipeline(graph: Graph, passes: Iterable[Pass], instruments: Sequence[Instrument] = ()) -> Graph:
    """Run ``passes`` on ``graph`` in place, in order, and return it.

    The graph is verified before the first pass and after each. Errors keep their class and gain the name of the pass,
    of the passes run before it, and the IR around the nodes concerned. Raises :class:`PassError` where a pass says it
    changed the graph and did not, or the other way round.
    """
    verify(graph)
    for instrument in instruments:
        instrument.start(graph)
    done: list[str] = []
    for each in passes:
        for instrument in instruments:
            instrument.before(graph, each)
        changed = _run_one(graph, each, done)
        done.append(str(each))
        for instrument in instruments:
            instrument.after(graph, each, changed)
    for instrument in instruments:
        instrument.finish(graph)
    return graph


def _run_one(graph: Graph, each: Pass, done: Sequence[str]) -> bool:
    before = Fingerprint.of(graph)
    with _named(graph, each, done, before):
        changed = each.run(graph)
        verify(graph)
        if (really := Fingerprint.of(graph) != before) != changed:
            raise PassError(f"says it {_did(changed)} the graph, but {_did(really)} it")
    return changed


def _did(changed: bool) -> str:
    return "changed" if changed else "did not change"


@dataclass(frozen=True)
class Fingerprint:
    """What a graph is, cheaply: its text without hashes, and which tensor objects it holds in which version.

    The tensors themselves are kept, so that no new one can take the identity of one that was freed.
    """

    text: str
    tensors: tuple[tuple[str, int, int], ...]
    kept: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, graph: Graph) -> Fingerprint:
        items = sorted(graph.tensors.items())
        identities = tuple((name, id(value), value._version) for name, value in items)
        return cls(graph_text(graph, hashes=False), identities, tuple(value for _, value in items))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and (self.text, self.tensors) == (other.text, other.tensors)

    def __hash__(self) -> int:
        return hash((self.text, self.tensors))


@contextmanager
def _named(graph: Graph, each: Pass, done: Sequence[str], before: Fingerprint) -> Iterator[None]:
    """Add to every error which pass raised it, after which others, and the IR around it if the pass had changed it."""
    history = f"in pass {_short(str(each))}, run after {', '.join(map(_short, done)) if done else 'no other'}"
    try:
        yield
    except LdsnnError as error:
        around = excerpt(graph, error.problems) if _changed(graph, before) else ""
        error.problems = (*error.problems, Problem(history), *([Problem(around)] if around else ()))
        error.args = ("\n".join(map(str, error.problems)),)
        raise
    except Exception as error:
        raise PassError([Problem(f"{type(error).__name__}: {error}"), Problem(history)]) from error


def _changed(graph: Graph, before: Fingerprint) -> bool:
    try:
        return Fingerprint.of(graph) != before
    except LdsnnError:  # an illegal cycle denies the graph an order, and so a text
        return True


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text.partition('{')[0]}{{...}}"
