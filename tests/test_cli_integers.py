"""Integer mode on the command line: ranges and proofs, a bundle of whole numbers, what is said of wrong options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import MODELS
from typer.testing import CliRunner

from ldsnn_compiler.cli.app import app
from ldsnn_compiler.ir.store import read_file

TIMESTEPS = ("--convert", "--timesteps", "8")


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return str(path)


def answer(*arguments: str) -> Any:
    """The JSON of a command that succeeds."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_from_ranges_to_a_bundle(model: str, tmp_path: Path) -> None:
    plain, data = f"{model}:plain", ("--data", f"{model}:data")
    calibration, bundle = tmp_path / "ranges.json", tmp_path / "net.ldsnn"
    found = answer("quantize", plain, *TIMESTEPS, *data, "-o", str(calibration))
    assert [row["path"] for row in found["layers"]] == ["fc1", "fc2"]
    for row in found["layers"]:
        assert row["weights"] == "int8" and row["used_bits"] == 8 and row["margin_bits"] >= 0
        assert row["accumulator"] == ("int16" if max(map(abs, row["worst"])) < 2**15 else "int32")
    (ranges,) = json.loads(calibration.read_text())["inputs"].values()
    assert ranges["low"] < 0 < ranges["high"]
    options = ("--numerics", "int", "--calibration", str(calibration), "--threads", "1", "-o", str(bundle))
    assert answer("compile", plain, *TIMESTEPS, *data, *options)["numerics"] == "int"
    assert json.loads(read_file(bundle / "manifest.json"))["numerics"] == "int"
    assert "int8" in answer("inspect", str(bundle))["ir"]
    compiled = answer("run", str(bundle), *data, "--repeats", "1")
    interpreted = answer("run", str(bundle), *data, "--interpreter")
    assert compiled["numerics"] == interpreted["numerics"] == "int"
    assert compiled["rows"][0]["accuracy"] == interpreted["rows"][0]["accuracy"] >= 0.8


def test_options_without_integer_mode_are_errors(model: str) -> None:
    result = CliRunner().invoke(app, ["compile", f"{model}:plain", "--weight-bits", "4", "--shape", "4"])
    assert result.exit_code == 1 and "--weight-bits: needs --numerics int" in result.output
