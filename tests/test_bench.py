"""The benchmark: calibration reaches its rates, rows give the same spikes, and what differs is explained or caught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ldsnn_compiler.bench import peers
from ldsnn_compiler.bench.ann import float_twin
from ldsnn_compiler.bench.compare import compare, exact_summary, summary
from ldsnn_compiler.bench.modules import TorchNet, relu_module
from ldsnn_compiler.bench.network import Network, build, logits, pooled, scan
from ldsnn_compiler.bench.ours import built, our_peer
from ldsnn_compiler.bench.peers import PEERS, torch_peer
from ldsnn_compiler.bench.report import BEGIN, END, main, rewritten
from ldsnn_compiler.bench.run import Settings, bench, row_names
from ldsnn_compiler.bench.sweep import Point, growth, sweep
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Interpreter


@pytest.fixture(scope="module")
def tiny() -> Network:
    """A random convolutional network."""
    return build("vgg-tiny", 8, 0.1)


@pytest.fixture(scope="module")
def dyadic() -> Network:
    """One whose sums are exact in any order."""
    return build("vgg-tiny", 8, 0.1, dyadic=True)


def test_vgg16_is_what_it_says() -> None:
    network = build("vgg16-cifar", 1, 0.1)
    assert [layer.weight.shape[0] for layer in network.layers] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert all(layer.weight.shape[2:] == (3, 3) and layer.mean is not None for layer in network.layers)
    assert sum(layer.pool for layer in network.layers) == 5
    assert tuple(network.head.shape) == (10, 512)


@pytest.mark.parametrize("name", ["vgg-tiny", "mlp"])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_every_layer_fires_at_the_rate_asked_for(name: str, density: float) -> None:
    network = build(name, 8, density, batch=2)
    for layer, spikes in zip(network.layers, network.spikes, strict=True):
        assert layer.rate == pytest.approx(density, rel=0.05, abs=2 / spikes.numel())
        assert layer.rate == pytest.approx(float(spikes.mean()))


def test_a_network_is_the_same_every_time(tiny: Network) -> None:
    again = build("vgg-tiny", 8, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(tiny.spikes, again.spikes, strict=True))
    other = build("vgg-tiny", 8, 0.1, seed=1)
    assert not torch.equal(tiny.layers[0].weight, other.layers[0].weight)


def test_reference_is_soft_reset_integrate_and_fire() -> None:
    spikes = scan(torch.tensor([[[0.4, 1.5, -1.0]]]), 1.0, 5)
    assert spikes[:, 0].T.tolist() == [[0, 0, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


def test_dyadic_sums_do_not_depend_on_precision(dyadic: Network) -> None:
    x = dyadic.images[None].double()
    for layer, expected in zip(dyadic.layers, dyadic.spikes, strict=True):
        drive = layer.drive(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        spikes = scan(drive, layer.threshold, dyadic.timesteps)
        assert torch.equal(spikes.float(), expected)
        x = pooled(spikes) if layer.pool else spikes


def test_too_many_timesteps_for_exact_sums_are_refused() -> None:
    with pytest.raises(LdsnnError, match="too many"):
        build("mlp", 128, 0.1, dyadic=True)


@pytest.mark.parametrize(("name", "timesteps", "density"), [("nothing", 0, 0.7), ("mlp", 8, 0.0)])
def test_wrong_arguments_are_all_named(name: str, timesteps: int, density: float) -> None:
    with pytest.raises(LdsnnError) as caught:
        build(name, timesteps, density)
    assert len(caught.value.problems) == (3 if name == "nothing" else 1)


@pytest.mark.spikingjelly
@pytest.mark.snntorch
@pytest.mark.parametrize("row", ["spikingjelly", "snntorch", "torch"])
def test_peers_give_the_reference_spikes_exactly_on_dyadic_weights(dyadic: Network, row: str) -> None:
    peer = PEERS[row][1](dyadic)
    spikes, scores = peer.record()
    found = summary(dyadic, compare(dyadic, spikes), scores, logits(dyadic, dyadic.spikes[-1]))
    assert found["identical"] and found["flips"] == 0 and found["largest_score_difference"] == 0
    assert torch.equal(peer.run(), scores) and torch.equal(peer.run(), scores)


@pytest.mark.parametrize("row", ["ldsnn", "ldsnn_dense"])
def test_our_rows_give_the_reference_spikes_exactly_on_dyadic_weights(dyadic: Network, row: str) -> None:
    peer = our_peer(dyadic, 1, row)
    spikes, scores = peer.record()
    found = summary(dyadic, compare(dyadic, spikes), scores, logits(dyadic, dyadic.spikes[-1]))
    assert found["identical"] and found["flips"] == 0 and found["largest_score_difference"] == 0
    kernels = {node.placement.kernel for node in peer.extra["graph"].of("conv2d") if node.placement}
    assert ("event" in kernels) != (row == "ldsnn_dense")


@pytest.mark.parametrize("row", ["ldsnn_int", "ldsnn_int_dense"])
def test_rows_of_whole_numbers_give_the_interpreters_spikes(tiny: Network, row: str) -> None:
    peer = our_peer(tiny, 1, row)
    found = exact_summary(peer.record(), peer.expected(), tiny, logits(tiny, tiny.spikes[-1]))
    assert found["identical"] and 0 < found["moved_by_quantization"] < 0.5 * found["spikes"]
    assert peer.extra["integers"]["weight_bits"] == 8 and len(peer.extra["integers"]["layers"]) == 4
    spikes, scores = peer.expected()
    spikes[0][0, 0, 0, 0, 0] = 1 - spikes[0][0, 0, 0, 0, 0]
    found = exact_summary(peer.record(), (spikes, scores), tiny, scores)
    assert not found["identical"] and found["unexplained"] == 1


def test_graph_built_by_hand_computes_the_network(dyadic: Network) -> None:
    with torch.no_grad():
        scores = Interpreter(built(dyadic))(dyadic.images)
    assert torch.equal(scores, logits(dyadic, dyadic.spikes[-1]))


def test_flips_by_rounding_are_explained(tiny: Network) -> None:
    spikes, _ = torch_peer(tiny).record()
    found = compare(tiny, spikes)
    assert sum(layer.unexplained for layer in found) == 0
    assert all(layer.margin < 1e-5 for layer in found)


def test_a_wrong_threshold_is_caught(tiny: Network) -> None:
    module = TorchNet(tiny)
    module.thresholds[1] *= 1.01
    with torch.no_grad():
        _, spikes = module(tiny.images, record=True)
    found = compare(tiny, [s.unflatten(0, (tiny.timesteps, 1)) for s in spikes])
    assert found[0].unexplained == 0 and found[1].unexplained > 0 and found[1].margin > 1e-3
    assert found[2].unexplained == 0, "the next layer is right about the spikes it was given"


@pytest.mark.parametrize("row", ["no-such-row", "torch,no-such-row"])
def test_unknown_rows_are_refused(row: str) -> None:
    with pytest.raises(LdsnnError, match="no-such-row"):
        bench(Settings("mlp", rows=tuple(row.split(","))))


def test_bench_reports_rows_rates_and_comparisons() -> None:
    report = bench(Settings("mlp", timesteps=4, repeats=2, threads=1, rows=("ldsnn", "torch"))).to_json()
    assert [row["name"] for row in report["rows"]] == ["ldsnn", "torch"]
    assert set(report["rows"][0]["timesteps"]) == {"sn0", "sn1"} and report["threads"] == 1
    assert all(row["latency_ms"] > 0 and row["agreement"] == 1 for row in report["rows"])
    assert all(found["unexplained"] == 0 for found in report["compared"].values())
    assert [layer["layer"] for layer in report["layers"]] == ["sn0", "sn1"]
    assert report["versions"]["torch"] == torch.__version__.partition("+")[0] or "+" in torch.__version__
    json.dumps(report)


def test_the_ann_twin_is_the_network_with_relu(tiny: Network) -> None:
    x = tiny.images
    for layer in tiny.layers:
        x = layer.drive(x).relu()
        x = pooled(x[None])[0] if layer.pool else x
    with torch.no_grad():
        assert torch.allclose(relu_module(tiny)(tiny.images), x.flatten(1) @ tiny.head.T, atol=1e-4)


@pytest.mark.onnxruntime
def test_onnx_runtime_computes_the_ann_twin(tiny: Network) -> None:
    report = bench(Settings("vgg-tiny", timesteps=2, repeats=1, threads=1, rows=("ort_fp32", "ort_int8"))).to_json()
    assert [row["name"] for row in report["rows"]] == ["ort_fp32", "ort_int8"]
    assert all(row["latency_ms"] > 0 and row["synaptic_updates"] is None for row in report["rows"])
    assert report["compared"] == {} and "8S8, Q" in report["notes"]["ort_int8"]
    module, x = relu_module(tiny), tiny.images
    exact, rounded = PEERS["ort_fp32"][1](tiny).run(), PEERS["ort_int8"][1](tiny).run()
    with torch.no_grad():
        scores = module(x)
    largest = float(scores.abs().max())
    assert float((exact - scores).abs().max()) < 1e-5 * largest
    assert 1e-4 * largest < float((rounded - scores).abs().max()) < 0.1 * largest


@pytest.mark.onnxruntime
def test_a_twin_that_computes_something_else_is_refused(tiny: Network) -> None:
    class Forgetful(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) if torch.compiler.is_exporting() else -x.flatten(1)

    with pytest.raises(ValueError, match="away from PyTorch's"):
        float_twin(Forgetful().eval(), tiny.images, threads=1)


def test_rows_without_their_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "available", lambda name: name in ("torch", "onnx"))
    with pytest.raises(LdsnnError, match=r"ort_int8: not installed: onnxruntime, onnxscript"):
        bench(Settings("mlp", rows=("ort_int8",)))
    assert set(peers.missing()) == {"spikingjelly", "snntorch", "ort_fp32", "ort_int8"}


def test_rows_are_those_of_installed_libraries() -> None:
    assert row_names()[:3] == ["ldsnn", "ldsnn_dense", "ldsnn_int"] and {"torch", "torch_compile"} <= set(row_names())


def test_sweep_pairs_event_and_dense() -> None:
    points = sweep(Settings("mlp", repeats=2, threads=1), [0.3, 0.1], [2])
    assert [(p.timesteps, p.density) for p in points] == [(2, 0.1), (2, 0.3)]
    assert points[0].spikes < points[1].spikes and all(p.ratio > 0 for p in points)


def test_growth_compares_neighbours_of_one_timestep() -> None:
    a, b, c = (
        Point(t, d, s, ms, 0.0, 1.0, 0.0) for t, d, s, ms in ((4, 0.1, 10, 1.0), (4, 0.3, 30, 2.0), (8, 0.1, 20, 3.0))
    )
    assert growth([a, b, c]) == [{"timesteps": 4, "from": 0.1, "to": 0.3, "spikes": 3.0, "time": 2.0}]


def results_folder(tmp_path: Path) -> Path:
    report = bench(Settings("mlp", timesteps=2, repeats=1, threads=1, rows=("torch",))).to_json()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mlp.json").write_text(json.dumps(report))
    return tmp_path / "results"


def test_report_rewrites_only_between_the_marks(tmp_path: Path) -> None:
    folder, readme = results_folder(tmp_path), tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    arguments = ["--results", str(folder), "--readme", str(readme)]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| torch |" in text and "results/mlp.json" in text
    assert main([*arguments, "--check"]) == 0


def test_report_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "README.md").write_text(f"{BEGIN}{END}")
    assert main(["--results", str(tmp_path), "--readme", str(tmp_path / "README.md")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "a.json" in lines[0] and "b.json" in lines[1]
    with pytest.raises(LdsnnError, match="no place"):
        rewritten("nothing", "tables")
