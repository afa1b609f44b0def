"""NIR files become graphs: parameters, shapes, and what one timestep of a neuron does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ldsnn_compiler as ld
from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend.nir import read_nir

pytestmark = pytest.mark.nir


def sequential(*nodes: object) -> object:
    """A NIR graph of nodes one after another, Input and Output added."""
    import nir

    return nir.NIRGraph.from_list(*nodes)


def written(graph: object, folder: Path) -> Path:
    """The graph in a file."""
    import nir

    nir.write(folder / "net.nir", graph)
    return folder / "net.nir"


def integrate_and_fire(shape: tuple[int, ...], r: float = 1.0, threshold: float = 1.0) -> object:
    import nir

    return nir.IF(r=np.full(shape, r), v_threshold=np.full(shape, threshold))


def test_a_file_becomes_a_graph(tmp_path: Path) -> None:
    import nir

    conv = nir.Conv2d((4, 4), np.ones((3, 1, 3, 3)), 1, 1, 1, 1, np.zeros(3))
    path = written(sequential(conv, integrate_and_fire((3, 4, 4))), tmp_path)
    graph = ld.read(path, timesteps=5, dt=1)
    assert [(n.op.name, n.path) for n in graph.nodes] == [
        ("input", "input"), ("conv2d", "conv2d"), ("neuron", "if"), ("output", "output"),
    ]  # fmt: skip
    assert graph.inputs[0].type.shape == (1, 4, 4) and graph.inputs[0].type.timesteps == 5
    assert str(graph.node("if")["neuron"]) == "if(compare=gt, reset=hard)"


def test_if_neurons_add_up_dt_times_r_and_fire_above_threshold() -> None:
    graph = read_nir(sequential(integrate_and_fire((1,), r=2.0)), 4, dt=0.25)
    spikes = ld.Interpreter(graph)(torch.tensor([1.0, 1.0, 1.0, 0.0]).view(4, 1, 1))
    assert spikes.flatten().tolist() == [0.0, 0.0, 1.0, 0.0]  # 0.5, 1.0 (not above), 1.5


@pytest.mark.parametrize(
    ("options", "text"), [({"dt": 1.0}, "how long a run"), ({"timesteps": 3}, "how long a timestep")]
)
def test_time_is_asked_for(tmp_path: Path, options: dict[str, float], text: str) -> None:
    path = written(sequential(integrate_and_fire((2,))), tmp_path)
    with pytest.raises(ImportRefused, match=text):
        ld.read(path, **options)
