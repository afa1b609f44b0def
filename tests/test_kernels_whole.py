"""CPU regions in whole numbers against PyTorch in float64, bit for bit: types of sums, shapes, times, neurons."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kernels_harness import check_whole

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Neuron, TensorRef, neuron
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Source, Tuning, tuned


def whole(name: str, fraction: int = 8, guard: int = 0, substeps: int = 1, **settings) -> Neuron:
    return replace(neuron(name, **settings), fraction=fraction, guard=guard, substeps=substeps)


IF = whole("if", threshold=300.0)
TUNINGS = {
    "pixel": Tuning(),
    "tap": Tuning(order="tap", tile=(2, 3)),
    "word": Tuning(order="word", words=2, tile=(3, 2), block=64, prefetch=1),
    "narrow": Tuning(lanes=8, block=64, tile=(2, 2)),
    "neon": Tuning(lanes=4, block=64),
}
#: accumulator, words whose events are summed in int16 before, type of the weights
SUMS = {"int16": ("int16", 0, "int8"), "int32": ("int32", 0, "int16"), "widened": ("int32", 1, "int8")}


def conv(c: int, sums: str, space: tuple[int, int] = (5, 4), t: int = 3, form: str = "bits", **changes) -> Source:
    _, partial, weights = SUMS[sums]
    settings = {"kernel": (3, 3), "padding": (1, 1), "weights": weights, "values": "int32", **changes}
    walks = form == "bits" and settings.get("method", "event") == "event" and settings.get("groups", 1) < max(c, 2)
    return Source("conv", c, space, t, form, partial=partial if walks else 0, **settings)  # type: ignore[arg-type]


def region(source: Source, channels: int, sums: str, space: tuple[int, int] = (5, 4), t: int = 3, **changes):
    settings = {"neuron": IF, "output": "bits", "accumulator": SUMS[sums][0], **changes}
    return RegionSpec(1, t, channels, space, (source,), **settings)


@pytest.mark.parametrize("sums", SUMS)
def test_channel_counts(sums: str) -> None:
    counts = [1, 3, 10, 20, 32, 64, 65, 96, 128, 512]
    specs = []
    for i, (c, other) in enumerate(zip(counts, [*counts[5:], *counts[:5]], strict=True)):
        tuning = TUNINGS[list(TUNINGS)[i % len(TUNINGS)]]
        specs.append(region(conv(c, sums), other, sums, tuning=tuning))
        rest = {"output": "dense", "membrane": True, "state_io": True, "bias": True}
        specs.append(replace(specs[-1], **rest, tuning=TUNINGS[list(TUNINGS)[(i + 2) % len(TUNINGS)]]))
        specs.append(replace(specs[-1], sources=(conv(c, sums, method="dense"),)))
    check_whole(specs)


GEOMETRIES = {
    "stride": (20, (7, 9), {"stride": (2, 2)}, (4, 5)),
    "dilation": (64, (7, 9), {"dilation": (2, 3), "padding": (2, 3)}, (7, 9)),
    "asymmetric kernel": (33, (6, 5), {"kernel": (2, 5), "padding": (0, 2)}, (5, 5)),
    "conv1d": (12, (1, 11), {"kernel": (1, 4), "padding": (0, 1), "stride": (1, 3)}, (1, 4)),
    "linear": (130, (1, 1), {"kernel": (1, 1), "padding": (0, 0)}, (1, 1)),
    "linear behind flatten": (70, (3, 2), {"kernel": (3, 2), "padding": (0, 0)}, (1, 1)),
}


@pytest.mark.parametrize("sums", SUMS)
def test_geometries(sums: str) -> None:
    specs = []
    for c, space, window, out in GEOMETRIES.values():
        for order in ("pixel", "tap", "word"):
            specs.append(region(conv(c, sums, space, **window), 48, sums, out, tuning=TUNINGS[order], bias=True))
        for form in ("bits", "dense"):
            source = conv(c, sums, space, form=form, method="dense", **window)
            specs.append(region(source, 48, sums, out, tuning=TUNINGS["narrow"]))
    check_whole([*specs, tuned(specs[0]), tuned(specs[3])])


@pytest.mark.parametrize("sums", SUMS)
def test_groups(sums: str) -> None:
    specs = []
    for i, (c, out, groups) in enumerate([(128, 128, 2), (512, 256, 4), (6, 9, 3), (96, 96, 96), (200, 200, 200)]):
        for method, form in (("event", "bits"), ("dense", "bits"), ("dense", "dense")):
            source = conv(c, sums, (3, 4), 2, form, groups=groups, method=method)
            tuning = TUNINGS["word" if i % 2 else "pixel"]
            specs.append(region(source, out, sums, (3, 4), 2, tuning=tuning))
    check_whole(specs, density=0.4)


@pytest.mark.parametrize("sums", SUMS)
def test_times_and_planes(sums: str) -> None:
    """The source's current is held over several steps, or several of its steps are summed; counts of some bits."""
    specs = []
    for input_steps in (1, 2, 8, 24):
        for order in ("pixel", "tap", "word"):
            source = conv(20, sums, t=input_steps, planes=2)
            specs.append(region(source, 32, sums, t=8, tuning=TUNINGS[order]))
        specs.append(region(replace(source, method="dense", partial=0), 32, sums, t=8))
    check_whole(specs)


@pytest.mark.parametrize("sums", SUMS)
def test_several_sources(sums: str) -> None:
    def add(kind: str, t: int, form: str, **more) -> Source:
        return Source(kind, 80, (5, 4), t, form, values="int32", **more)  # type: ignore[arg-type]

    sources = (
        conv(64, sums, t=4),
        add("identity", 2, "bits", planes=2, weights="int16", per_channel=True),
        add("identity", 8, "dense", scale=3.0),
        add("identity", 4, "bits", scale=-7.0),
        add("current", 1, "dense"),
        conv(3, sums, t=1, form="dense"),
    )
    specs = []
    for order, drop in zip([*TUNINGS, "word"], range(len(sources)), strict=True):
        kept = sources[:drop] + sources[drop + 1 :]
        more = {"accumulator": SUMS[sums][0], "tuning": TUNINGS[order]}
        specs.append(RegionSpec(1, 4, 80, (5, 4), kept, IF, True, "bits", True, True, **more))
    check_whole(specs)


@pytest.mark.parametrize("levels", [1, 3, 4, 31, 255, 0])
def test_counts(levels: int) -> None:
    """Counts by whole-number division, of every sign of the membrane, written as bit planes or as bytes."""
    cells = [whole("if", threshold=37.0, max_count=levels), whole("if", threshold=37.0, max_count=levels, compare="gt")]
    cells += [
        whole("if", threshold=90.0, own_reset_charge=True, reset_charge=21.0, max_count=levels, floor=True, v_min=-50.0)
    ]
    planes = max(1, levels.bit_length())
    specs = []
    for i, cell in enumerate(cells):
        source = conv(65, "int32", planes=planes, method="dense" if i % 2 else "event")
        tuning = TUNINGS[list(TUNINGS)[i]]
        spec = region(source, 100, "int32", neuron=cell, tuning=tuning, bias=True, state_io=True)
        specs += [spec] if levels else []
        specs.append(replace(spec, output="dense", membrane=True))
        specs.append(replace(specs[-1], sources=(conv(65, "widened", planes=planes),)))
    check_whole(specs)


LEAKY = {
    "leaky": {"beta": 0.90625},
    "lif": {"decay": 0.6875, "form": "fused"},
    "cuba_lif": {"alpha": 0.75, "beta": 0.8125},
    "alif": {"beta": 0.875, "rho": 0.9375, "adapt_gain": 0.21875},
    "li": {"beta": 0.90625},
}


@pytest.mark.parametrize("products", ["int32", "int64"])
def test_fixed_point_neurons(products: str) -> None:
    specs = []
    for i, (name, values) in enumerate(LEAKY.items()):
        settings = values if name == "li" else {"threshold": 500.0, **values}
        cell = whole(name, fraction=5, guard=i % 3, substeps=1 + i % 2, **settings)
        for tuning in ("pixel", "narrow", "neon"):
            spec = region(conv(20, "int32"), 70, "int32", t=16, neuron=cell, products=products, tuning=TUNINGS[tuning])
            source = replace(spec.sources[0], timesteps=16)
            spec = replace(spec, sources=(source,), output="bits" if cell.signal.is_bounded else "dense")
            specs.append(replace(spec, state_io=True, membrane=True))
    check_whole(specs)


def test_tensor_parameters() -> None:
    cell = whole("leaky", threshold=TensorRef("a"), v_init=TensorRef("b"), beta=TensorRef("c"))
    for channels in (10, 64):
        spec = region(conv(20, "int32"), channels, "int32", neuron=cell, membrane=True)
        tensors = {"per_channel": ("threshold", "beta"), "per_neuron": ("v_init",), "ratios": (("beta", 8),)}
        check_whole([RegionSpec(**{**spec.__dict__, **tensors})])


def test_mistakes_are_told() -> None:
    with pytest.raises(LdsnnError, match="float32 do not add up in int32"):
        region(conv(8, "int32", weights="float32"), 8, "int32")
    with pytest.raises(LdsnnError, match="widen into int32, not int16"):
        region(conv(8, "widened"), 8, "int16")
