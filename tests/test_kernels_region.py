"""CPU regions against PyTorch, bit for bit: shapes, forms, times, loop orders."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kernels_harness import check, check_many

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import TensorRef, neuron
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Source, Tuning, tuned

IF = neuron("if", threshold=2.0)
TUNINGS = {
    "pixel": Tuning(),
    "tap": Tuning(order="tap", tile=(2, 3)),
    "word": Tuning(order="word", words=2, tile=(3, 2), block=64),
    "narrow": Tuning(lanes=8, block=64, tile=(2, 2)),
}


def conv(c: int, space: tuple[int, int] = (5, 4), t: int = 3, form: str = "bits", **changes) -> Source:
    settings = {"kernel": (3, 3), "padding": (1, 1), **changes}
    return Source("conv", c, space, t, form, **settings)  # type: ignore[arg-type]


def region(source: Source, channels: int, space: tuple[int, int] = (5, 4), t: int = 3, **changes) -> RegionSpec:
    return RegionSpec(1, t, channels, space, (source,), **{"neuron": IF, "output": "bits", **changes})


@pytest.mark.parametrize("order", TUNINGS)
def test_channel_counts(order: str) -> None:
    counts = [1, 3, 10, 20, 32, 64, 65, 96, 128, 512]
    specs = []
    for c, other in zip(counts, [*counts[5:], *counts[:5]], strict=True):
        method = "dense" if c in (3, 96) and order != "tap" else "event"
        specs.append(region(conv(c, method=method), other, tuning=TUNINGS[order]))
        specs.append(replace(specs[-1], output="dense", membrane=True, state_io=True))
    check_many(specs)


GEOMETRIES = {
    "stride": (conv(20, (7, 9), stride=(2, 2)), (4, 5)),
    "dilation": (conv(64, (7, 9), dilation=(2, 3), padding=(2, 3)), (7, 9)),
    "asymmetric kernel": (conv(33, (6, 5), kernel=(2, 5), padding=(0, 2)), (5, 5)),
    "conv1d": (conv(12, (1, 11), kernel=(1, 4), padding=(0, 1), stride=(1, 3)), (1, 4)),
    "uneven padding": (conv(16, (5, 5), kernel=(4, 4), padding=(1, 1)), (5, 5)),
    "kernel wider than the map": (conv(16, (2, 3), kernel=(7, 7), padding=(3, 3)), (2, 3)),
    "linear": (conv(130, (1, 1), kernel=(1, 1), padding=(0, 0)), (1, 1)),
    "linear behind flatten": (conv(70, (3, 2), kernel=(3, 2), padding=(0, 0)), (1, 1)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("method", ["event", "dense", "dense input"])
def test_geometries(name: str, method: str) -> None:
    source, space = GEOMETRIES[name]
    source = replace(source, form="dense") if method == "dense input" else replace(source, method=method)
    orders = ("pixel", "tap", "word") if method == "event" else ("pixel",)
    specs = [region(source, 48, space, tuning=TUNINGS[order], bias=True) for order in orders]
    check_many([*specs, tuned(specs[0])], seed=3)


GROUPED = [(128, 128, 2), (512, 256, 4), (6, 9, 3), (96, 96, 96), (200, 200, 200), (10, 30, 10)]
GROUPED += [(60, 180, 3), (320, 320, 5), (70, 70, 7)]


@pytest.mark.parametrize("method", ["event", "dense", "dense input"])
def test_groups(method: str) -> None:
    specs = []
    for channels_in, channels_out, groups in GROUPED:
        source = conv(channels_in, (3, 4), t=2, groups=groups)
        source = replace(source, form="dense") if method == "dense input" else replace(source, method=method)
        tuning = TUNINGS["word" if groups % 2 else "pixel"]
        specs.append(region(source, channels_out, (3, 4), t=2, tuning=tuning))
    check_many(specs, density=0.4)


@pytest.mark.parametrize("method", ["event", "dense", "dense input"])
def test_times(method: str) -> None:
    """The source's current is held over several steps, or several of its steps are summed."""
    specs = []
    for input_steps in (1, 2, 4, 8, 24):
        source = conv(20, t=input_steps, planes=2)
        source = replace(source, form="dense") if method == "dense input" else replace(source, method=method)
        orders = ("pixel", "tap", "word") if method == "event" else ("pixel",)
        specs += [region(source, 32, t=8, tuning=TUNINGS[order]) for order in orders]
    check_many(specs)


@pytest.mark.parametrize("levels", [1, 3, 4, 31])
def test_graded(levels: int) -> None:
    counting = neuron("if", threshold=0.5, max_count=levels, spike_value=0.25)
    planes = levels.bit_length()
    specs = []
    for order in TUNINGS:
        source = conv(65, planes=planes, method="dense" if order == "tap" else "event")
        specs.append(region(source, 100, neuron=counting, tuning=TUNINGS[order], bias=True))
        specs.append(replace(specs[-1], output="dense", bias=False))
    check_many(specs)
    assert check(specs[0]).max() == levels * 0.25


def test_several_sources_at_several_times() -> None:
    sources = (
        conv(64, t=4),
        Source("identity", 80, (5, 4), 2, "bits", planes=2, scale=0.25),
        Source("identity", 80, (5, 4), 8, "dense", scale=0.5),
        Source("current", 80, (5, 4), 1, "dense"),
        conv(3, t=1, form="dense"),
    )
    specs = []
    for order, drop in zip([*TUNINGS, "word"], range(len(sources)), strict=True):
        kept = sources[:drop] + sources[drop + 1 :]
        specs.append(RegionSpec(1, 4, 80, (5, 4), kept, IF, True, "bits", True, True, tuning=TUNINGS[order]))
    check_many(specs)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("is_symbolic", [True, False])
def test_batches(batch: int, is_symbolic: bool) -> None:
    spec = RegionSpec(
        None if is_symbolic else batch, 3, 160, (5, 4), (conv(64), conv(7, form="dense")), IF, output="bits"
    )
    specs = [replace(spec, tuning=tuning, state_io=True) for tuning in TUNINGS.values()]
    check_many([*specs, tuned(spec)], batch=batch)


def test_no_neuron_gives_currents() -> None:
    sources = (conv(70), conv(70, form="dense"), conv(70, t=6))
    check_many([replace(region(source, 10, bias=True), neuron=None, output="dense") for source in sources])


def test_tensor_parameters() -> None:
    leaky = neuron("leaky", threshold=TensorRef("a"), v_init=TensorRef("b"), beta=0.5)
    for channels in (10, 64):
        spec = region(
            conv(20), channels, neuron=leaky, per_channel=("threshold",), per_neuron=("v_init",), membrane=True
        )
        check(spec)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("channels", [10, 64, 192])
def test_tuned_for_other_vectors(lanes: int, channels: int) -> None:
    check(tuned(region(conv(40, (9, 7)), channels, (9, 7)), cores=4, lanes=lanes))


def test_mistakes_are_told_all_at_once() -> None:
    wrong = Source("identity", 4, (1, 1), 2, "bits")
    with pytest.raises(LdsnnError) as error:
        RegionSpec(1, 3, 8, (1, 1), (wrong,), neuron=None, output="bits", membrane=True)
    assert len(error.value.problems) == 4
