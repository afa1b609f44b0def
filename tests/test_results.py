"""Result rows: the schema, the interval, the tables, and the timer's order."""

from __future__ import annotations

import json
import math

import pytest

from ldsnn_compiler.results import Latency, Report, Row, amount, machine_name, measure, wilson

ROW_KEYS = [
    "name", "timesteps", "levels", "accuracy", "accuracy_ci95", "agreement", "synaptic_updates",
    "synaptic_updates_weighted", "neurons_evaluated", "sum_timesteps", "latency_ms", "latency_ms_iqr",
]  # fmt: skip


def example() -> Report:
    full = Row("a", {"sn1": 8, "sn2": 4}, {"sn1": 1, "sn2": 4}, 0.9, (0.8, 0.95), 0.99, 1.2e6, 2.4e6, 3e3, 12, 1.5, 0.2)
    return Report("net", "native", rows=[full, Row("b")], threads=2, details={"samples": 10})


def test_report_follows_the_schema_and_survives_json() -> None:
    data = json.loads(json.dumps(example().to_json()))
    assert list(data) == ["model", "target", "numerics", "machine", "threads", "samples", "rows"]
    assert list(data["rows"][0]) == ROW_KEYS
    assert data["rows"][0]["timesteps"] == {"sn1": 8, "sn2": 4}
    assert data["rows"][1]["accuracy"] is None


def test_markdown_leaves_out_columns_that_are_empty_everywhere() -> None:
    lines = example().markdown().splitlines()
    assert lines[0].startswith("| name | T | levels | accuracy (95 %) |")
    assert "8 4" in lines[2] and "1.2 M" in lines[2] and "90.00% (80.0%-95.0%)" in lines[2]
    bare = Report("net", "native", rows=[Row("b", latency_ms=2.0, latency_ms_iqr=0.5)]).markdown().splitlines()
    assert bare[0] == "| name | ms |" and bare[2] == "| b | 2 ± 0.25 |"
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(("right", "of"), [(0, 10), (10, 10), (606, 606), (9_123, 10_000)])
def test_wilson_solves_the_score_equation(right: int, of: int) -> None:
    z = 1.959963984540054
    for bound in wilson(right, of):
        if 1e-9 < bound < 1 - 1e-9:
            assert math.isclose(abs(right / of - bound), z * math.sqrt(bound * (1 - bound) / of), rel_tol=1e-9)
    low, high = wilson(right, of)
    assert 0 <= low <= right / of <= high <= 1 and low < high


@pytest.mark.parametrize(("right", "of"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_refuses_what_is_no_proportion(right: int, of: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(right, of)


def test_latency_is_median_and_interquartile_range() -> None:
    latency = Latency((1.0, 2.0, 3.0, 4.0, 100.0))
    assert latency.median == 3.0 and latency.iqr == 2.0
    assert Latency((7.0,)).iqr == 0.0


def test_measure_interleaves_and_warms_each_call() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = measure(calls, repeats=3, warm=1)
    assert order == ["a", "b"] + ["a", "a", "b", "b"] * 3
    assert len(found["a"].samples) == 3 and all(t >= 0 for t in found["b"].samples)


def test_amounts_have_three_digits() -> None:
    assert [amount(v) for v in (None, 0.0, 999, 1234, 1.5e6, 2e9)] == ["", "0", "999", "1.23 k", "1.5 M", "2 G"]


def test_machine_name_says_model_and_cores() -> None:
    assert machine_name().endswith(" cores") and len(machine_name()) > 10
