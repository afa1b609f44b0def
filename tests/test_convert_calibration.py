"""Thresholds from data: the streaming histogram against the exact numbers, and the error it minimises."""

from __future__ import annotations

import pytest
import torch

from ldsnn_compiler.frontend.calibration import BINS, Histogram, spiking
from ldsnn_compiler.frontend.rectifiers import integrate_and_fire
from ldsnn_compiler.interp.neuron import scan


def histogram(values: torch.Tensor, batch: int = 1000) -> Histogram:
    """The values seen in batches."""
    result = Histogram()
    for part in values.split(batch):
        result.observe(part)
    return result


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
@pytest.mark.parametrize("percent", [50.0, 90.0, 99.9, 100.0])
def test_quantiles_agree_with_torch_to_a_bin(scale: float, percent: float) -> None:
    torch.manual_seed(0)
    values = scale * torch.randn(20_000).relu() ** 2
    seen = histogram(values)
    exact = float(torch.quantile(values, percent / 100))
    assert seen.quantile(percent) == pytest.approx(exact, abs=2 * seen.limit / BINS)
    assert seen.largest == float(values.max())


def test_largest_number_in_the_last_batch_widens_the_bins() -> None:
    values = torch.cat([torch.full((900,), 0.01), torch.full((100,), 50.0)])
    seen = histogram(values, batch=100)
    assert float(seen.bins.sum()) == 1000 and seen.limit > 50
    assert seen.quantile(80) == pytest.approx(0.01, abs=2 * seen.limit / BINS)
    assert seen.quantile(95) == pytest.approx(50, rel=0.01)


def test_zeros_count_for_the_percentile() -> None:
    values = torch.zeros(1000)
    values[:100] = torch.linspace(0.01, 1, 100)
    assert histogram(values).quantile(95) == pytest.approx(0.5, abs=0.02)
    assert histogram(values).quantile(80) == 0.0
    assert histogram(torch.zeros(10)).quantile(99.0) == 0.0


def test_least_error_finds_the_grid_the_numbers_lie_on() -> None:
    grid = torch.arange(1, 9).repeat(50) / 8 * 0.7
    assert histogram(grid).least_error(8) == pytest.approx(0.7, rel=0.01)
    assert histogram(torch.zeros(5)).least_error(8) == 0.0


def test_least_error_clips_outliers_when_steps_are_few() -> None:
    torch.manual_seed(0)
    values = torch.randn(50_000).relu()
    values[0] = 100.0
    thresholds = [histogram(values).least_error(levels) for levels in (4, 16, 256)]
    assert thresholds == sorted(thresholds) and thresholds[0] < 4


@pytest.mark.parametrize("levels", [1, 5, 16])
def test_error_model_is_what_the_neuron_does_with_constant_input(levels: int) -> None:
    x = torch.arange(-8, 40) / 16
    cell = integrate_and_fire(1.5)
    params = {k: torch.tensor(v) for k, v in cell.params.items()}
    emitted, _ = scan(cell, params, x.expand(levels, -1), {})
    assert torch.allclose(emitted.mean(0), spiking(x, 1.5, levels), atol=1e-6)
