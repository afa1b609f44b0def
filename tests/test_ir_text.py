"""The text form: every op prints and reads back identically; errors give line and column."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from zoo import ZOO, build

from ldsnn_compiler.errors import LdsnnError, ParseError
from ldsnn_compiler.ir.op import ops
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.placement import Placement
from ldsnn_compiler.ir.store import read_graph, write_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.verify import verify


@pytest.mark.parametrize("name", ZOO)
def test_round_trip(name: str) -> None:
    graph = build(name)
    text = graph_text(graph)
    again = parse_graph(text, graph.tensors)
    verify(again)
    assert graph_text(again) == text


def test_every_op_is_in_the_zoo() -> None:
    used = {node.op.name for name in ZOO for node in build(name).nodes}
    assert used == set(ops())


@pytest.mark.parametrize("region", ["layer1.0.relu_2", "0", "1.gain", ""])
def test_placement_round_trip(region: str) -> None:
    graph = build("neuron_if")
    graph.place(graph.node("cell"), Placement("event", "bits", region, "outside"))
    assert graph_text(parse_graph(graph_text(graph), graph.tensors)) == graph_text(graph)


LINE = "%x = input() : stream<8, 1, [4], float32, real>"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("%y = nonsense(%x) : stream<8, 1, [4], float32, real>", ":4:6: unknown op 'nonsense'"),
        ("%y = scale(%z) : stream<8, 1, [4], float32, real>", ":4:12: %z is not defined"),
        ("%y = scale(%x) {by=3} : stream<8, 1, [4], float32, real>", ":4:20: expected TensorRef"),
        ("%y = scale(%x) {size=3} : stream<8, 1, [4], float32, real>", ":4:17: no attribute 'size'"),
        ("%y = scale(%x) : stream<4, 1, [4], float32, real>", ":4:1: %y is annotated"),
        ("%y = scale(%x) : stream<8, 1, [4], float99, real>", ":4:18: unknown dtype 'float99'"),
        ("%x = scale(%x) : stream<8, 1, [4], float32, real>", ":4:1: %x is defined twice"),
        ("%y = neuron(%x) {neuron=lif(taux=3)} : stream<8, 1, [4], float32, event(1, 1.0)>", ":4:25: neuron 'lif'"),
        ("%y = scale(%x) : stream<8, 1, [4], float32, real> ?", ":4:51: unexpected '?'"),
        ("hello", ":4:1: expected a node"),
    ],
)
def test_errors_give_line_and_column(body: str, message: str) -> None:
    text = f'ldir 1\ngraph "g" base_timesteps=8 stage=traced\n{LINE}\n{body}\n'
    with pytest.raises(ParseError) as caught:
        parse_graph(text)
    assert message in str(caught.value)


def test_other_files_are_refused() -> None:
    for text in ("", "hello\n", "ldir 7\n"):
        with pytest.raises(ParseError):
            parse_graph(text)


def test_store_checks_hashes(tmp_path: Path) -> None:
    graph = build("conv2d")
    write_graph(graph, tmp_path / "net.ldir")
    assert graph_text(read_graph(tmp_path / "net.ldir")) == graph_text(graph)
    graph.tensors["w"] = graph.tensors["w"] + torch.tensor(1.0)
    other = tmp_path / "other"
    other.mkdir()
    write_graph(graph, other / "net.ldir")
    with pytest.raises(ParseError, match="differs from its hash"):
        read_graph(tmp_path / "net.ldir", other / "net.safetensors")
    (tmp_path / "net.safetensors").write_bytes(b"broken")
    with pytest.raises(LdsnnError, match="not a safetensors file"):
        read_graph(tmp_path / "net.ldir")
