"""The whole search: what it promises, on a network of three layers."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise, product

import pytest
from search_worker import EFFORT, data, network, search

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.schedule import LayerSchedule, Schedule
from ldsnn_compiler.search.cost import COSTS, cost
from ldsnn_compiler.search.criterion import Comparison, Criterion
from ldsnn_compiler.search.evaluate import Evaluator, Figures
from ldsnn_compiler.search.journal import MemoryJournal
from ldsnn_compiler.search.model import Model
from ldsnn_compiler.search.optimize import ORIGINAL, UNIFORM, Result, optimize
from ldsnn_compiler.search.options import Space, Uniform, space
from ldsnn_compiler.search.sensitivity import Sensitivity, measure
from ldsnn_compiler.search.session import Session


@cache
def profiled() -> tuple[Graph, Space, Sensitivity]:
    """The network, its binary schedules, and what each choice does alone."""
    graph = network()
    where = space(graph)
    return graph, where, measure(Session(Evaluator(graph, data().calibration[0]), MemoryJournal()), where, (0, 0, 0))


@cache
def both() -> Result:
    return search(None, spikes="both")


def test_rows_hold_the_honest_baselines_on_the_report_split():
    names = [row.name for row in both().rows]
    assert names == [
        ORIGINAL, UNIFORM, "best uniform, binary", "per layer, binary", "best uniform, graded", "per layer, graded",
    ]  # fmt: skip
    assert list(both().baselines) == [n for n in names if "per layer" not in n]
    assert all(row.agreement is not None and row.accuracy is None for row in both().rows)
    assert both().schedule == both().schedules["per layer, binary"]


def test_the_rows_are_true():
    graph, x = network(), data().report[0]
    for name, schedule in both().schedules.items():
        row = next(r for r in both().rows if r.name == name)
        prepared = Evaluator(graph, x).prepare(schedule)
        outputs, work = count_work(prepared, x[None])
        reference, _ = count_work(graph, x[None])
        same = outputs[0].mean(0).argmax(1) == reference[0].mean(0).argmax(1)
        assert row.agreement == pytest.approx(same.float().mean().item())
        assert row.synaptic_updates == pytest.approx(work.totals()["synaptic_updates"])
        assert row.neurons_evaluated == work.totals()["neurons_evaluated"]
        assert row.sum_timesteps == sum(n.type.timesteps for n in prepared.of("neuron"))


def test_the_searched_schedule_meets_the_budget_and_is_never_dearer_than_the_best_uniform_one():
    x = data().calibration[0]
    evaluator = Evaluator(network(), x)
    criterion = Criterion(0.2, 0.5, evaluator.reference.predictions, None)
    named = both().report.details["schedules"]
    for mode in ("binary", "graded"):
        ours = evaluator.evaluate(both().schedules[f"per layer, {mode}"])
        chosen = [p for p in both().front if p["spikes"] == mode and p["chosen"]]
        assert criterion.met(ours) and len(chosen) <= 1
        best = {p: e["timesteps"] for p, e in named[f"best uniform, {mode}"].items()}
        assert len(set(best.values())) == 1
    rows = {row.name: row for row in both().rows}
    assert rows["per layer, binary"].synaptic_updates <= rows["best uniform, binary"].synaptic_updates * 1.05  # type: ignore[operator]


@pytest.mark.parametrize("budget", (0.0, 0.1, 0.2, 0.3, 0.5))
def test_the_search_finds_what_trying_everything_finds(budget: float):
    evaluator, where = Evaluator(network(), data(count=48).calibration[0]), space(network())
    criterion = Criterion(budget, 0.5, evaluator.reference.predictions, None)
    everything = [evaluator.evaluate(where.schedule(picks)) for picks in product(range(3), repeat=3)]
    spikes = cost("synaptic", evaluator.reference.nodes, each=True)
    least = min(f.cost(spikes) for f in everything if criterion.met(f))
    ours = optimize(network(), data(count=48), budget).schedule
    assert evaluator.evaluate(ours).cost(spikes) == pytest.approx(least)


def test_binary_holds_levels_at_one_and_graded_does_not_have_to():
    rows = {row.name: row for row in both().rows}
    assert set(rows["per layer, binary"].levels.values()) == {1}
    points = [p["schedule"] for p in both().front if p["spikes"] == "graded"]
    assert any(layer["levels"] > 1 for schedule in points for layer in schedule.values())


def test_the_same_seed_gives_the_same_schedule_and_the_front_is_one():
    again = search(None, spikes="both")
    assert again.schedules == both().schedules and again.front == both().front
    for mode in ("binary", "graded"):
        points = [p for p in both().front if p["spikes"] == mode]
        assert all(a["drop"] <= b["drop"] for a, b in pairwise(points))


def test_work_weighs_synapses_and_neurons_alike():
    evaluator = Evaluator(network(), data().calibration[0])
    original = evaluator.reference.nodes
    assert evaluator.reference.cost(cost("work", original)) == pytest.approx(2.0)
    found = optimize(network(), data(), 0.2, cost="work", effort=EFFORT)
    rows = {row.name: row for row in found.rows}
    ours, base = rows["per layer, binary"], rows[UNIFORM]
    assert ours.synaptic_updates < base.synaptic_updates and ours.neurons_evaluated < base.neurons_evaluated  # type: ignore[operator]


def test_other_costs_labels_and_held_layers():
    found = optimize(network(), data(labels=True), 0.3, cost="neurons", hold=["sn_2"], effort=EFFORT)
    assert found.schedule.layers["sn_2"].timesteps == 4
    assert found.report.details["held"] == {"sn_2": "held as asked (sn_2)"}
    assert all(row.accuracy is not None for row in found.rows)
    rows = {row.name: row for row in found.rows}
    assert rows["per layer, binary"].neurons_evaluated < rows[UNIFORM].neurons_evaluated  # type: ignore[operator]


def test_choices_can_be_kept_from_one_mode_and_recalibration_to_one():
    found = search(
        None, spikes="both", among=lambda spikes, layer: spikes == "binary" or layer.levels > 1, recalibrate=("graded",)
    )
    picked = found.schedules["per layer, graded"].layers.values()
    assert all(layer.levels > 1 or layer.timesteps == found.schedule.base_timesteps for layer in picked)
    assert found.schedule == both().schedule
    names = {row.name for row in found.rows if row.name.startswith("recalibrated")}
    assert names == {f"recalibrated {name}" for name in (UNIFORM, "best uniform, graded", "per layer, graded")}


def test_a_matched_schedule_diverges_no_more_than_the_best_uniform_one_and_is_no_dearer():
    found = optimize(network(), data(count=48), 0.2, match=True, effort=EFFORT)
    assert list(found.schedules) == ["per layer, binary", "per layer, binary, matched"]
    evaluator = Evaluator(network(), data(count=48).calibration[0])
    named = {
        name: Schedule(4, {path: LayerSchedule(**layer) for path, layer in layers.items()})
        for name, layers in found.report.details["schedules"].items()
    }
    ours, uniform = (evaluator.evaluate(named[n]) for n in ("per layer, binary, matched", "best uniform, binary"))
    spikes = cost("synaptic", evaluator.reference.nodes, each=True)
    assert ours.loss <= uniform.loss and ours.cost(spikes) <= uniform.cost(spikes)
    beside = found.report.details["against_best_uniform"]
    assert beside.keys() == found.schedules.keys()
    rows = {row.name: row for row in found.rows}
    expected = rows["best uniform, binary"].agreement - rows["per layer, binary, matched"].agreement  # type: ignore[operator]
    assert beside["per layer, binary, matched"]["drop"] == pytest.approx(expected)


def test_agreement_can_be_asked_for_where_there_are_labels():
    by_labels = optimize(network(), data(labels=True), 0.2, agreement=True, effort=EFFORT)
    without = optimize(network(), data(), 0.2, effort=EFFORT)
    assert by_labels.schedules == without.schedules
    assert all(row.accuracy is not None for row in by_labels.rows)
    figures = by_labels.report.details["figures"]["per layer, binary"]
    (row,) = (row for row in by_labels.rows if row.name == "per layer, binary")
    assert figures["paired"]["drop"] == pytest.approx(1 - row.agreement)  # type: ignore[operator]


def test_the_report_is_plain_json():
    read = json.loads(json.dumps(both().report.to_json()))
    assert {"rows", "front", "figures", "schedules", "layers", "headline"} <= read.keys()
    assert read["figures"][UNIFORM]["ratios"]["synaptic_updates"] == 1.0


def test_predicted_neuron_evaluations_are_exact_and_losses_add_up():
    graph, where, profile = profiled()
    model = Model(graph, where, profile, lambda work: work.neurons_evaluated)
    evaluator = Evaluator(graph, data().calibration[0])
    for picks in [(0, 0, 0), (1, 0, 2), (2, 2, 2), (0, 1, 1)]:
        true = evaluator.evaluate(where.schedule(picks))
        assert model.cost(picks) == sum(w.neurons_evaluated for w in true.nodes.values())
        assert model.loss(picks) == pytest.approx(sum(model.losses[g][p] for g, p in enumerate(picks)))


def test_of_binary_spikes_each_is_an_update_and_reading_them_together_saves_none():
    graph = network()
    where = space(graph, reads=(1,))
    evaluator = Evaluator(graph, data().calibration[0])
    original = evaluator.reference.nodes
    together, each = (cost("synaptic", original, each=each) for each in (False, True))
    plain, read = (evaluator.evaluate(where.schedule(where.uniform(Uniform(4, 1, "closed", reads=n)))) for n in (4, 1))
    assert read.cost(together) < plain.cost(together)
    assert all(work.synaptic_updates <= work.synaptic_updates_weighted for work in read.nodes.values())
    spikes = sum(work.synaptic_updates_weighted for work in read.nodes.values())
    assert read.cost(each) == pytest.approx(spikes, rel=1e-2)
    session = Session(evaluator, MemoryJournal())
    model = Model(graph, where, measure(session, where, (0, 0, 0)), each, each=True)
    for picks in [(0, 0, 0), (1, 1, 1), (1, 2, 1)]:
        true = evaluator.evaluate(where.schedule(picks)).cost(each)
        assert model.cost(picks) == pytest.approx(true, rel=0.3), picks


def test_predicted_synaptic_work_does_not_save_twice():
    graph, where, profile = profiled()
    model = Model(graph, where, profile, COSTS["synaptic"])
    evaluator = Evaluator(graph, data().calibration[0])
    for picks in [(0, 0, 0), (1, 1, 1), (2, 2, 2)]:
        true = evaluator.evaluate(where.schedule(picks)).cost(COSTS["synaptic"])
        assert model.cost(picks) == pytest.approx(true, rel=0.3), picks
    twice = sum(
        profile.alone[g][2].cost(COSTS["synaptic"]) - profile.alone[0][0].cost(COSTS["synaptic"]) for g in range(3)
    )
    assert model.cost((2, 2, 2)) > profile.alone[0][0].cost(COSTS["synaptic"]) + twice


def test_bad_arguments_are_refused():
    with pytest.raises(LdsnnError, match="share of samples"):
        optimize(network(), data(), 5)
    with pytest.raises(LdsnnError, match="cost is one of"):
        optimize(network(), data(), cost="price")
    with pytest.raises(LdsnnError, match="is one of binary, graded"):
        optimize(network(), data(), spikes="ternary")


def test_intervals_are_paired_and_say_when_the_data_are_too_few():
    low, high = Comparison(100, 8, 2).interval
    assert low < 0.06 < high and low == pytest.approx(-0.0032, abs=2e-3) and high == pytest.approx(0.121, abs=2e-3)
    assert Comparison(10_000, 0, 0).verdict(0.005).startswith("within the budget")
    assert Comparison(10_000, 300, 10).verdict(0.005).startswith("exceeds the budget")
    few = Comparison(300, 3, 2).verdict(0.005)
    assert few.startswith("300 samples cannot resolve a budget of 0.5 pp") and "about" in few


def test_caution_asks_for_more_than_luck():
    one = Figures((1, 1, 1, 0), 0.0, {})
    assert Criterion(0.25, 0.0, (1, 1, 1, 1), None).met(one)
    assert not Criterion(0.25, 0.5, (1, 1, 1, 1), None).met(one)


def test_one_number_of_timesteps_for_all_layers_is_a_row_of_its_own_where_another_setting_is_cheaper():
    def reads_once(spikes: str, layer: LayerSchedule) -> bool:
        return layer.reads < layer.timesteps

    found = optimize(network(), data(count=48), 0.7, reads=(1,), among=reads_once, effort=EFFORT)
    named, rows = found.report.details["schedules"], {row.name: row for row in found.rows}
    assert found.report.details["uniform"]["best uniform, binary"] == "T=2 closed reads 1"
    assert named["best uniform T, binary"] == named[UNIFORM]
    beside = found.report.details["against_best_uniform_T"]["per layer, binary"]
    ours, other = (rows[name].synaptic_updates for name in ("per layer, binary", "best uniform T, binary"))
    assert beside["ratios"]["synaptic_updates"] == pytest.approx(other / ours)  # type: ignore[operator]
    plain = optimize(network(), data(count=48), 0.2, effort=EFFORT)
    assert "best uniform T, binary" not in plain.baselines and not plain.report.details["against_best_uniform_T"]
