"""The NIR files in the data folder, all written by other projects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ldsnn_compiler as ld
from ldsnn_compiler.data import load_factory

pytestmark = [pytest.mark.nir, pytest.mark.shared_data]

BENCHMARK = Path(__file__).parent.parent / "examples" / "benchmarks" / "nmnist_scnn.py"


@pytest.mark.slow
def test_compiled_nmnist_network_classifies_the_test_recordings() -> None:
    """At least 98 of 100, and the interpreter's scores on some."""
    recordings = load_factory(f"{BENCHMARK}:nmnist_test")()
    graph = load_factory(f"{BENCHMARK}:nmnist_scnn")()
    compiled = ld.compile(graph, batch=1)
    x, y = recordings
    scores = torch.cat([compiled(one) for one in x.transpose(0, 1).split(1, dim=1)])
    assert int((scores.argmax(1) == y).sum()) >= 98
    with torch.no_grad():
        assert torch.equal(scores[:3], ld.Interpreter(graph)(x[:3].transpose(0, 1)))
