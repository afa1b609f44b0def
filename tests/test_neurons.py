"""Neuron programs: the equations, their options, and retiming against its definition."""

from __future__ import annotations

import pytest
import torch
from zoo import dyadic

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.neuron import scan
from ldsnn_compiler.ir.neuron import Neuron, neuron, template, templates
from ldsnn_compiler.ir.neurons.leaky import undelayed
from ldsnn_compiler.ir.program import expression, program


def run(cell: Neuron, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and membrane of a neuron with scalar parameters."""
    return scan(cell, {k: torch.tensor(v) for k, v in cell.params.items()}, x, {})


def held(cell: Neuron, x: torch.Tensor, r: int) -> torch.Tensor:
    """The definition of retiming: repeat the input r times, run the original neuron, average its outputs."""
    values, _ = run(cell, x.repeat_interleave(r, 0))
    return values.unflatten(0, (-1, r)).mean(1)


@pytest.mark.parametrize("text", ["h = v ** 2", "h = exp(v)", "h = v +", "h = v if x else 0", "h = min(v)"])
def test_outside_the_language(text: str) -> None:
    with pytest.raises(LdsnnError, match="neuron program"):
        program({"v": 0.0}, charge=text, output="h")


def test_expression_text_reads_back() -> None:
    for text in ("v + (x - (v - r)) / tau", "select(h >= th, -1.5, clamp(floor(h), 0, 3))", "-x * 2"):
        assert str(expression(str(expression(text)))) == str(expression(text))


def test_every_template_runs_and_describes_itself() -> None:
    x = dyadic(6, 2, 3)
    for name in templates():
        values, membrane = run(neuron(name), x)
        assert values.shape == membrane.shape == x.shape
        assert template(name).doc
        assert set(neuron(name).params) <= set(template(name).params)


def test_unknown_settings_are_all_named() -> None:
    with pytest.raises(LdsnnError, match=r"reset is one of.*has no setting 'colour'"):
        neuron("if", reset="sideways", colour="red")
    with pytest.raises(LdsnnError, match="'v_min' has no value"):
        neuron("if", floor=True)


@pytest.mark.parametrize("compare", ["ge", "gt"])
@pytest.mark.parametrize("max_count", [0, 1, 3])
def test_counts(compare: str, max_count: int) -> None:
    h = torch.tensor([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 9.0])
    counts, _ = run(neuron("if", compare=compare, max_count=max_count), h[None])
    most = max_count or 99
    for value, count in zip(h.tolist(), counts[0].tolist(), strict=True):
        fired = [n for n in range(1, most + 1) if (value >= n if compare == "ge" else value > n)]
        assert count == len(fired), value


def test_reset_times() -> None:
    x = torch.tensor([1.5, 0.5, 0.5, 0.5])[:, None]
    membranes = {
        time: run(neuron("leaky", beta=0.5, compare="gt", reset="hard", reset_time=time), x)[1][:, 0].tolist()
        for time in ("now", "next_before_charge", "next_after_charge")
    }
    assert membranes == {
        "now": [0.0, 0.5, 0.75, 0.875],
        "next_before_charge": [1.5, 0.5, 0.75, 0.875],
        "next_after_charge": [1.5, 0.0, 0.5, 0.75],
    }


def test_floor_and_own_reset_charge() -> None:
    _, membrane = run(neuron("if", floor=True, v_min=-0.5), torch.tensor([[-3.0]]))
    assert membrane.item() == -0.5
    _, membrane = run(neuron("if", own_reset_charge=True, reset_charge=1.5), torch.tensor([[2.0]]))
    assert membrane.item() == 0.5


@pytest.mark.parametrize("r", [2, 4, 8])
def test_closed_retiming_of_if_is_exact_for_constant_input(r: int) -> None:
    """k = r levels: the spikes of r steps under constant input that starts on a whole charge, emitted at once."""
    cell = neuron("if", threshold=0.5)
    for x in (0.0, 0.125, 0.25, 0.5):
        current = torch.full((3, 1), x)
        expected = held(cell, current, r)
        values, _ = run(cell.retime(r, levels=r), current)
        assert torch.equal(values, expected)


@pytest.mark.parametrize("name", templates())
def test_micro_retiming_is_its_definition(name: str) -> None:
    x = dyadic(4, 5, seed=3, scale=16)
    values, _ = run(neuron(name).retime(4, method="micro"), x)
    assert torch.equal(values, held(neuron(name), x, 4))
    assert neuron(name).retime(4, method="micro").signal.levels == (4 if template(name).spiking else None)


@pytest.mark.parametrize(
    "cell",
    [
        neuron("if", reset="hard"),
        neuron("lif", tau=4.0),
        neuron("lif", tau=4.0, decay_input=False),
        neuron("leaky", beta=0.875),
        neuron("leaky", beta=0.875, reset_time="next_before_charge", compare="gt"),
        neuron("lif_euler", mem_rate=0.25, synapse=False, compare="gt"),
    ],
    ids=str,
)
def test_oneshot_retiming_stays_near_its_definition(cell: Neuron) -> None:
    """Subthreshold trajectory exact up to rounding, f-I curve within one level of the truth on average."""
    r, quiet = 4, torch.full((8, 1), 0.02)
    coarse = cell.retime(r, levels=r, method="oneshot")
    _, fine = run(cell, quiet.repeat_interleave(r, 0))
    _, membrane = run(coarse, quiet)
    gain = (fine[r - 1 :: r] / membrane).squeeze()
    assert torch.allclose(gain, gain[0].expand_as(gain), rtol=1e-4), "the same trajectory in other units"
    assert held(cell, quiet, r).sum() == run(coarse, quiet)[0].sum() == 0
    rates = [
        (held(cell, torch.full((64, 1), x), r).mean(), run(coarse, torch.full((64, 1), x))[0].mean())
        for x in (0.3, 0.6, 1.0)
    ]
    assert all(abs(a - b) <= 1.0 / r for a, b in rates), rates


HARD = [
    neuron("if", reset="hard"),
    neuron("if", reset="hard", compare="gt", v_reset=-0.5, v_init=0.25, threshold=1.25, spike_value=2.0),
    neuron("if", reset="hard", compare="gt", floor=True, v_min=-1.0),
]


@pytest.mark.parametrize("r", [2, 5, 32])
@pytest.mark.parametrize("cell", HARD, ids=str)
def test_a_hard_reset_is_counted_in_closed_form(cell: Neuron, r: int) -> None:
    """Every count and the membrane after every step are those of r steps of held input."""
    x = dyadic(48, 64, seed=r, scale=64) / (1 if r < 10 else 8)
    coarse, (values, membrane) = cell.retime(r, r, "closed"), run(cell.retime(r, method="micro"), x)
    found = run(coarse, x)
    assert torch.equal(found[0], values) and torch.equal(found[1], membrane) and bool((values > 0).any())
    assert coarse.substeps == 1 and coarse.signal.levels == r


@pytest.mark.parametrize(("r", "levels"), [(8, 4), (8, 2), (10, 4), (34, 8)])
@pytest.mark.parametrize("cell", HARD, ids=str)
def test_counts_in_larger_units_never_lose_more_than_a_unit(cell: Neuron, r: int, levels: int) -> None:
    """At every moment what was emitted is what all units would be, to the nearest unit, and none is lost."""
    x = dyadic(48, 64, seed=levels, scale=16) / r
    coarse = cell.retime(r, levels, "closed")
    emitted, fired = (run(each, x)[0].cumsum(0) for each in (coarse, cell.retime(r, r, "closed")))
    unit, spike = coarse.signal.unit, cell.params["spike_value"]
    assert isinstance(spike, float) and unit == pytest.approx(spike / levels)
    assert float((emitted - fired).abs().max()) <= (unit + spike / r) / 2 + 1e-4 and bool((emitted > 0).any())


@pytest.mark.parametrize("r", [2, 4, 8])
@pytest.mark.parametrize("cell", [neuron("lif", tau=8.0), neuron("leaky", beta=0.75)], ids=str)
def test_oneshot_retiming_to_binary_spikes_is_unbiased(cell: Neuron, r: int) -> None:
    """Over currents from silence to the highest rate, rates are rounded down as much as up."""
    currents = torch.linspace(0, 1.5, 151) * (8.0 if cell.template == "lif" else 1.0)
    x = currents.expand(16, -1).contiguous()
    error = run(cell.retime(r, levels=1, method="oneshot"), x)[0].mean(0) - held(cell, x, r).mean(0)
    assert abs(float(error.mean())) < 0.01 and float(error.abs().mean()) < 0.025 * r


@pytest.mark.parametrize("cell", [neuron("if"), neuron("if", reset="hard"), neuron("leaky", beta=0.875)], ids=str)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_a_range_makes_spikes_finer_and_keeps_rates_within_it(cell: Neuron, share: float) -> None:
    """One spike a step stands for share * r former ones: the rate follows the definition up to the range, closely with
    a soft reset of what does not leak, within one level otherwise."""
    r, exact = 8, cell == neuron("if")
    method, error = ("closed", 0.02) if exact else ("oneshot", 0.5 * share)
    coarse = cell.retime(r, 1, method, share)
    assert coarse.signal.unit == share
    for rate in (0.05, 0.1, 0.2):
        current = torch.full((128, 1), rate + (0.125 if cell.template == "leaky" else 0.0))
        spikes, truth = run(coarse, current)[0].mean(), held(cell, current, r).mean()
        assert spikes <= share and abs(spikes - min(truth, torch.tensor(share))) <= error, (rate, spikes, truth)


def test_a_hard_reset_stays_one_where_one_spike_a_step_is_all() -> None:
    cell = neuron("if", reset="hard", v_reset=-0.5, threshold=2.0)
    binary = cell.retime(4, 1, "oneshot", 0.25)
    assert dict(binary.settings) == {"reset": "hard", "v_reset": -0.125, "threshold": 0.5, "spike_value": 0.25}
    assert cell.retime(4, 2, "oneshot").options["reset"] == "soft"
    leaky = neuron("lif", tau=4.0, reset="hard", v_reset=0.5).retime(4, 1, "oneshot")
    assert leaky.options["reset"] == "hard" and leaky.params["v_reset"] == 0.5


def test_a_sparse_sum_of_spikes_is_what_the_original_on_a_coarser_clock_emits() -> None:
    """range 1/r: the former neuron on the sum over r steps, its spikes worth one former spike each."""
    r, x = 4, dyadic(16, 5, seed=1, scale=16) / 8
    sums = x.unflatten(0, (4, r)).sum(1)
    for reset in ("soft", "hard"):
        cell = neuron("if", reset=reset)
        coarse = cell.retime(r, 1, "closed" if reset == "soft" else "oneshot", 1 / r)
        assert torch.equal(run(coarse, sums / r)[0] * r, run(cell, sums)[0])


def test_retiming_that_has_no_meaning_is_refused() -> None:
    for share in (0.0, 1.5):
        with pytest.raises(LdsnnError, match="above 0 and up to 1"):
            neuron("if").retime(4, 1, share=share)
    with pytest.raises(LdsnnError, match="micro retiming has the whole range"):
        neuron("if").retime(4, 1, "micro", 0.5)
    with pytest.raises(LdsnnError, match="emits counts already"):
        neuron("if", max_count=0).retime(4, 1, share=0.5)
    with pytest.raises(LdsnnError, match="soft reset"):
        neuron("if", reset="hard").retime(4, 1)
    for cell, r, levels in ((neuron("if", reset="hard"), 4, 8), (neuron("if", reset="hard", max_count=2), 4, 4)):
        with pytest.raises(LdsnnError, match="at most r levels"):
            cell.retime(r, levels)
    with pytest.raises(LdsnnError, match="the whole range"):
        neuron("if", reset="hard").retime(4, 4, share=0.5)
    with pytest.raises(LdsnnError, match="no 'closed' retiming"):
        neuron("lif").retime(4, 4)


def test_undelayed_subtract_is_the_same_neuron() -> None:
    late = neuron("leaky", beta=0.5, compare="gt", reset_time="next_before_charge")
    x = dyadic(64, 16, seed=5)
    assert torch.equal(run(late, x)[0], run(undelayed(late), x)[0])


def test_gradients_flow() -> None:
    x = dyadic(4, 3).requires_grad_()
    run(neuron("if", max_count=3), x)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and x.grad.abs().sum() > 0
