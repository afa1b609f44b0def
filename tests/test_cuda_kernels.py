"""Regions as a GPU runs them, on the CPU: every way to cut them into blocks, held against PyTorch bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kernels_harness import check_all, prepare, prepare_whole

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Source
from ldsnn_compiler.targets.cpu.kernels.dot import DOTS
from ldsnn_compiler.targets.cuda import device
from ldsnn_compiler.targets.cuda.emulate import on_cpu
from ldsnn_compiler.targets.cuda.gpu import Gpu
from ldsnn_compiler.targets.cuda.kernels import Launch, launch, region, tuned
from ldsnn_compiler.targets.emitting import for_gpu

IF = neuron("if")
GPU = Gpu("sm_90", half_tflops=1.0, byte_tops=1.0)
WHOLE = {"accumulator": "int32", "products": "int32"}
#: blocks of several positions, rows and splits, whole and not
LAUNCHES = (Launch(), Launch(tile=3, rows=4), Launch(splits=3, rows=2), Launch(tile=2, width=1, rows=3, unroll=1))


def built(how: Launch | int) -> Callable[[RegionSpec], Any]:
    """A region with that launch, or with the one chosen for as many multiprocessors."""

    def build(spec: RegionSpec) -> Any:
        with for_gpu():
            return on_cpu(region(spec, launch(spec, how) if isinstance(how, int) else how))

    return build


def conv(channels: int = 3, planes: int = 1, **options: Any) -> Source:
    """A 3x3 convolution over bits on a 5 x 6 map."""
    given = {"form": "bits", "kernel": (3, 3), "padding": (1, 1), "method": "event", **options}
    return Source("conv", channels, (5, 6), 4, planes=planes, **given)


def spec(*sources: Source, channels: int = 70, batch: int | None = 2, **options: Any) -> RegionSpec:
    """IF neurons over these sources, into bits."""
    given = {"neuron": IF, "bias": True, "output": "bits", **options}
    return tuned(RegionSpec(batch, 4, channels, (5, 6), sources, **given), GPU)


@pytest.mark.parametrize("how", LAUNCHES, ids=str)
def test_events_and_dense_in_every_launch(how: Launch) -> None:
    cases = [conv(70), conv(66, planes=2), conv(5, method="dense"), conv(3, form="dense", method="dense")]
    specs = [spec(source, channels=72) for source in cases]
    check_all([prepare(each, seed=i) for i, each in enumerate(specs)], region=built(how))


@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_shapes_in_the_launch_that_is_chosen(multiprocessors: int) -> None:
    wide = Source("conv", 130, (1, 1), 4, "bits", method="event")
    specs = [
        spec(conv(8, groups=2), channels=140),
        spec(conv(72, groups=72, method="dense"), channels=72),
        spec(conv(9, stride=(2, 1), padding=(0, 2), kernel=(2, 3), dilation=(1, 2)), channels=10),
        replace(spec(wide, channels=10, batch=None), space=(1, 1)),
        spec(conv(7), Source("identity", 70, (5, 6), 4, "bits", 2, scale=0.5), channels=70),
        spec(conv(7), Source("current", 70, (5, 6), 2), channels=70, output="dense", membrane=True),
        spec(replace(conv(7), timesteps=8), replace(conv(4), timesteps=1), channels=12, state_io=True),
        spec(conv(65), channels=9, neuron=None, output="dense"),
        spec(conv(20), channels=64, neuron=neuron("if", max_count=5, threshold=0.5, spike_value=0.5)),
    ]
    check_all([prepare(each, seed=i, batch=3) for i, each in enumerate(specs)], region=built(multiprocessors))


def test_whole_numbers() -> None:
    specs = [
        spec(replace(conv(66, planes=2), weights="int8"), channels=70, **WHOLE),
        spec(replace(conv(5, method="dense"), weights="int16"), channels=20, **WHOLE),
        spec(conv(70, planes=2, method="dense", weights="int8"), channels=12, **WHOLE),
    ]
    assert [s.dot(s.sources[0]) for s in specs] == [None, None, DOTS["dp4a"]]
    check_all([prepare_whole(each, seed=i) for i, each in enumerate(specs)], region=built(Launch(splits=2, times=2)))


@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_half_precision_on_tensor_cores(multiprocessors: int) -> None:
    half = {"method": "dense", "weights": "float16"}
    specs = [
        spec(conv(70, **half), batch=None),
        spec(conv(66, planes=3, **half), Source("identity", 20, (5, 6), 4, "bits", scale=0.5), channels=20),
        spec(replace(conv(20, **half), timesteps=8), replace(conv(17, **half), timesteps=2), channels=33),
        spec(conv(36, groups=2, stride=(2, 1), padding=(0, 1), **half), channels=40, state_io=True, membrane=True),
    ]
    assert all(s.dot(s.sources[0]) is DOTS["mma-half"] for s in specs)
    check_all([prepare(each, seed=i) for i, each in enumerate(specs)], region=built(multiprocessors))


def test_bytes_on_tensor_cores() -> None:
    byte = {"method": "dense", "weights": "int8"}
    specs = [
        spec(conv(70, planes=8, **byte), channels=70, **WHOLE),
        spec(conv(20, **byte), conv(5, method="dense", weights="int16"), channels=33, **WHOLE),
    ]
    assert all(s.dot(s.sources[0]) is DOTS["mma-byte"] for s in specs)
    check_all([prepare_whole(each, seed=i) for i, each in enumerate(specs)], region=built(Launch(3, 2, 1, 2)))


def test_half_precision_event_by_event() -> None:
    half = spec(conv(66, planes=2, weights="float16"), channels=72)
    check_all([prepare(half)], region=built(1))


@pytest.mark.parametrize("group", [2, 4])
def test_lanes_hold_what_the_instruction_set_says(group: int) -> None:
    """PTX ISA, "Matrix fragments for mma.m16n8k16" and "mma.m16n8k32": row and column of every number of a lane."""
    for lane in range(device.WARP):
        upper, lower = lane // 4, lane % 4
        for i in range(device.LEFT * group):
            row = upper + 8 * (i // group % 2)
            k = lower * group + i % group + (4 * group if i >= 2 * group else 0)
            assert device.left_place(row, k // group) == (lane, i // group) and k % group == i % group
        for i in range(device.RIGHT * group):
            k = lower * group + i % group + (4 * group if i >= group else 0)
            assert device.right_place(k // group, upper) == (lane, i // group)
        for i in range(device.SUMS):
            assert device.sum_place(upper + 8 * (i // 2), 2 * lower + i % 2) == (lane, i)


def test_a_barrier_inside_a_condition_is_refused() -> None:
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script.builder import ir as T

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        y = T.arg("y", T.buffer((4,), "float32", layout=None))
        with T.thread_binding(0, 4, thread="threadIdx.x") as thread, T.If(thread < 2), T.Then():
            T.evaluate(T.tvm_storage_sync("shared"))
            T.buffer_store(y, 0.0, [thread])
    with pytest.raises(LdsnnError, match="barrier"):
        on_cpu(builder.get())


def test_launches_fit_a_block() -> None:
    for each in (spec(conv(512), channels=512, batch=1), spec(conv(64), channels=64, batch=256)):
        for multiprocessors in (1, 68, 132, 1000):
            found = launch(each, multiprocessors)
            assert found.threads(each) <= 1024 and found.shared_bytes(each) <= 48 * 1024
