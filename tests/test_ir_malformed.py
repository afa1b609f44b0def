"""Texts that are no graph and files that cannot be written: one clear error each, nothing half-written."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from zoo import ZOO, build

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import _TEMPLATES, Choice, Neuron, Param, Template, neuron
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.program import program
from ldsnn_compiler.ir.store import read_graph, write_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.verify import verify

WRONG = ("soft", '"x"', '"\\q"', "-1", "0", "1e99", "nan", "true", "@no", "[1]", "{", ")", "%x", "1/0", "none", "")


@pytest.mark.parametrize("name", ZOO)
def test_a_damaged_text_is_a_graph_or_an_error(name: str) -> None:
    """One token replaced, or the rest cut off: never another exception than ours."""
    graph, chance = build(name), random.Random(name)
    parts = re.findall(r"\w+(?:\.\w+)*|\s+|.", graph_text(graph), re.DOTALL)
    refused = 0
    for _ in range(150):
        at = chance.randrange(len(parts))
        cut = chance.random() < 0.1
        damaged = "".join([*parts[:at], *([] if cut else [chance.choice(WRONG), *parts[at + 1 :]])])
        try:
            verify(parse_graph(damaged, graph.tensors))
        except LdsnnError as error:
            assert error.problems
            refused += 1
    assert refused > 75


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_count": "many"}, "max_count is a whole number from 0, not 'many'"),
        ({"max_count": -1}, "max_count is a whole number from 0, not -1"),
        ({"max_count": 1.5}, "max_count is a whole number from 0, not 1.5"),
        ({"floor": "false"}, "floor is one of False, True, shifted, not 'false'"),
        ({"threshold": "high"}, "threshold is a number or a tensor, not 'high'"),
    ],
)
def test_settings_of_the_wrong_kind(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LdsnnError, match=message):
        neuron("if", **settings)  # type: ignore[arg-type]


def test_a_neuron_runs_at_least_once_a_step() -> None:
    with pytest.raises(LdsnnError, match="substeps is a whole number from 1, not 0"):
        Neuron("if", substeps=0)


def test_a_spiking_template_says_how_often_it_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    emits = Template(
        "emits_without_counting", "", {"threshold": Param(1.0)}, {"max_count": Choice(1, (1,))},
        lambda options: program({"v": 0.0}, charge="v = v + x", fire="s = v >= threshold"),
    )  # fmt: skip
    monkeypatch.setitem(_TEMPLATES, emits.name, emits)
    with pytest.raises(LdsnnError, match="its program assigns n, the count"):
        neuron(emits.name)


def test_a_text_that_lost_its_end_is_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "net.ldir"
    write_graph(build("conv2d"), path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(LdsnnError, match="the graph has no output"):
        read_graph(path)


def test_both_files_of_a_graph_are_written_or_none(tmp_path: Path) -> None:
    (tmp_path / "taken.ldir").mkdir()
    (tmp_path / "file").write_text("")
    graph = build("conv2d")
    wrong = {
        "taken.ldir": "Is a directory",
        "file/net.ldir": "Not a directory",
        "missing/net.ldir": "No such file",
        "net.safetensors": "would also be the file of its weights",
    }
    for name, why in wrong.items():
        with pytest.raises(LdsnnError, match=why):
            write_graph(graph, tmp_path / name)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "taken.ldir"]
