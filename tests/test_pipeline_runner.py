"""The runner: verification after every pass, claims checked, errors that say where; and the instruments."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from graphs import Net

from ldsnn_compiler.errors import LdsnnError, VerifyError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.pipeline import DumpIR, Instrument, Pass, PrintAfterAll, TimePasses, parse_pipeline, run_pipeline
from ldsnn_compiler.pipeline.runner import PassError


def _net() -> Graph:
    net = Net(4)
    return net.output(net.neuron(net.op("flatten", net.conv(net.input((1, 4, 4)), 2))))


@dataclass(frozen=True)
class Broken(Pass):
    """Does what ``how`` says."""

    name: ClassVar[str] = "test-broken"
    exact: ClassVar[bool] = False
    how: str = "lie"

    def run(self, graph: Graph) -> bool:
        if self.how == "silent":
            graph.set_attrs(graph.node("sn"), membrane=True)
        elif self.how == "in-place":
            graph.tensors["conv2d.weight"].mul_(2)
        elif self.how == "illegal":
            graph.place(graph.node("sn"), None)
            graph.node("sn").path = ""
        elif self.how == "cycle":
            graph.node("flatten")._operands = (graph.node("sn").result,)
            graph._connect(graph.node("flatten"))
        elif self.how == "crash":
            raise KeyError("gone")
        return self.how == "lie"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lie", "says it changed the graph, but did not change it"),
        ("silent", "says it did not change the graph, but changed it"),
        ("in-place", "says it did not change the graph, but changed it"),
        ("crash", "KeyError: 'gone'"),
    ],
)
def test_claims_are_checked(how: str, message: str) -> None:
    with pytest.raises(PassError) as caught:
        run_pipeline(_net(), [*parse_pipeline("canonicalize,dead-code"), Broken(how)])
    first, history = map(str, caught.value.problems[:2])
    assert first == message
    assert history == f"in pass test-broken{{how={how}}}, run after canonicalize, dead-code".replace("{how=lie}", "")


def test_an_illegal_graph_names_pass_node_path_and_shows_the_ir() -> None:
    with pytest.raises(VerifyError) as caught:
        run_pipeline(_net(), [Broken("illegal")])
    text = str(caught.value)
    assert "%sn: neuron: a neuron has no module path" in text
    assert "in pass test-broken{how=illegal}, run after no other" in text
    shown = text.splitlines()[-3:]
    assert [line[:5] for line in shown] == ["  %fl", "> %sn", "  %ou"], shown


def test_an_illegal_cycle_is_shown_although_it_has_no_order() -> None:
    with pytest.raises(VerifyError) as caught:
        run_pipeline(_net(), [Broken("cycle")])
    assert "a cycle runs through no delay: flatten, sn" in str(caught.value)
    assert "> %flatten = flatten(%sn)" in str(caught.value)


def test_a_pass_that_refuses_its_input_shows_no_ir() -> None:
    with pytest.raises(LdsnnError) as caught:
        run_pipeline(_net(), parse_pipeline("assign-timesteps{schedule=missing.json}"))
    assert str(caught.value).splitlines() == [
        "missing.json: cannot be read: No such file or directory",
        "in pass assign-timesteps{schedule=missing.json}, run after no other",
    ]


def test_the_graph_given_is_verified_first() -> None:
    graph = _net()
    graph.node("sn").path = ""
    with pytest.raises(VerifyError):
        run_pipeline(graph, ())


def test_dumps_one_file_per_pass(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "dumps"
    graph = _net()
    before = graph_text(graph, hashes=False)
    run_pipeline(graph, parse_pipeline("canonicalize,fold-batchnorm,assign-timesteps,dead-code"), [DumpIR(folder)])
    names = [p.name for p in sorted(folder.iterdir())]
    labels = ["00-input", "01-canonicalize", "02-fold-batchnorm", "03-assign-timesteps", "04-dead-code"]
    assert names == [f"{label}.ldir" for label in labels]
    assert (folder / "00-input.ldir").read_text() == before
    assert graph_text(parse_graph((folder / names[-1]).read_text()), False) == graph_text(graph, False)
    (folder / "notes.txt").write_text("mine")
    run_pipeline(graph, parse_pipeline("dead-code"), [DumpIR(folder)])
    assert sorted(p.name for p in folder.iterdir()) == ["00-input.ldir", "01-dead-code.ldir", "notes.txt"]


def test_a_failed_dump_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LdsnnError, match="no folder for dumps"):
        run_pipeline(_net(), (), [DumpIR(tmp_path / "file")])


def test_times_and_prints() -> None:
    times, stream = TimePasses(), io.StringIO()
    run_pipeline(_net(), parse_pipeline("canonicalize,assign-timesteps"), [times, PrintAfterAll(stream)])
    assert [name for name, _ in times.seconds] == ["canonicalize", "assign-timesteps"]
    assert all(seconds > 0 for _, seconds in times.seconds)
    assert times.table().count(" ms ") == 3
    printed = stream.getvalue()
    assert printed.startswith("// after canonicalize: unchanged\n// after assign-timesteps\nldir 1\n")
    assert "stage=scheduled" in printed


def test_instruments_see_every_pass_once() -> None:
    seen: list[str] = []

    class Log(Instrument):
        def start(self, graph: Graph) -> None:
            seen.append("start")

        def before(self, graph: Graph, each: Pass) -> None:
            seen.append(f"before {each}")

        def after(self, graph: Graph, each: Pass, changed: bool) -> None:
            seen.append(f"after {each} {changed}")

        def finish(self, graph: Graph) -> None:
            seen.append("finish")

    run_pipeline(_net(), parse_pipeline("dead-code,assign-timesteps"), [Log()])
    parts = ["before dead-code", "after dead-code False", "before assign-timesteps", "after assign-timesteps True"]
    assert seen == ["start", *parts, "finish"]
