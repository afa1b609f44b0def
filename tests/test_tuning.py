"""Tuning: the space of loop structures, the search, the database, and what compiling makes of it. Times are made up."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from graphs import inputs_of
from kernels_harness import check_many, to_bits
from kernels_harness import compiled as harness_compiled
from tuning_worker import TRIALS, MadeUp, compiled, network, relative

from ldsnn_compiler.bench.run import Settings, bench
from ldsnn_compiler.driver import compile
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.runtime import load
from ldsnn_compiler.targets.boards import Board, board
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Source, Tuning, pack_weights, region, tuned
from ldsnn_compiler.tuning.bench import DeviceBench, Loaded
from ldsnn_compiler.tuning.database import Comparison, Database, Place, nearest, rounded
from ldsnn_compiler.tuning.regions import known_tunings, regions
from ldsnn_compiler.tuning.space import Space, climb, size
from ldsnn_compiler.tuning.tune import tune

HERE = Path(__file__).parent
CACHE = 1 << 19
FASTER = Comparison(((1.0, 0.5),) * 5, ((1.0, 0.6),) * 5)


def layer(channels: int = 130, method: str = "event") -> RegionSpec:
    """A convolution and its neurons."""
    source = Source("conv", 70, (6, 7), 4, form="bits", kernel=(3, 3), padding=(1, 1), method=method)  # type: ignore[arg-type]
    return tuned(RegionSpec(1, 4, channels, (6, 7), (source,), neuron("if"), bias=True, output="bits"))


def place(spec: RegionSpec, machine: Board, density: float = 0.1, batch: int | None = 1) -> Place:
    return Place(machine, spec, batch, density)


# ---- the space


@pytest.mark.parametrize("method", ["event", "dense"])
def test_every_loop_structure_gives_the_same(method: str) -> None:
    space, dice = Space(layer(method=method), CACHE), random.Random(1)
    near, drawn = list(space.neighbours(space.spec.tuning)), [space.draw(dice) for _ in range(6)]
    check_many([replace(space.spec, tuning=t) for t in {*near[::4], *drawn}])


@pytest.mark.parametrize(("method", "steps"), [("event", 4), ("event", 8), ("event", 2), ("dense", 8)])
def test_every_loop_structure_adds_in_the_same_order(method: str, steps: int) -> None:
    """Sums of weights that round, to the bit; ``steps`` of the input for four of the region."""
    source = Source("conv", 70, (6, 7), steps, form="bits", kernel=(3, 3), padding=(1, 1), method=method)  # type: ignore[arg-type]
    usual = tuned(RegionSpec(1, 4, 130, (6, 7), (source,)))
    space, dice, rng = Space(usual, CACHE), random.Random(0), np.random.default_rng(0)
    spikes = tvm.runtime.tensor(to_bits((rng.random((1, steps, 42, 70)) < 0.3).astype(np.uint8), 1))
    weight = torch.from_numpy(rng.standard_normal((130, 70, 3, 3)).astype(np.float32))
    found = []
    for tuning in {usual.tuning, *(space.draw(dice) for _ in range(5)), *list(space.neighbours(usual.tuning))[::5]}:
        spec = replace(usual, tuning=tuning)
        result = tvm.runtime.empty((1, 4, 42, 130), "float32")
        harness_compiled(region(spec))(spikes, tvm.runtime.tensor(pack_weights(spec, source, weight)), result)
        found.append(result.numpy())
    assert len(found) > 3 and all(np.array_equal(found[0], each) for each in found)


def test_neighbours_differ_from_each_other_and_in_one_setting() -> None:
    space = Space(layer(), CACHE)
    start = space.spec.tuning
    near = list(space.neighbours(start))
    assert len(near) == len(set(near)) and start not in near
    for each in near:
        changed = {k for k in vars(start) if getattr(each, k) != getattr(start, k)}
        assert changed <= {"order", "words", "prefetch"} or len(changed) == 1, each
    assert {"order", "rows", "columns", "block", "outer", "prefetch"} == set(space.axes)
    assert "registers" in Space(layer(method="dense"), CACHE).axes


def test_currents_of_a_task_stay_within_the_cache() -> None:
    spec = layer()
    tight = Space(spec, 4 * 4 * 2 * 2 * 128)
    assert all(t.tile[0] * t.tile[1] <= 8 for t in tight.neighbours(spec.tuning))


# ---- the climb


def test_the_climb_finds_the_best_and_depends_on_times_and_seed_alone() -> None:
    space, asked = Space(layer(), CACHE), []

    def measure(tuning: Tuning) -> float:
        asked.append(tuning)
        return relative(tuning)

    times = climb(space, measure, 60, seed=7)
    best = min(times, key=lambda t: times[t])
    assert best.tile == (2, 2) and best.order == "pixel"
    assert len(asked) == len(set(asked)) == 60 < size(space), "nothing is measured twice"
    assert list(climb(space, relative, 60, seed=7)) == list(times)
    assert list(climb(space, relative, 60, seed=8)) != list(times)


def test_the_climb_ends_where_there_is_nothing_left_to_try() -> None:
    spec = tuned(RegionSpec(1, 1, 3, (1, 1), (Source("conv", 4, (1, 1), 1),)))
    times = climb(Space(spec, CACHE), lambda tuning: float("inf"), 1000)
    assert 1 < len(times) < 1000 and times[spec.tuning] == 1.0


# ---- the database


def test_only_what_is_clearly_faster_wins(tmp_path: Path) -> None:
    machine, spec, database = board("x86-64-v3"), layer(), Database(tmp_path / "t.sqlite")
    tunings = [replace(spec.tuning, tile=(1, n)) for n in (1, 2, 4, 7)]
    barely, unsteady = ((1.0, 0.99),) * 5, ((1.0, 0.5),) * 3 + ((1.0, 2.0),) * 2
    measured = [Comparison(barely, barely), Comparison(unsteady, unsteady), Comparison(wrong="no"), FASTER]
    for tuning, found in zip(tunings, measured, strict=True):
        database.add(place(spec, machine), tuning, found, "check")
        assert database.find(place(spec, machine), tuning, "check") == found
        assert database.find(place(spec, machine), tuning) is None, "a check is no trial"
    won = database.winners(machine, 1)
    assert won == {place(spec, machine).region: {0.125: tunings[-1]}}
    assert database.winners(machine, 2) == {} == database.winners(board("x86-64-v4"), 1)
    assert database.winners(replace(machine, cores=7), 1) == {}
    assert database.winners(replace(machine, name="another name", doc="of the same"), 1) == won


def test_the_fastest_of_the_nearest_density_is_taken(tmp_path: Path) -> None:
    machine, spec, database = board("native"), layer(), Database(tmp_path / "t.sqlite")
    sparse, busy, busier = (replace(spec.tuning, tile=(1, n)) for n in (1, 2, 4))
    better = Comparison(((1.0, 0.3),) * 5, ((1.0, 0.3),) * 5)
    for density, tuning, found in ((0.01, sparse, FASTER), (0.5, busy, FASTER), (0.4, busier, better)):
        database.add(place(spec, machine, density), tuning, found, "check")
    (won,) = database.winners(machine, 1).values()
    assert nearest(won, 0.02) == sparse and nearest(won, 0.9) == nearest(won, 0.3) == busier
    assert (rounded(0.0), rounded(1.0), rounded(0.3)) == (2.0**-10, 1.0, 0.25)


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    file = tmp_path / "t.sqlite"
    file.write_text("not a database, but long enough to look like one" * 50)
    with pytest.raises(LdsnnError, match=r"t\.sqlite: the database of tuning cannot be used.*delete"):
        Database(file)


# ---- a network


def test_regions_of_equal_code_are_one(tmp_path: Path) -> None:
    graph = compiled().graph
    found = regions(graph, board("native"), "run")
    assert sorted(r.calls for r in found) == [1, 1, 2]
    same = next(r for r in found if r.calls == 2)
    names = [n.name for n in graph.of("neuron")]
    one, two = (regions(graph, board("native"), "run", {names[0]: d, names[1]: 0.2}) for d in (0.2, 0.4))
    assert [r.density for each in (one, two) for r in each if r.key == same.key] == pytest.approx([0.2, 0.3])


def test_what_wins_is_used_and_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDSNN_CACHE", str(tmp_path))
    usual, bench, told = compiled(), MadeUp(), []
    found = tune(usual, trials=TRIALS, bench=bench, progress=lambda *now: told.append(now))
    assert found.database == tmp_path / "tuning.sqlite" and told[-1][1] == told[-1][2] == 3 * TRIALS
    won = {row.region.key: row.tuning for row in found.rows if row.tuning}
    assert won and all(relative(t) < relative(r.region.spec.tuning) for r in found.rows if (t := r.tuning))
    assert {(rounds, key in won) for key, _, rounds in bench.measured} >= {(15, True)}
    given = inputs_of(usual.graph, 1)
    for network_ in (found.network, compile(network(), threads=1)):
        assert network_.settings.tunings == won and network_.report["tuned_regions"] == len(won)
        assert torch.equal(network_.run(*given)[0], usual.run(*given)[0])
    assert compile(network(), threads=1, batch=2).settings.tunings == {}, "another batch was not measured"
    assert compile(network(), threads=1, tuned=False).report["tuned_regions"] == 0
    found.network.save(tmp_path / "net.ldsnn")
    monkeypatch.setenv("LDSNN_CACHE", str(tmp_path / "elsewhere"))
    again = load(tmp_path / "net.ldsnn")
    assert again.settings.tunings == won and torch.equal(again.run(*given)[0], usual.run(*given)[0])


def test_a_killed_search_goes_on_and_measures_nothing_twice(tmp_path: Path) -> None:
    whole, log = MadeUp(), tmp_path / "log"
    usual = compiled()
    rows = tune(usual, trials=TRIALS, storage=tmp_path / "whole.sqlite", bench=whole).rows
    command = [sys.executable, str(HERE / "tuning_worker.py"), str(tmp_path / "killed.sqlite"), str(log)]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    killed = subprocess.run([*command, "5"], capture_output=True, text=True, env=env, check=False)
    assert killed.returncode == -9, killed.stderr
    rest = MadeUp()
    again = tune(usual, trials=TRIALS, storage=tmp_path / "killed.sqlite", bench=rest).rows
    first = log.read_text().splitlines()
    assert len(first) == 5 and len(first) + len(rest.measured) == len(whole.measured)
    assert [row.tuning for row in again] == [row.tuning for row in rows]
    assert sum(row.measured for row in again) == len(rest.measured) == len(whole.measured) - 5
    assert Counter(whole.measured).most_common(1)[0][1] == 1
    done = MadeUp()
    tune(usual, trials=TRIALS, storage=tmp_path / "killed.sqlite", bench=done)
    assert not done.measured


def test_what_cannot_be_measured_twice_alike_does_not_win(tmp_path: Path) -> None:
    class Lucky(MadeUp):
        """Fast in trials, and as the rules of thumb in the check."""

        def compare(self, region, tuning, rounds):  # type: ignore[no-untyped-def]
            found = super().compare(region, tuning, rounds)
            return found if rounds < 10 else Comparison(((1.0, 1.0),) * rounds, ((1.0, 1.0),) * rounds)

    found = tune(compiled(), trials=TRIALS, storage=tmp_path / "t.sqlite", bench=Lucky())
    assert all(row.tuning is None for row in found.rows) and found.network.settings.tunings == {}


def test_a_region_is_compiled_timed_and_held_against_the_usual_one(tmp_path: Path) -> None:
    asked: list[bool] = []

    def timer(loaded: Loaded, cold: bool) -> float:
        asked.append(cold)
        return 2.0 if cold else 1.0

    net = compiled()
    bench = DeviceBench(net, timer)
    one = regions(net.graph, net.settings.board, "run")[1]
    other = next(Space(one.spec, CACHE).neighbours(one.spec.tuning))
    assert bench.compare(one, other, 3) == Comparison(((1.0, 1.0),) * 3, ((2.0, 2.0),) * 3)
    assert asked == [False, False, True, True] * 3, "in turn, warm and cold"
    loaded, wanted = bench._usual_of(one)
    bench._usual = {one.key: (loaded, [(w.view(torch.uint8) ^ 1).view(w.dtype) for w in wanted])}
    assert bench.compare(one, other, 3).wrong == "gives other results"
    assert "does not compile" in bench.compare(one, replace(other, lanes=5), 3).wrong


def test_regions_of_other_networks_change_nothing(tmp_path: Path) -> None:
    machine, net = compiled().settings.board, compiled()
    database = Database(tmp_path / "t.sqlite")
    database.add(place(layer(), machine), replace(layer().tuning, tile=(2, 2)), FASTER, "check")
    assert known_tunings(net.graph, machine, 1, None, tmp_path / "t.sqlite") == {}
    assert known_tunings(net.graph, machine, 1, None, tmp_path / "none.sqlite") == {}
    assert not (tmp_path / "none.sqlite").exists(), "looking makes no file"


def test_a_benchmark_may_tune_our_rows_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDSNN_CACHE", str(tmp_path))
    report = bench(Settings("mlp", timesteps=2, repeats=1, threads=1, rows=("ldsnn",), tune=1))
    database = Database()
    assert report.details["tuned_regions"].keys() == {"ldsnn"} and database.path.exists()
    assert database.size() > 0


def test_whole_numbers_stay_the_same_too() -> None:
    graph = network()
    given = inputs_of(graph, 4)
    net = compiled(numerics="int", calibration=calibrate(graph, *given))
    bench = DeviceBench(net, lambda loaded, cold: 1.0)
    found = regions(net.graph, net.settings.board, "run")
    assert any(r.spec.accumulator != "float32" for r in found)
    for one in found:
        tried = list(Space(one.spec, CACHE).neighbours(one.spec.tuning))
        assert [bench.compare(one, each, 1).wrong for each in (tried[0], tried[-1])] == ["", ""]
