"""The neuron scan without gradients gives bit for bit what the scan with gradients gives."""

from __future__ import annotations

import itertools

import pytest
import torch

from ldsnn_compiler.interp.neuron import scan
from ldsnn_compiler.interp.straight import NUMBERS, compiled
from ldsnn_compiler.ir.neuron import Neuron, neuron, templates

FIRING = [
    {"compare": c, "max_count": k, "reset": r, "reset_time": t}
    for c, k, r, t in itertools.product(
        ("ge", "gt"), (0, 1, 3), ("soft", "hard", "none"), ("now", "next_before_charge", "next_after_charge")
    )
]


def both(cell: Neuron, x: torch.Tensor, tensors: dict[str, torch.Tensor] | None = None, runs: int = 2) -> None:
    """Two runs, the second from the state of the first, without and with gradients."""
    params = {k: torch.tensor(v) for k, v in cell.params.items() if isinstance(v, float)} | (tensors or {})
    plain: dict[str, torch.Tensor] = {}
    followed: dict[str, torch.Tensor] = {}
    for _ in range(runs):
        fast = scan(cell, params, x, plain)
        slow = scan(cell, params, x.clone().requires_grad_(), followed)
        assert slow[0].requires_grad
        pairs = [*zip(fast, slow, strict=True), *((plain[k], followed[k]) for k in followed)]
        assert all(torch.allclose(a, b, 0, 0, equal_nan=True) for a, b in pairs), str(cell)
        followed = {k: v.detach() for k, v in followed.items()}


@pytest.mark.parametrize("name", templates())
@pytest.mark.parametrize("substeps", [1, 3])
def test_every_template(name: str, substeps: int) -> None:
    x = torch.randn(5, 3, 2, 4, generator=torch.Generator().manual_seed(1)) * 0.5
    both(neuron(name).retime(substeps, method="micro"), x)


@pytest.mark.parametrize("options", FIRING, ids=lambda o: "-".join(map(str, o.values())))
def test_every_way_to_fire(options: dict[str, str | int]) -> None:
    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(2)) * 2
    for name in ("if", "leaky"):
        both(neuron(name, floor=True, v_min=-0.7, spike_value=0.3, threshold=0.9, v_init=0.1, **options), x)


def test_parameters_per_channel_and_groups_of_samples() -> None:
    x = torch.randn(4, 5, 3, 1, 1, generator=torch.Generator().manual_seed(3)).expand(4, 5, 3, 90, 90).contiguous()
    assert x[0, :3].numel() > NUMBERS
    both(
        neuron("if"),
        x + torch.arange(5.0)[:, None, None, None] / 7,
        {"threshold": torch.tensor([[[0.3]], [[0.5]], [[2.0]]])},
    )


def test_state_given_is_left_alone_and_the_membrane_is_optional() -> None:
    cell, x = neuron("if"), torch.ones(3, 2, 2)
    before = torch.zeros(2, 2)
    state = {"v": before}
    values, membranes = scan(cell, {k: torch.tensor(v) for k, v in cell.params.items()}, x * 0.4, state, membrane=False)
    assert membranes.shape == (0, 2, 2) and torch.equal(before, torch.zeros(2, 2)) and state["v"] is not before
    assert values.sum() == 4 and state["v"][0, 0] == pytest.approx(0.2)


def test_what_never_changes_is_computed_once() -> None:
    code = compiled(neuron("lif", tau=4.0).program, "n")
    assert len(code.each) <= len(list(neuron("lif", tau=4.0).program.steps)) + 4
    assert not {i.slot for i in code.once} & {i.slot for i in code.each}
