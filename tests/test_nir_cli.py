"""``ldsnn import`` and ``export``, and .nir files as MODEL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nir_nets as nets
import pytest
from typer.testing import CliRunner

from ldsnn_compiler.cli.app import app
from ldsnn_compiler.ir.store import read_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.schedule import LayerSchedule, Schedule

pytestmark = pytest.mark.nir


def ldsnn(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def answer(*arguments: object) -> dict[str, Any]:
    code, out, err = ldsnn(*arguments, "--json")
    assert code == 0, err
    return dict(json.loads(out))


@pytest.fixture
def lif(tmp_path: Path) -> Path:
    return nets.written(nets.chain(nets.made("LIF", tau=2.0)), tmp_path, "lif.nir")


def test_there_and_back(lif: Path, tmp_path: Path) -> None:
    """A schedule given to export comes out of import beside the graph; T0 and dt need not be said again."""
    time = ("--dt", 0.5, "--timesteps", 12)
    assert answer("import", lif, *time)["graph"] == str(tmp_path / "lif.ldir")
    schedule = Schedule(12, {"lif": LayerSchedule(4, 1, "micro")})
    schedule.write(tmp_path / "s.json")
    second = tmp_path / "second.nir"
    answer("export", tmp_path / "lif.ldir", "-o", second, "--dt", 0.5, "--schedule", tmp_path / "s.json")
    found = answer("import", second)
    assert Schedule.read(found["schedule"]) == schedule
    first, back = read_graph(tmp_path / "lif.ldir"), read_graph(found["graph"])
    back.name = first.name
    assert graph_text(back) == graph_text(first)
    answer("export", lif, *time, "-o", tmp_path / "third.ldir")
    third = read_graph(tmp_path / "third.ldir")
    assert graph_text(third) == graph_text(first)


def test_discretise(lif: Path, tmp_path: Path) -> None:
    answer("import", lif, "--dt", 0.5, "--timesteps", 3, "--discretise", "euler")
    assert "beta=0.75" in (tmp_path / "lif.ldir").read_text()


def test_check_shows_the_layers_and_what_was_repaired(tmp_path: Path) -> None:
    node = nets.made("LIF", 2)
    node.tau = node.tau[:1]
    path = nets.written(nets.joined("input lif, lif output", lif=node, **nets.ends()), tmp_path)
    found = answer("check", path, "--dt", 0.5, "--timesteps", 3)
    assert [layer["op"] for layer in found["layers"]] == ["scale", "neuron"]
    assert [n["message"] for n in found["notes"]] == ["tau: shape (1,), read as shape (2,)"]
    assert found["problems"] == []


def test_check_fails_for_what_cannot_run(tmp_path: Path) -> None:
    path = nets.written(nets.chain(nets.made("LIF", tau=-2.0)), tmp_path)
    code, out, err = ldsnn("check", path, "--dt", 0.5, "--timesteps", 3)
    assert code == 1 and "can be imported, but not run" in out and "error: %lif (lif): neuron.beta: 1.28403" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("import", "{lif}"), "NIR does not say how long a run lasts (give --timesteps"),
        (("import", "{lif}", "-o", "net.nir"), "a .ldir file is what `import` writes"),
        (("import", "net.ldir"), "a .nir file is what `import` reads"),
        (("import", "{lif}", "--dt", "1", "--timesteps", "2", "--discretise", "rk4"), "one of zoh, euler"),
        (("export", "{lif}", "--dt", "1", "--timesteps", "2", "-o", "net.txt"), "is neither .nir nor .ldir"),
        (("check", "{lif}", "--convert", "--dt", "1", "--timesteps", "2"), "applies to file.py:factory"),
        (("check", "{folder}/m.py:net", "--dt", "1"), "applies to a .nir file"),
    ],
)
def test_what_does_not_fit(lif: Path, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    code, out, err = ldsnn(*(a.format(lif=lif, folder=tmp_path) for a in arguments))
    assert code == 1 and text in err and not out
