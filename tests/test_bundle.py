"""Bundles: what they hold, that they run as before, and that anything wrong with one is said in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import Net, inputs_of
from target_harness import assert_equal, compiled

from ldsnn_compiler.errors import BundleError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime import folder, load
from ldsnn_compiler.schedule import Schedule


def _graph(seed: int = 0) -> Graph:
    net = Net(4, seed)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 4))
    return net.output(net.neuron(net.conv(x, 3)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "net.ldsnn"
    graph = _graph()
    compiled(graph, batch=None, schedule=Schedule.uniform(graph, 2)).save(path)
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy.ldsnn"))


def test_a_bundle_holds_what_it_should(saved: Path) -> None:
    names = {p.name for p in saved.iterdir()}
    light = {"interface.json", "arguments.safetensors"}
    assert names == {"manifest.json", "graph.ldir", "weights.safetensors", "report.json", "lib-native.so"} | light
    manifest = json.loads((saved / "manifest.json").read_text())
    assert {"versions", "target", "numerics", "threads", "batch", "schedule", "pipeline"} <= manifest.keys()
    assert manifest["threads"] == 1 and manifest["batch"] is None and manifest["numerics"] == "fp32"
    assert Schedule.parse(manifest["schedule"]).base_timesteps == 4
    assert manifest["target"]["features"] and set(manifest["files"]) == names - {"manifest.json"}
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == entry["sha256"]


def test_a_loaded_bundle_runs_as_before(saved: Path) -> None:
    graph = _graph()
    fresh = compiled(graph, batch=None, schedule=Schedule.uniform(graph, 2))
    again = load(saved)
    data = inputs_of(graph, 3)
    assert_equal("run", again.run(*data), fresh.run(*data))
    assert again.settings == fresh.settings
    assert again.report["kernels"] == fresh.report["kernels"]


def test_a_loaded_bundle_can_be_saved_again(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "again.ldsnn")
    a, b = ((p / "lib-native.so").read_bytes() for p in (saved, tmp_path / "again.ldsnn"))
    assert a == b
    data = inputs_of(_graph(), 1)
    assert_equal("run", load(tmp_path / "again.ldsnn").run(*data), load(saved).run(*data))


def test_saving_over_a_bundle_replaces_it(tmp_path: Path) -> None:
    """The loader keeps libraries by path; the second network must not answer with the first one's code."""
    path, data = tmp_path / "net.ldsnn", inputs_of(_graph(), 2)
    for thresholds in (1.0, 0.25):
        graph = _graph()
        for node in graph.of("neuron"):
            graph.set_attrs(node, neuron=node["neuron"].with_(threshold=thresholds))
        network = compiled(graph)
        network.save(path)
        assert_equal(f"threshold {thresholds}", load(path).run(*data), network.run(*data))
    assert [p.name for p in tmp_path.iterdir()] == ["net.ldsnn"]


def test_other_folders_are_not_overwritten(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        load(saved).save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


FILES = ("graph.ldir", "weights.safetensors", "report.json", "lib-native.so")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    refused(copy, f"its {name} is truncated or edited")


@pytest.mark.parametrize("name", FILES)
def test_an_edited_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    refused(copy, f"its {name} was edited")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refused(copy, f"its {name} cannot be read")


def _rewritten(path: Path, change: Callable[[dict[str, Any]], None], sealed: bool) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    if sealed:
        manifest["sha256"] = folder.seal(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_an_edited_manifest_is_refused(copy: Path) -> None:
    _rewritten(copy, lambda m: m.update(threads=64), sealed=False)
    refused(copy, "its manifest.json was edited")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="recipe"), "is not a bundle: its manifest.json is of another program"),
        (lambda m: m.update(version=99), "is a bundle of version 99, this is version 1"),
        (lambda m: m["versions"].update(tvm="0.1"), r"was compiled by .*tvm 0\.1, this is .*tvm"),
        (lambda m: m["target"].update(features=["avx2", "avx10.9"]), r"this machine lacks avx10\.9"),
        (lambda m: m["target"].update(triple="sparc-sun-solaris"), "this machine lacks sparc"),
        (lambda m: m["files"].pop("lib-native.so"), r"its manifest lists no lib-native\.so"),
    ],
)
def test_a_foreign_bundle_is_refused(copy: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    _rewritten(copy, change, sealed=True)
    refused(copy, message)


def test_what_is_no_bundle_at_all(tmp_path: Path, copy: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")
    refused(tmp_path, "is not a bundle: no folder with a manifest.json")
    (copy / "manifest.json").write_text('{"format": ')
    refused(copy, "its manifest.json cannot be read")
    (copy / "manifest.json").write_text("[1, 2]")
    refused(copy, "is not a bundle")


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    """Even with all hashes of the manifest made right: the graph names the hash of each tensor."""
    from safetensors.torch import load as read
    from safetensors.torch import save

    path = copy / "weights.safetensors"
    changed = save({name: value + 1 for name, value in read(path.read_bytes()).items()})
    path.write_bytes(changed)
    _rewritten(copy, lambda m: m["files"].update({path.name: folder.entry(changed)}), sealed=True)
    refused(copy, "its graph cannot be read: .*differs from its hash")


def test_code_for_a_machine_with_more_features_is_refused(tmp_path: Path) -> None:
    """Compiled for a board that this machine is not: refused when loaded, not run into an illegal instruction."""
    network = compiled(_graph())
    board = replace(network.settings.board, name="bigger", features=(*network.settings.board.features, "avx10.9"))
    network.settings = replace(network.settings, board=board)
    network.save(tmp_path / "net.ldsnn")
    refused(tmp_path / "net.ldsnn", r"was compiled for bigger \(.*\), this machine lacks avx10\.9")


def test_nothing_is_left_behind_when_a_bundle_cannot_be_written(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        load(saved).save(tmp_path / "file" / "net.ldsnn")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_state_starts_fresh(saved: Path) -> None:
    network = load(saved)
    assert network.state == {} and network.base_step == 0
    assert isinstance(network.run(*inputs_of(network.graph, 1))[0], torch.Tensor)
