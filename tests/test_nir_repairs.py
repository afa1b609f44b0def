"""Files that disagree with the format: repaired with a warning that says how, or refused with the node's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir_nets as nets
import numpy as np
import pytest

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend.nir import import_nir, read_nir

pytestmark = pytest.mark.nir

IF = {"type": "IF", "r": np.ones(2), "v_threshold": np.ones(2)}
LIF = {"type": "LIF", "tau": np.ones(2), "r": np.ones(2), "v_leak": np.zeros(2), "v_threshold": np.ones(2)}
CONV = {
    "type": "Conv2d", "weight": np.ones((3, 2, 3, 3)), "bias": np.zeros(3), "stride": 1, "padding": 1, "dilation": 1,
    "groups": 1, "input_shape": np.array([4, 4]),
}  # fmt: skip


class Source:
    """A graph as the dictionaries that a file holds."""

    def __init__(self, edges: str, shape: tuple[int, ...] = (2,), out: tuple[int, ...] = (2,), **nodes: Any) -> None:
        ends = {
            "input": {"type": "Input", "shape": np.array(shape)},
            "output": {"type": "Output", "shape": np.array(out)},
        }
        self.content = {
            "type": "NIRGraph", "nodes": {**ends, **nodes}, "edges": [tuple(e.split()) for e in edges.split(",") if e],
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return self.content


def through(node: dict[str, Any], shape: tuple[int, ...] = (2,), out: tuple[int, ...] = (2,)) -> Source:
    """Input, one node, Output."""
    return Source("input n, n output", shape, out, n=node)


def without(node: dict[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in node.items() if k != name}


REPAIRED: dict[str, tuple[Source, str, tuple[int, ...]]] = {
    "scalars": (through({**LIF, "tau": 2.0, "r": 1.0}), "n: LIF: tau, r: one number, taken for all of", (2,)),
    "batch axis of parameters": (
        through({**IF, "r": np.ones((1, 2)), "v_threshold": np.ones((1, 2))}),
        "n: IF: r, v_threshold: shape (1, 2), read as shape (2,)", (2,),
    ),
    "batch axis of the input": (
        through(CONV, (1, 2, 4, 4), (3, 4, 4)), "input: Input.shape: is (1, 2, 4, 4), read as (2, 4, 4)", (3, 4, 4),
    ),
    "input_shape left out": (
        through(without(CONV, "input_shape"), (2, 4, 4), (3, 4, 4)), "n: Conv2d: has no input_shape", (3, 4, 4),
    ),
    "output of another rank": (through(IF, out=(1, 2, 1)), "output: Output.shape: is (1, 2, 1), read as (2,)", (2,)),
    "flattening left out": (
        through({"type": "Linear", "weight": np.ones((2, 6))}, (2, 3)), "n: Linear: takes 6 numbers", (2,),
    ),
    "transposed weights": (
        through({"type": "Affine", "weight": np.ones((3, 2)), "bias": np.ones(2)}, (3,)),
        "n: Affine.weight: shape (3, 2) is [in, out]", (2,),
    ),
    "a bias that is False": (
        through({"type": "Affine", "weight": np.ones((2, 2)), "bias": np.False_}),
        "n: Affine.bias: one number, 0, taken for all outputs", (2,),
    ),
    "one node under another name": (
        Source("input m, m output", n=IF), "its edges name 'm', which is no node; taken for 'n'", (2,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REPAIRED)
def test_repaired_with_a_warning(case: str) -> None:
    source, text, shape = REPAIRED[case]
    imported = import_nir(source, 3, 1.0)
    assert [n for n in map(str, imported.notes) if text in n], imported.notes
    assert len(imported.notes) == 1
    assert imported.graph.outputs[0].type.shape == shape


def test_ends_are_added_where_there_are_none() -> None:
    source = Source("a b", a=IF, b=LIF)
    del source.content["nodes"]["input"], source.content["nodes"]["output"]
    imported = import_nir(source, 3, 1.0)
    assert [str(n) for n in imported.notes] == [
        "NIR graph: there is no Input; a is given one", "NIR graph: there is no Output; b is given one",
    ]  # fmt: skip
    assert imported.graph.inputs[0].type.shape == (2,)


def test_transposed_weights_are_turned() -> None:
    weight = np.arange(6.0).reshape(3, 2)
    with pytest.warns(UserWarning, match="turned to"):
        graph = read_nir(through({"type": "Linear", "weight": weight}, (3,)), 3, 1.0)
    np.testing.assert_array_equal(graph.tensors["n.weight"].numpy(), weight.T)


REFUSED: dict[str, tuple[Source, str]] = {
    "unknown type": (through({"type": "Spike"}), "n: Spike: is no type of NIR node"),
    "missing parameter": (through(without(LIF, "tau")), "n: LIF.tau: is missing"),
    "unknown parameter": (through({**IF, "gain": 1.0}), "n: IF.gain: is no parameter of this type"),
    "no numbers": (through({**IF, "r": "one"}), "n: IF.r: is no array of numbers"),
    "not finite": (through({**IF, "r": np.array([1.0, np.nan])}), "n: IF.r: holds 1 values that are not finite"),
    "shape that does not fit": (through({**IF, "r": np.ones(3)}), "n: IF.r: shape (3,) does not fit the input's shape"),
    "weight that does not fit": (through({"type": "Linear", "weight": np.ones((5, 4))}), "n: Linear.weight: takes 4"),
    "bias that does not fit": (
        through({"type": "Affine", "weight": np.ones((2, 2)), "bias": np.ones(3)}), "n: Affine.bias: shape (3,)",
    ),
    "output that does not fit": (through(IF, out=(3,)), "output: Output.shape: is (3,), what arrives has shape (2,)"),
    "input_shape that does not fit": (
        through({**CONV, "input_shape": np.array([5, 5])}, (2, 4, 4)), "n: Conv2d.input_shape: is (5, 5)",
    ),
    "stride of three axes": (
        through({**CONV, "stride": np.array([1, 1, 1])}, (2, 4, 4)), "n: Conv2d.stride: [1.0, 1.0, 1.0] is not one",
    ),
    "channels that do not fit": (through({**CONV, "groups": 2}, (2, 4, 4)), "n: Conv2d: "),
    "a node without type": (through(without(IF, "type")), "n: has no type"),
    "nothing in": (Source("n output, input output", n=IF), "n: IF: has no in-edge"),
    "an edge twice": (Source("input n, input n, n output", n=IF), "edge input -> n is given twice"),
    "two unknown names": (Source("input m, m k, k output", n=IF), "its edges name 'k', which is no node"),
    "no edges": (Source("", n=IF), "has 3 nodes and no edges"),
    "an inner graph with two ends": (
        Source("input g, g output", g=Source("input n, n output", n=IF, more={"type": "Input", "shape": [2]}).content),
        "g: NIRGraph: has 2 nodes of type Input",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    source, text = REFUSED[case]
    with pytest.raises(ImportRefused) as caught:
        import_nir(source, 3, 1.0)
    assert any(text in str(p) for p in caught.value.problems), caught.value


def test_all_faulty_parameters_are_named_at_once() -> None:
    with pytest.raises(ImportRefused) as caught:
        import_nir(Source("input a, a b, b output", a=without(LIF, "tau"), b=without(IF, "r")))
    assert [str(p).partition(" (")[0] for p in caught.value.problems] == [
        "NIR graph: a: LIF.tau: is missing", "NIR graph: b: IF.r: is missing",
        "NIR graph: NIR does not say how long a run lasts", "NIR graph: NIR does not say how long a timestep is",
    ]  # fmt: skip


def not_hdf5(path: Path) -> None:
    path.write_bytes(b"plain text, and a little more of it")


def lfs_pointer(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 17\n")


def cut_short(path: Path) -> None:
    nets.written(nets.chain(nets.made("IF")), path.parent, path.name)
    path.write_bytes(path.read_bytes()[:600])


def no_node(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["version"] = "1.0"


def empty(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("node")


FILES: list[tuple[Callable[[Path], None], str]] = [
    (lambda path: None, "cannot be read: No such file or directory"),
    (not_hdf5, "is not an HDF5 file"),
    (lfs_pointer, "is a Git LFS pointer, not a NIR file"),
    (cut_short, "is a damaged HDF5 file"),
    (no_node, "an HDF5 file without a group /node"),
    (empty, "holds no nodes: its export did not finish"),
]


@pytest.mark.parametrize(("make", "text"), FILES, ids=[text for _, text in FILES])
def test_files_that_hold_no_graph(tmp_path: Path, make: Callable[[Path], None], text: str) -> None:
    path = tmp_path / "net.nir"
    make(path)
    with pytest.raises(ImportRefused) as caught:
        import_nir(path, 3, 1.0)
    (problem,) = caught.value.problems
    assert text in str(problem) and problem.where == str(path)
