"""CPU regions in whole numbers against PyTorch in float64, bit for bit: types of sums, shapes, times, neurons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernels_harness import check_whole

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Neuron, TensorRef, neuron
from ldsnn_compiler.targets.boards import native
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Source, Tuning, tuned
from ldsnn_compiler.targets.cpu.kernels.dot import DOTS, dots


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
SUMS["parts"] = SUMS["int16"]


def conv(c: int, sums: str, space: tuple[int, int] = (5, 4), t: int = 3, form: str = "bits", **changes) -> Source:
    _, partial, weights = SUMS[sums]
    settings = {"kernel": (3, 3), "padding": (1, 1), "weights": weights, "values": "int32", **changes}
    walks = form == "bits" and settings.get("method", "event") == "event" and settings.get("groups", 1) < max(c, 2)
    source = Source("conv", c, space, t, form, partial=partial if walks else 0, **settings)  # type: ignore[arg-type]
    if sums == "parts":
        cuts = tuple(sorted({source.taps // 3, source.taps // 2} - {0})) if walks else ()
        return replace(source, part=1, cuts=cuts)
    return source


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
        specs.append(region(replace(source, method="dense", partial=0, cuts=()), 32, sums, t=8))
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
        spec = region(source, 100, "int32", neuron=cell, tuning=tuning, bias=True, state_io=True, output="dense")
        specs += [replace(spec, output="bits")] if levels else []
        specs.append(replace(spec, membrane=True, quotients="float32"))
        if planes <= 3:
            specs.append(replace(specs[-1], sources=(conv(65, "widened", planes=planes),)))
    check_whole(specs)


def test_quotients_in_float32() -> None:
    """The closest calls of the proof that divides in float32: dividend and divisor together are at most 2**24."""
    divisors = np.unique(np.concatenate([np.arange(1, 5000), 2 ** np.arange(13, 24), 2 ** np.arange(13, 24) - 1]))
    for count in (1, 2, 3, 7, 254, 255, 4095):
        b = divisors[(count + 1) * divisors <= 2**24]
        for a in (count * b - 1, count * b, count * b + 1):
            found = np.floor(a.astype(np.float32) / b.astype(np.float32))
            assert np.array_equal(found, a // b), count
            found = np.ceil(a.astype(np.float32) / b.astype(np.float32))
            assert np.array_equal(found, -(-a // b)), count


@pytest.mark.parametrize(("channels", "lanes"), [(10, 16), (20, 8), (24, 8), (32, 16), (200, 16), (1, 8)])
def test_lanes_of_128_bits(channels: int, lanes: int) -> None:
    """Bytes that events add are widened as many at a time as padding allows; nothing else has other lanes."""
    for sums in ("int16", "widened"):
        assert region(conv(20, sums), channels, sums, tuning=TUNINGS["neon"]).lanes == lanes
    assert region(conv(20, "int32"), channels, "int32", tuning=TUNINGS["neon"]).lanes == 4
    assert region(conv(20, "int16", method="dense"), channels, "int16", tuning=TUNINGS["neon"]).lanes == 8
    assert region(conv(20, "int16"), channels, "int16").lanes == 32
    assert region(conv(20, "int32", weights="int8"), channels, "int32").lanes == 16


LEAKY = {
    "leaky": {"beta": 0.90625},
    "lif": {"decay": 0.6875, "form": "fused"},
    "cuba_lif": {"alpha": 0.75, "beta": 0.8125},
    "alif": {"beta": 0.875, "rho": 0.9375, "adapt_gain": 9.0},
    "li": {"beta": 0.90625},
}


@pytest.mark.parametrize("products", ["int32", "int64"])
def test_fixed_point_neurons(products: str) -> None:
    specs = []
    for i, (name, values) in enumerate(LEAKY.items()):
        settings = values if name == "li" else {"threshold": 500.0, **values}
        cell = whole(name, fraction=5, guard=i % 3, substeps=1 + i % 2, **settings)
        for tuning in ("pixel", "narrow", "neon"):
            more = {"neuron": cell, "products": products, "tuning": TUNINGS[tuning], "state_io": True}
            output = "bits" if cell.signal.is_bounded else "dense"
            specs.append(region(conv(20, "int32", t=16), 70, "int32", t=16, output=output, membrane=True, **more))
    check_whole(specs)


def test_tensor_parameters() -> None:
    cell = whole("leaky", threshold=TensorRef("a"), v_init=TensorRef("b"), beta=TensorRef("c"))
    for channels in (10, 64):
        tensors = {"per_channel": ("threshold", "beta"), "per_neuron": ("v_init",), "ratios": (("beta", 8),)}
        check_whole([region(conv(20, "int32"), channels, "int32", neuron=cell, membrane=True, **tensors)])


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_dot_products(lanes: int) -> None:
    """The instructions that this machine has, on bits, bytes and int16; with what no group of inputs fills."""
    possible = dots(native().has, lanes)
    specs = []
    for i, c in enumerate((3, 20, 64, 130)):
        for j, (weights, values) in enumerate((("int8", "uint8"), ("int16", "uint8"), ("int8", "int16"))):
            window = {"kernel": (1, 1), "padding": (0, 0)} if i % 2 else {"stride": (2, 1), "padding": (1, 1)}
            made = {"method": "dense", "weights": weights, "values": values, **window}
            space = (5, 4) if i % 2 else (3, 4)
            for form in ("bits", "dense"):
                source = conv(c, "int32", form=form, planes=1 + 2 * j, t=6 if j else 3, **made)
                spec = region(source, 70, "int32", space, tuning=Tuning(lanes=lanes, dots=possible[(i + j) % 2 :]))
                specs.append(
                    replace(spec, tuning=replace(spec.tuning, block=64, tile=(1, 2)) if i > 1 else spec.tuning)
                )
    assert not possible or any(s.dot(s.sources[0]) for s in specs)
    check_whole(specs)


#: least and largest input -> what it is to bytes without sign, with sign, and to int16
SHIFTS = {
    (0, 255): (0, -128, 0),
    (-127, 127): (127, 0, 0),
    (-3, 252): (3, -125, 0),
    (5, 255): (0, -128, 0),
    (-300, 20): (None, None, 0),
    (-20, 40000): (None, None, 20 + 1 - 2**15),
}


@pytest.mark.parametrize("extent", SHIFTS)
def test_inputs_are_shifted_to_what_dot_products_take(extent: tuple[int, int]) -> None:
    """Real numbers that were rounded, at borders, over strides, groups, summed steps, and behind another source."""
    for name, shift in zip(("vpdpbusd", "sdot", "pmaddwd"), SHIFTS[extent], strict=True):
        assert DOTS[name].shift(*extent) == shift
    specs = []
    for i, (c, window, space) in enumerate((
        (3, {}, (5, 4)),
        (20, {"stride": (2, 1), "kernel": (3, 2)}, (3, 5)),
        (64, {"groups": 2, "dilation": (1, 2), "padding": (1, 2)}, (5, 4)),
        (1, {"kernel": (1, 1), "padding": (0, 0)}, (5, 4)),
    )):  # fmt: skip
        lanes = (16, 8, 4, 16)[i]
        tuning = Tuning(lanes=lanes, dots=dots(native().has, lanes), block=64, tile=(1, 2))
        made = {"method": "dense", "weights": "int8", "least": extent[0], "most": extent[1], **window}
        source = conv(c, "int32", form="dense", **made)
        specs.append(region(source, (6, 70)[i % 2], "int32", space, tuning=tuning, bias=True))
        both = (conv(c, "int32", method="dense", **window), replace(source, timesteps=1))
        specs.append(replace(specs[-1], channels=(70, 6)[i % 2], sources=both))
    small = {"least": extent[0] // 4, "most": extent[1] // 4}
    summed = conv(5, "int32", t=6, form="dense", method="dense", weights="int8", **small)
    specs.append(region(summed, 20, "int32", tuning=tuning))
    if "vpdpbusd" in tuning.dots:
        assert any(s.shift(s.sources[-1]) for s in specs) == (SHIFTS[extent][0] != 0)
    check_whole(specs)


def test_mistakes_are_told() -> None:
    with pytest.raises(LdsnnError, match="float32 do not add up in int32"):
        region(conv(8, "int32", weights="float32"), 8, "int32")
    with pytest.raises(LdsnnError, match="widen into int32, not int16"):
        region(conv(8, "widened"), 8, "int16")
    with pytest.raises(LdsnnError, match="int32 come in one part"):
        region(conv(8, "parts"), 8, "int32")
    with pytest.raises(LdsnnError, match=r"\(4, 9\) do not part an event-driven source of 9"):
        region(replace(conv(8, "int16"), cuts=(4, 9)), 8, "int16")
