"""The NIR files in the data folder, all written by other projects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ldsnn_compiler as ld
from ldsnn_compiler.data import load_factory
from ldsnn_compiler.errors import ImportRefused, LdsnnError
from ldsnn_compiler.frontend.nir import import_nir, write_nir
from ldsnn_compiler.ir.text import graph_text

pytestmark = [pytest.mark.nir, pytest.mark.shared_data]

BENCHMARK = Path(__file__).parent.parent / "examples" / "benchmarks" / "nmnist_scnn.py"

GOOD = {
    "nir_paper_cnn_sinabs": (1.0, 5),
    "nir_paper_braille_noDelay_bias_zero": (1e-4, 2),
    "spyx_braille_bias_zero_subgraph": (1e-4, 2),
    "nir_paper_lif_norse": (1e-4, 1),
    "nir_paper_two_lif_neurons": (1e-4, 2),
    "nirtorch_feedback_graph": (1e-3, 2),
    "nirviz_srnn": (0.1, 2),
}
"""File -> a timestep, and how many layers of neurons it has."""

REPAIRED = {
    "nir_paper_lif_rockpool": ["output: Output.shape: is (1, 1, 1), read as (1,)"],
    "nir_paper_braille_bias_zero_subgraph_badedges": ["lif1: its edges name 'lif', which is no node; taken for 'lif1'"],
    "nir_paper_braille_flattened_scalars": ["lif1: CubaLIF: tau_syn", "lif2: CubaLIF: tau_syn"],
    "nir_paper_lif_norse_old": ["lif: LIF: tau, r, v_leak, v_threshold: one number, taken for all of shape (1000,)"],
    "nir_paper_scnn_flatten_mismatch": ["9: Affine: takes 128 numbers, its input of shape (8, 16) is flattened"],
    "nir_paper_scnn_no_input_shape": [
        "input: Input.shape: is (1, 2, 34, 34), read as (2, 34, 34)", "0: Conv2d: has no input_shape", "1: IF: r",
        "2: Conv2d", "3: IF", "5: Conv2d", "6: IF", "9: Affine", "10: IF", "12: IF", "output: Output.shape",
    ],
}  # fmt: skip
"""Malformed file -> what its notes are about."""

REFUSED = {
    "fedsnn_empty": "holds no nodes: its export did not finish",
    "fedsnn_truncated": "has 2 nodes and no edges: its export did not finish",
    "nir2fpga_lfs_pointer": "is a Git LFS pointer, not a NIR file",
}


@pytest.mark.parametrize("name", GOOD)
def test_files_import_and_survive_a_round_trip(shared_data: Path, tmp_path: Path, name: str) -> None:
    dt, layers = GOOD[name]
    imported = import_nir(shared_data / "nir" / f"{name}.nir", 20, dt)
    assert len(imported.graph.of("neuron")) == layers
    write_nir(imported.graph, tmp_path / f"{name}.nir", dt)
    back = import_nir(tmp_path / f"{name}.nir")
    assert graph_text(back.graph) == graph_text(imported.graph)
    if name == "nirviz_srnn":
        assert sum("is negative (1 of 2)" in str(n) for n in imported.notes) == 4
        with pytest.raises(LdsnnError, match="the state grows without bound"):
            ld.Interpreter(imported.graph)
    else:
        assert not imported.notes
        x = torch.zeros((20, 2, *imported.graph.inputs[0].type.shape))
        assert ld.Interpreter(imported.graph)(x).shape[:2] == (20, 2)


@pytest.mark.parametrize("method", ["zoh", "euler"])
def test_the_single_neuron_spikes_when_the_reference_does(shared_data: Path, method: str) -> None:
    """Steps 460, 510, 710 and 760; Norse steps the same equation by Euler."""
    with np.load(shared_data / "nir" / "lif_reference_traces.npz") as traces:
        exact, norse = traces["exact"], traces["norse"]
    path = shared_data / "nir" / "nir_paper_lif_norse.nir"
    graph = ld.read(path, 1000, 1e-4, discretise=method)  # type: ignore[arg-type]
    graph.set_attrs(graph.of("neuron")[0], membrane=True)
    graph.add("output", [graph.of("neuron")[0].results[1]], name="membrane")
    x = torch.from_numpy(exact[:, :1]).float()[:, None]
    with torch.no_grad():
        spikes, membrane = (y.flatten().numpy() for y in ld.Interpreter(graph)(x))
    assert np.flatnonzero(spikes).tolist() == np.flatnonzero(exact[:, 2]).tolist() == [460, 510, 710, 760]
    if method == "euler":
        np.testing.assert_allclose(membrane, norse[:, 1], atol=1e-6)


def test_the_nested_recurrent_network_is_the_flat_one(shared_data: Path) -> None:
    """The same trained network twice, and a third time with a misspelt edge."""
    names = ("nir_paper_braille_noDelay_bias_zero", "spyx_braille_bias_zero_subgraph",
             "malformed/nir_paper_braille_bias_zero_subgraph_badedges")  # fmt: skip
    x = (torch.rand(64, 3, 12, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    with torch.no_grad():
        flat, nested, repaired = (
            ld.Interpreter(import_nir(shared_data / "nir" / f"{name}.nir", 64, 1e-4).graph)(x) for name in names
        )
    assert flat.any() and torch.equal(flat, nested) and torch.equal(nested, repaired)


@pytest.mark.parametrize("name", REPAIRED)
def test_malformed_files_are_repaired_with_a_warning(shared_data: Path, name: str) -> None:
    imported = import_nir(shared_data / "nir" / "malformed" / f"{name}.nir", 3, 1.0)
    assert len(imported.notes) == len(REPAIRED[name])
    for note, text in zip(imported.notes, REPAIRED[name], strict=True):
        assert f"{name}.nir: {text}" in str(note)


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_files_are_refused_in_one_line(shared_data: Path, name: str) -> None:
    with pytest.raises(ImportRefused) as caught:
        import_nir(shared_data / "nir" / "malformed" / f"{name}.nir", 3, 1.0)
    (problem,) = caught.value.problems
    assert str(problem).count("\n") == 0 and f"{name}.nir: {REFUSED[name]}" in str(problem)


@pytest.mark.slow
def test_compiled_nmnist_network_classifies_the_test_recordings() -> None:
    """At least 98 of 100, and the interpreter's scores on some."""
    recordings = load_factory(f"{BENCHMARK}:nmnist_test")()
    graph = load_factory(f"{BENCHMARK}:nmnist_scnn")()
    compiled = ld.compile(graph, batch=1)
    x, y = recordings[0].float(), recordings[1]
    scores = torch.cat([compiled(one) for one in x.transpose(0, 1).split(1, dim=1)])
    assert int((scores.argmax(1) == y).sum()) >= 98
    with torch.no_grad():
        assert torch.equal(scores[:3], ld.Interpreter(graph)(x[:3].transpose(0, 1)))
