"""The command line: what each command prints, JSON on stdout alone, exit codes, and errors in one line each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from ldsnn_compiler.cli.app import app
from ldsnn_compiler.ir.op import ops as known_ops

MODELS = """
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.relu1, self.fc2 = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(self.relu1(self.fc1(x)))


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.soft = nn.GELU(), nn.Softmax(-1)

    def forward(self, x):
        return self.soft(self.act(x))


def plain():
    print("a model may print")
    return Plain()


def unknown():
    return Unknown(), torch.zeros(1, 4)


def fails():
    raise ValueError("no such weights")


def data():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    y = Plain()(x).argmax(1)
    return {"calibration": (x[:20], y[:20]), "report": (x[20:], y[20:])}
"""
SPIKING = """
import torch
from torch import nn
from spikingjelly.activation_based import layer, neuron


class Spiking(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1 = layer.Linear(4, 8, step_mode="m")
        self.sn1 = neuron.IFNode(v_reset=None, step_mode="m")
        self.fc2 = layer.Linear(8, 3, step_mode="m")

    def forward(self, x):
        return self.fc2(self.sn1(self.fc1(x.unsqueeze(0).repeat(8, 1, 1)))).mean(0)


def spiking():
    return Spiking(), torch.rand(2, 4, generator=torch.Generator().manual_seed(2))
"""


def call(*arguments: object) -> Result:
    """Run ``ldsnn`` in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def as_json(*arguments: object) -> Any:
    """The one JSON document a successful command prints."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def errors(*arguments: object) -> list[str]:
    """The lines of a command that fails with exit code 1; never a traceback."""
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.stderr
    assert set(result.stdout.splitlines()) <= {"a model may print"}
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model files, and one compiled network in it."""
    made = tmp_path_factory.mktemp("cli")
    (made / "m.py").write_text(MODELS)
    (made / "s.py").write_text(SPIKING)
    return made


@pytest.fixture(scope="module")
def converted(folder: Path) -> list[str]:
    """Arguments that name a small converted network and its data."""
    return [f"{folder / 'm.py'}:plain", "--convert", "--timesteps", "8", "--data", f"{folder / 'm.py'}:data"]


@pytest.fixture(scope="module")
def bundle(folder: Path, converted: list[str]) -> Path:
    """The same network compiled."""
    path = folder / "net.ldsnn"
    found = as_json("compile", *converted, "-o", path, "--threads", 1, "--dump-dir", folder / "dumps", "--time-passes")
    assert found["bundle"] == str(path) and found["timesteps"] == {"relu1": 8} and found["threads"] == 1
    assert found["bytes"] > 1000 and found["batch"] == 1
    return path


# ---- listings


def test_listings_come_from_the_declarations() -> None:
    assert {d["name"] for d in as_json("ops")["ops"]} == set(known_ops())
    assert {"if", "lif", "izhikevich"} <= {n["name"] for n in as_json("ops")["neurons"]}
    listed = {p["name"]: p for p in as_json("passes")["passes"]}
    assert listed["canonicalize"]["exact"] and not listed["assign-timesteps"]["exact"]
    boards = {t["name"]: t for t in as_json("targets")["targets"]}
    assert boards["native"]["runs_here"] and "znver4" in boards


@pytest.mark.parametrize("command", ["ops", "passes", "targets"])
def test_listings_are_tables(command: str) -> None:
    result = call(command)
    assert result.exit_code == 0 and len(result.stdout.splitlines()) > 5


# ---- a factory may give a graph

GRAPH = """
import torch
from torch import nn
import ldsnn_compiler as ld

def graph():
    ann = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    return ld.convert(ann, torch.rand(4, 3), timesteps=4, name="made")
"""


def test_a_factory_may_give_a_graph(folder: Path) -> None:
    (folder / "g.py").write_text(GRAPH)
    found = as_json("compile", f"{folder / 'g.py'}:graph", "-o", folder / "g.ldsnn")
    assert found["timesteps"] == {"1": 4}
    (line,) = errors("check", f"{folder / 'g.py'}:graph", "--shape", "3")
    assert "gives a graph, where a PyTorch network is needed" in line


# ---- check


def test_check_lists_layers(converted: list[str]) -> None:
    found = as_json("check", *converted)
    assert [x["path"] for x in found["layers"] if x["op"] == "neuron"] == ["relu1"] and found["base_timesteps"] == 8
    assert "can be compiled" in call("check", *converted).stdout


def test_check_names_all_problems_at_once(folder: Path) -> None:
    lines = errors("check", f"{folder / 'm.py'}:unknown")
    assert len(lines) == 2 and "act: GELU" in lines[0] and "soft: Softmax" in lines[1]


def test_problems_are_json_too(folder: Path) -> None:
    result = call("check", f"{folder / 'm.py'}:unknown", "--json")
    assert result.exit_code == 1
    assert [(p["where"], p["kind"]) for p in json.loads(result.stdout)["problems"]] == [
        ("act", "GELU"),
        ("soft", "Softmax"),
    ]
    assert result.stderr.count("error: ") == 2


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("nothing.txt", "is no model (a MODEL is"),
        ("missing.nir", "no such file"),
        ("missing.ldir", "no such file"),
        ("missing.py:net", "no such file"),
        ("{folder}", "no bundle"),
        ("{folder}/m.py:absent", "no such callable"),
        ("{folder}/m.py:fails", "ValueError: no such weights"),
        ("{folder}/m.py:plain", "shape of the input is not known"),
    ],
)
def test_models_that_cannot_be_opened(folder: Path, model: str, text: str) -> None:
    lines = errors("check", model.format(folder=folder))
    assert len(lines) == 1 and text in lines[0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--convert"], "--convert needs data"),
        (["--convert", "--data", "{folder}/m.py:data"], "needs a number of timesteps"),
        (["--shape", "a,b"], "positive numbers"),
        (["--data", "no-such-data"], "is no data set"),
    ],
)
def test_options_that_do_not_fit(folder: Path, options: list[str], text: str) -> None:
    lines = errors("inspect", f"{folder / 'm.py'}:plain", *(o.format(folder=folder) for o in options))
    assert any(text in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["check"],
        ["run", "m", "--limit", "0"],
        ["compile", "m", "--batch", "none"],
        ["ops", "--x"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_unexpected_exceptions_are_one_line_unless_debugged(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ldsnn_compiler.targets.boards", broken)
    assert errors("targets") == ["error: unexpected RuntimeError: a bug (--debug shows the traceback)"]
    assert "Traceback" in call("targets", "--debug").stderr


# ---- compile, run, profile


def test_compile_writes_dumps_and_a_summary(bundle: Path, folder: Path) -> None:
    assert {p.name for p in bundle.iterdir()} >= {"manifest.json", "graph.ldir", "weights.safetensors", "report.json"}
    dumps = sorted(p.name for p in (folder / "dumps").iterdir())
    assert dumps[0] == "00-input.ldir" and len(dumps) > 8


def test_run_of_a_bundle_and_of_the_interpreter_agree(bundle: Path, folder: Path, converted: list[str]) -> None:
    compiled = as_json("run", bundle, "--data", f"{folder / 'm.py'}:data", "--repeats", 2)
    interpreted = as_json("run", *converted, "--interpreter")
    (a,), (b,) = compiled["rows"], interpreted["rows"]
    assert compiled["samples"] == 20 and compiled["target"] == "native" and interpreted["target"] == "interpreter"
    assert a["accuracy"] == b["accuracy"] and a["accuracy_ci95"] == b["accuracy_ci95"]
    assert a["neurons_evaluated"] == b["neurons_evaluated"] == 64 and a["sum_timesteps"] == 8
    assert a["latency_ms"] > 0 and b["latency_ms"] is None
    assert a["agreement"] is None and b["agreement"] >= 0.5


def test_run_agrees_with_the_original_it_is_given(bundle: Path, folder: Path, converted: list[str]) -> None:
    data = ["--data", f"{folder / 'm.py'}:data"]
    (found,) = as_json("run", bundle, *data, "--against", *converted, "--repeats", 1, "--no-work")["rows"]
    assert found["agreement"] == 1.0 and found["synaptic_updates"] is None
    (own,) = as_json("run", bundle, *data, "--against", bundle, "--repeats", 1, "--no-work")["rows"]
    assert own["agreement"] == 1.0
    assert "no such file" in errors("run", bundle, *data, "--against", folder / "none.ldir")[0]


def test_profile_says_where_time_and_work_go(bundle: Path, folder: Path) -> None:
    found = as_json("profile", bundle, "--data", f"{folder / 'm.py'}:data", "--repeats", 2)
    assert found["latency_ms"] > 0 and found["regions"] and all(r["ms"] >= 0 for r in found["regions"])
    assert sum(layer["neurons_evaluated"] for layer in found["layers"]) == 64
    assert call("profile", bundle, "--data", f"{folder / 'm.py'}:data", "--repeats", 1).exit_code == 0


def test_run_needs_data_that_fit(bundle: Path, folder: Path) -> None:
    assert "run needs data" in errors("run", bundle)[0]
    assert "do not fit the network's input" in errors("run", bundle, "--data", "digits")[0]
    given = errors("run", bundle, "--data", f"{folder / 'm.py'}:data", "--pipeline", "dead-code", "--batch", 2)
    assert [line.split(":")[1].strip() for line in given] == ["--pipeline", "--batch"]
    assert all("compiled already" in line for line in given)


def test_a_schedule_is_never_ignored(converted: list[str], folder: Path) -> None:
    file = folder / "four.json"
    file.write_text('{"version": 1, "base_timesteps": 8, "layers": {"relu1": {"timesteps": 4}}}')
    for command in ("compile", "opt"):
        (line,) = errors(command, *converted, "--schedule", file, "--pipeline", "dead-code", "-o", folder / "y.ldir")
        assert "no pass of the pipeline takes the schedule" in line


def test_a_damaged_bundle_is_not_inspected(bundle: Path, folder: Path) -> None:
    broken = folder / "broken.ldsnn"
    shutil.copytree(bundle, broken)
    (broken / "graph.ldir").write_text((broken / "graph.ldir").read_text()[:50])
    (line,) = errors("inspect", broken)
    assert "graph.ldir is truncated or edited" in line


def test_a_model_file_that_ends_the_process(folder: Path) -> None:
    (folder / "ends.py").write_text("raise SystemExit(3)")
    (line,) = errors("check", f"{folder / 'ends.py'}:model")
    assert "fails when imported, SystemExit: 3" in line
    (line,) = errors("ops", "--plugin", folder / "ends.py")
    assert "cannot be imported: SystemExit: 3" in line


def test_what_stands_in_a_bundle_s_place_is_seen_first(converted: list[str], folder: Path) -> None:
    result = call("compile", *converted, "-o", folder / "m.py")
    assert result.exit_code == 1 and "exists and is not a bundle" in result.stderr
    assert "measuring" not in result.stderr


def test_unknown_target_is_named(converted: list[str], folder: Path) -> None:
    (line,) = errors("compile", *converted, "--target", "abacus", "-o", folder / "x.ldsnn")
    assert "abacus" in line and "znver4" in line


def test_schedule_that_does_not_fit_lists_every_layer(converted: list[str], folder: Path) -> None:
    file = folder / "wrong.json"
    file.write_text('{"version": 1, "base_timesteps": 8, "layers": {"relu2": {"timesteps": 4}}}')
    lines = errors("compile", *converted, "--schedule", file, "-o", folder / "x.ldsnn")
    assert any("relu2" in line for line in lines) and any("misses this layer" in line for line in lines)


# ---- inspect, opt, diff


def test_inspect_prints_ir_and_draws(converted: list[str], folder: Path) -> None:
    svg, dot = folder / "net.svg", folder / "net.dot"
    found = as_json("inspect", *converted, "--svg", svg, "--dot", dot)
    nodes = {n["path"]: n for n in found["nodes"]}
    assert nodes["fc1"]["dense_updates"] == 32 and 0 < nodes["relu1"]["density"] < 1
    assert nodes["relu1"]["timesteps"] == 8 and "ldir 1" in found["ir"]
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
    assert "fc1" in svg.read_text() and dot.read_text().startswith("digraph")


def test_opt_reads_back_what_it_wrote(converted: list[str], folder: Path) -> None:
    path = folder / "opt.ldir"
    first = as_json("opt", *converted, "--pipeline", "canonicalize,dead-code", "-o", path)
    again = as_json("opt", path, "--pipeline", "canonicalize,dead-code")
    assert first["ir"] == again["ir"] and first["pipeline"] == ["canonicalize", "dead-code"]
    assert call("opt", path, "--pipeline", "canonicalize").stdout == first["ir"]
    assert "no-such-pass" in errors("opt", path, "--pipeline", "no-such-pass")[0]


@pytest.mark.spikingjelly
def test_diff_of_a_model_with_itself(folder: Path) -> None:
    found = as_json("diff", f"{folder / 's.py'}:spiking")
    assert found["first"] is None
    assert {"fc1", "sn1", "fc2", "output"} == {x["path"] for x in found["layers"]}
    assert all(x["largest"] == 0 for x in found["layers"])


@pytest.mark.spikingjelly
def test_diff_names_the_first_layer_that_diverges(folder: Path) -> None:
    path = folder / "changed.ldir"
    as_json("opt", f"{folder / 's.py'}:spiking", "--pipeline", "canonicalize", "-o", path)
    path.write_text(path.read_text().replace("neuron=if()", "neuron=if(threshold=1.25)"))
    result = call("diff", f"{folder / 's.py'}:spiking", path)
    assert result.exit_code == 1 and "first divergence: sn1" in result.stdout
    result = call("diff", f"{folder / 's.py'}:spiking", path, "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["first"] == "sn1"


def test_diff_needs_the_original(bundle: Path) -> None:
    assert "original model is needed" in errors("diff", bundle)[0]


# ---- plug-ins, bench


def test_plugins_are_loaded_first(folder: Path) -> None:
    plugin = folder / "plugin.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from ldsnn_compiler.pipeline import Pass, register_pass\n\n\n"
        "@register_pass\n@dataclass(frozen=True)\nclass Nothing(Pass):\n"
        '    """Does nothing."""\n\n    name: ClassVar[str] = "cli-test-nothing"\n    exact: ClassVar[bool] = True\n\n'
        "    def run(self, graph):\n        return False\n"
    )
    listed = as_json("passes", "--plugin", plugin)["passes"]
    assert next(p for p in listed if p["name"] == "cli-test-nothing")["doc"] == "Does nothing."
    assert "broken.py" in errors("passes", "--plugin", folder / "broken.py")[0]


def test_bench_prints_the_schema_and_writes_the_file(folder: Path) -> None:
    file = folder / "results" / "mlp.json"
    found = as_json("bench", "mlp", "--timesteps", 2, "--repeats", 1, "--rows", "torch", "--threads", 1, "-o", file)
    assert json.loads(file.read_text()) == found
    assert {"model", "target", "numerics", "machine", "threads", "rows"} <= set(found)
    assert "no-such-net" in errors("bench", "no-such-net")[0]


# ---- as users start it


def ldsnn(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``ldsnn`` in a process of its own."""
    code = "from ldsnn_compiler.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys; from ldsnn_compiler.cli.app import app; print({'torch', 'tvm', 'networkx'} & set(sys.modules))"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert started.stdout == "set()\n"
    result = ldsnn("--help")
    assert result.returncode == 0
    commands = (
        "demo",
        "check",
        "compile",
        "run",
        "profile",
        "inspect",
        "diff",
        "opt",
        "passes",
        "targets",
        "ops",
        "bench",
    )
    assert all(f"  {c} " in result.stdout for c in commands)


def test_json_is_alone_on_stdout(folder: Path) -> None:
    result = ldsnn("check", f"{folder / 'm.py'}:unknown", "--json")
    assert result.returncode == 1 and len(json.loads(result.stdout)["problems"]) == 2
    assert "Traceback" not in result.stderr
    result = ldsnn("check", f"{folder / 'm.py'}:plain", "--shape", 4, "--timesteps", 2, "--json")
    assert "a model may print" in result.stderr and json.loads(result.stdout)
