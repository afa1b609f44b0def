"""``ldsnn diff`` of whole numbers: in the model's units, schedule and rounding told apart, compiled code to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import MODELS, SPIKING, as_json, call, errors

from ldsnn_compiler.cli.models import ModelOptions, open_graph, open_module
from ldsnn_compiler.diff import diff
from ldsnn_compiler.driver import compile
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.passes.quantize import with_numerics
from ldsnn_compiler.pipeline import default_pipeline, parse_pipeline, run_pipeline
from ldsnn_compiler.whole_diff import Origin, unlike_interpreter

pytestmark = pytest.mark.spikingjelly
DATA = """

def rows():
    x = torch.rand(40, 4, generator=torch.Generator().manual_seed(1))
    return {"calibration": (x[:20], None), "report": (x[20:], None)}



class Narrow(Spiking):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = layer.Linear(4, 6, step_mode="m"), layer.Linear(6, 3, step_mode="m")


def narrow():
    return Narrow()
"""
RANGES = '{"version": 1, "samples": 1, "inputs": {"x": {"low": 0.0, "high": 1.0}}}'
SCHEDULE = {"sn1": {"timesteps": 2, "levels": 4, "method": "closed"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and a schedule."""
    made = tmp_path_factory.mktemp("whole")
    (made / "s.py").write_text(SPIKING + DATA)
    (made / "m.py").write_text(MODELS)
    (made / "s.json").write_text(json.dumps({"version": 1, "base_timesteps": 8, "layers": SCHEDULE}))
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> tuple[str, str, str]:
    """The spiking model and its data, as arguments."""
    return f"{folder / 's.py'}:spiking", "--data", f"{folder / 's.py'}:rows"


@pytest.fixture(scope="module")
def bundle(folder: Path, model: tuple[str, ...]) -> Path:
    """It under the schedule, in whole numbers, compiled."""
    path = folder / "net.ldsnn"
    as_json(
        "compile",
        *model,
        "--schedule",
        folder / "s.json",
        "--numerics",
        "int",
        "--threads",
        1,
        "--batch",
        3,
        "-o",
        path,
    )
    return path


def layers(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in found["layers"]}


def test_a_bundle_is_compared_in_the_models_units(bundle: Path, model: tuple[str, ...]) -> None:
    found = as_json("diff", bundle, *model)
    assert found == as_json("diff", model[0], bundle, *model[1:])
    neuron = layers(found)["sn1"]
    assert found["quantised"] and found["unlike_interpreter"] == []
    assert neuron["timesteps"] == [8, 2] and neuron["numbers"] == 2 * 16 * 8
    assert neuron["largest"] in (0.0, 0.25)  # a count of four is a spike in each step
    assert 0 <= neuron["quantised"] <= 0.1 * neuron["numbers"] and neuron["agreement"] >= 0.7
    assert found["agreement"]["sn1"] == neuron["agreement"] == 1 - neuron["differing"] / neuron["numbers"]
    assert layers(found)["output"]["largest"] < 0.1


def test_it_says_that_differences_are_expected(bundle: Path, model: tuple[str, ...]) -> None:
    result = call("diff", *model, bundle)
    assert result.exit_code == 0
    assert "quantised: differences are expected; agreement per layer is sn1 " in result.stdout
    assert "first layer that differs: " in result.stdout and " by whole numbers alone)" in result.stdout
    assert "gives the outputs and the state of the interpreter, bit for bit" in result.stdout


def test_without_a_graph_the_model_is_quantised_now(folder: Path, bundle: Path, model: tuple[str, ...]) -> None:
    found = as_json("diff", *model, "--numerics", "int", "--schedule", folder / "s.json")
    assert found["layers"] == as_json("diff", *model, bundle)["layers"] and found["unlike_interpreter"] is None


def test_membranes_have_the_scale_that_quantize_gave_them() -> None:
    graph = Graph("leaky", 4)
    x = graph.add("input", name="x", type=Stream(4, Fraction(1), (5,))).result
    weight = graph.tensor("w", torch.randn(3, 5, generator=torch.Generator().manual_seed(1)))
    current = graph.add("linear", [x], weight=weight).result
    leaky = graph.add("neuron", [current], name="li", path="li", neuron=neuron("li", beta=0.75)).result
    graph.add("output", [leaky], name="out")
    passes = with_numerics(parse_pipeline(default_pipeline()), graph, "int", RANGES, 16)
    origin, whole = Origin.of(graph, passes), run_pipeline(graph.clone(), passes)
    given = (torch.arange(4 * 2 * 5) % 256 / 255).reshape(4, 2, 5)
    streams: dict[str, torch.Tensor] = {}
    interpreter = Interpreter(whole)
    interpreter.observers.append(lambda node, _, outs: streams.update({node.name: outs[0]} if outs else {}))
    interpreter.run(given)
    (real,) = Interpreter(graph).run(given)
    assert torch.allclose(origin.in_units(whole, streams)["li"], real, atol=1e-3)


def test_converted_networks_are_converted_again(folder: Path) -> None:
    plain = (f"{folder / 'm.py'}:plain", "--convert", "--timesteps", 8, "--data", f"{folder / 'm.py'}:data")
    as_json("compile", *plain, "--numerics", "int", "--threads", 1, "-o", folder / "plain.ldsnn")
    found = as_json("diff", *plain, folder / "plain.ldsnn")
    neuron = layers(found)["relu1"]
    assert neuron["quantised"] <= 0.05 * neuron["numbers"] * 8 and found["unlike_interpreter"] == []


def test_a_graph_on_disk_needs_the_passes_that_made_it(folder: Path, model: tuple[str, ...]) -> None:
    path, calibration = folder / "whole.ldir", folder / "ranges.json"
    as_json("quantize", *model, "-o", calibration)
    passes = default_pipeline().replace("select-kernels", f"quantize{{calibration={calibration}}},select-kernels")
    as_json("opt", *model, "--pipeline", passes, "-o", path)
    assert "the passes that made whole numbers are not known" in errors("diff", *model, path)[0]
    found = as_json("diff", *model, path, "--pipeline", passes)
    assert found["quantised"] and found["unlike_interpreter"] is None


def test_what_does_not_fit_is_refused(folder: Path, bundle: Path, model: tuple[str, ...]) -> None:
    assert "is a graph already" in errors("diff", *model, bundle, "--numerics", "int")[0]
    assert "is a graph already" in errors("diff", *model, bundle, "--schedule", folder / "s.json")[0]
    narrow = f"{folder / 's.py'}:narrow"
    assert "sn1: neuron: is stream<2" in errors("diff", narrow, *model[1:], bundle)[0]


def test_counts_without_units_are_refused(model: tuple[str, str, str]) -> None:
    options = ModelOptions(model[0], data=model[2])
    module, x = open_module(options)
    graph = open_graph(options)
    run_pipeline(graph, with_numerics(parse_pipeline(default_pipeline()), graph, "int", RANGES))
    with pytest.raises(LdsnnError, match="not what they stand for"):
        diff(graph, module, x)


def test_code_of_other_weights_is_unlike_the_interpreter(model: tuple[str, str, str]) -> None:
    imported = open_graph(ModelOptions(model[0], data=model[2]))
    network = compile(imported, numerics="int", calibration=RANGES, batch=2, threads=1)
    x = torch.rand(1, 5, 4, generator=torch.Generator().manual_seed(3))
    assert unlike_interpreter(network, x) == () and unlike_interpreter(network, x[:, :1]) == ()
    passes = with_numerics(parse_pipeline(default_pipeline()), imported, "int", RANGES)
    assert Origin.of(imported, passes).graph.numerics == "fp32"
    weight = next(name for name in network.graph.tensors if "fc1" in name and "weight" in name)
    network.graph.tensors[weight] = -network.graph.tensors[weight]
    assert {"sn1.v"} <= set(unlike_interpreter(network, x))


def test_inspect_and_tune_take_whole_numbers(folder: Path, model: tuple[str, ...]) -> None:
    found = as_json("inspect", *model, "--numerics", "int", "--schedule", folder / "s.json")
    assert "int8" in found["ir"] and {"quantize", "dequantize"} <= {node["op"] for node in found["nodes"]}
    assert found["stage"] == "fused"
    options = ("--trials", 1, "--threads", 1, "--storage", folder / "tuning.sqlite")
    assert as_json("tune", *model, "--numerics", "int", *options)["regions"]
    assert "needs --numerics int" in errors("inspect", *model, "--weight-bits", 4)[0]
