"""Sinabs models: spikes and final state equal to Sinabs' own run, bit for bit."""

from __future__ import annotations

import pytest
from frontend_models import STEPS
from sinabs_models import RECURRENT, VARIANTS, agree, inputs, network, plain, recurrent, squeezed

pytestmark = pytest.mark.sinabs


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_equals_the_library(variant: str) -> None:
    graph, out = agree(network(plain, variant), inputs(3, STEPS))
    assert graph.inputs[0]["time"] == graph.outputs[0]["time"] == "batch_first"
    assert float(out.ne(0).float().mean()) > 0.02
    if "single" in variant:
        assert set(out.unique().tolist()) == {0.0, 1.0}
    elif variant in ("iaf_", "lif_unnormed", "alif_multi"):
        assert out.max() > 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_squeezed_variant_equals_the_library(variant: str) -> None:
    graph, out = agree(network(squeezed, variant), inputs(3 * STEPS))
    assert graph.inputs[0]["time"] == graph.outputs[0]["time"] == "folded"
    assert graph.base_timesteps == STEPS
    assert out.ne(0).any()


@pytest.mark.parametrize("variant", RECURRENT)
def test_every_recurrent_variant_equals_the_library(variant: str) -> None:
    _, out = agree(network(recurrent, variant), inputs(3, STEPS))
    assert float(out.ne(0).float().mean()) > 0.01 and out.max() < 2**10
