"""Runs a CPU region and the same region in PyTorch, on data whose sums are exact in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tvm
from tvm.target import codegen

from ldsnn_compiler.interp.neuron import initial_state, scan
from ldsnn_compiler.targets.cpu import kernels as k


@lru_cache(maxsize=1)
def host_target() -> tvm.target.Target:
    return tvm.target.Target({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu(), "num-cores": 2})


def compiled(function, target=None):
    """A PrimFunc as a callable on TVM tensors."""
    module = tvm.IRModule({"f": function.with_attr("global_symbol", "f")})
    return tvm.compile(module, target=target or host_target()).mod["f"]


def to_bits(counts: np.ndarray, planes: int) -> np.ndarray:
    """``[N, T, P, C]`` integers -> ``[N, T, planes, P, ceil(C / 64)]`` uint64."""
    padded = np.zeros((*counts.shape[:-1], k.words(counts.shape[-1]) * 64), np.uint8)
    padded[..., : counts.shape[-1]] = counts
    layers = [np.packbits((padded >> p) & 1, axis=-1, bitorder="little").view(np.uint64) for p in range(planes)]
    return np.stack(layers, axis=2)


def from_bits(words: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of :func:`to_bits`; bits past the last channel must be 0."""
    bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")
    assert not bits[..., channels:].any(), "padding bits are set"
    return sum(bits[:, :, p, :, :channels].astype(np.int64) << p for p in range(words.shape[2]))


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """``[T, N, C, H, W]`` -> ``[N, T, H * W, C]``."""
    return x.permute(1, 0, 3, 4, 2).flatten(2, 3).contiguous()


def channels_first(x: torch.Tensor, space: tuple[int, int]) -> torch.Tensor:
    """``[N, T, H * W, C]`` -> ``[T, N, C, H, W]``."""
    return x.unflatten(2, space).permute(1, 0, 4, 2, 3).contiguous()


def dyadic(rng: np.random.Generator, *shape: int, bound: int = 7) -> torch.Tensor:
    """Random quarters."""
    return torch.from_numpy(rng.integers(-bound, bound + 1, shape).astype(np.float32) / 4)


def random_source(rng: np.random.Generator, source: k.Source, batch: int, density: float) -> torch.Tensor:
    """Values ``[T, N, C, H, W]``: counts for bits, quarters otherwise."""
    shape = (source.timesteps, batch, source.channels, *source.space)
    if source.form == "dense":
        return dyadic(rng, *shape)
    active = rng.random(shape) < density
    return torch.from_numpy((active * rng.integers(1, 2**source.planes, shape)).astype(np.float32))


def source_current(spec: k.RegionSpec, source: k.Source, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """The source's current in PyTorch, ``[T, N, C, H, W]`` at the region's T."""
    if source.kind == "conv":
        pads = []
        for a in (1, 0):
            reach = (spec.space[a] - 1) * source.stride[a] + (source.kernel[a] - 1) * source.dilation[a] + 1
            pads += [source.padding[a], reach - source.space[a] - source.padding[a]]
        y = F.conv2d(F.pad(x.flatten(0, 1), pads), weight, None, source.stride, 0, source.dilation, source.groups)
        y = y.unflatten(0, x.shape[:2])
    else:
        y = x * source.scale
    if source.timesteps > spec.timesteps:
        return y.unflatten(0, (spec.timesteps, -1)).sum(1)
    return y.repeat_interleave(spec.timesteps // source.timesteps, 0)


@dataclass
class Case:
    """A region with its arguments and what PyTorch makes of them."""

    spec: k.RegionSpec
    inputs: list[np.ndarray]
    wanted: list[torch.Tensor]
    batch: int


def prepare(spec: k.RegionSpec, seed: int = 0, batch: int = 1, density: float = 0.2) -> Case:
    """Random arguments and the reference results."""
    rng = np.random.default_rng(seed)
    n = batch if spec.batch is None else spec.batch
    inputs, total = [], torch.zeros(spec.timesteps, n, spec.channels, *spec.space)
    for source in spec.sources:
        x = random_source(rng, source, n, density)
        last = channels_last(x)
        inputs.append(to_bits(last.numpy().astype(np.uint8), source.planes) if source.form == "bits" else last.numpy())
        weight = None
        if source.kind == "conv":
            weight = dyadic(rng, spec.channels, source.channels // source.groups, *source.kernel)
            inputs.append(k.pack_weights(spec, source, weight))
        total = total + source_current(spec, source, x, weight)
    if spec.bias:
        bias = dyadic(rng, spec.channels)
        inputs.append(bias.numpy())
        total = total + bias[:, None, None]
    return Case(spec, inputs, _scan(spec, rng, total, inputs), n)


def check_all(
    cases: list[Case], target: tvm.target.Target | None = None, region: Callable[[k.RegionSpec], Any] = k.region
) -> None:
    """Compile all regions (as ``region`` builds them) as one module and compare them bit for bit with PyTorch."""
    assert all(w.isfinite().all() for c in cases for w in c.wanted), "a reference trajectory diverges"
    functions = {f"f{i}": region(c.spec).with_attr("global_symbol", f"f{i}") for i, c in enumerate(cases)}
    library = tvm.compile(tvm.IRModule(functions), target=target or host_target()).mod
    for name, case in zip(functions, cases, strict=True):
        declared = k.buffers(case.spec)
        results = [_empty(b, case.batch) for b in declared if b.is_output]
        for given, b in zip(case.inputs, declared, strict=False):
            assert given.shape == tuple(case.batch if d == k.SYMBOLIC else d for d in b.shape), b
        library[name](*[tvm.runtime.tensor(np.ascontiguousarray(a)) for a in case.inputs], *results)
        for b, got, want in zip([b for b in declared if b.is_output], results, case.wanted, strict=True):
            _compare(case.spec, b, got.numpy(), want)


def _compare(spec: k.RegionSpec, b: k.BufferSpec, got: np.ndarray, want: torch.Tensor) -> None:
    if b.dtype == "uint64":
        assert spec.neuron is not None
        got = from_bits(got, spec.channels).astype(np.float32) * np.float32(spec.neuron.signal.unit)
    wrong = int((~np.isclose(got, want.numpy(), rtol=0, atol=0, equal_nan=True)).sum())
    assert wrong == 0, f"{b.name}: {wrong} of {got.size} differ, neuron {spec.neuron}, {spec.tuning}"


def check(spec: k.RegionSpec, seed: int = 0, batch: int = 1, density: float = 0.2) -> torch.Tensor:
    """Compare one region; gives what its neurons emitted."""
    case = prepare(spec, seed, batch, density)
    check_all([case])
    return case.wanted[0]


def check_many(specs: list[k.RegionSpec], seed: int = 0, batch: int = 1, density: float = 0.2) -> None:
    """Compare several regions, each with data of its own."""
    check_all([prepare(spec, seed + i, batch, density) for i, spec in enumerate(specs)])


def _empty(b: k.BufferSpec, n: int) -> tvm.runtime.Tensor:
    shape = tuple(n if d == k.SYMBOLIC else d for d in b.shape)
    rubbish = np.full(shape, np.nan if b.dtype == "float32" else 3, b.dtype)
    return tvm.runtime.tensor(rubbish)


def _scan(
    spec: k.RegionSpec, rng: np.random.Generator, x: torch.Tensor, inputs: list[np.ndarray]
) -> list[torch.Tensor]:
    if spec.neuron is None:
        return [channels_last(x)]
    params = {name: torch.tensor(v) for name, v in spec.neuron.params.items() if isinstance(v, float)}
    for name in spec.per_channel:
        value = 1 + dyadic(rng, spec.channels).abs()
        inputs.append(value.numpy())
        params[name] = value[:, None, None]
    for name in spec.per_neuron:
        value = 1 + dyadic(rng, spec.pixels, spec.channels).abs()
        inputs.append(value.numpy())
        params[name] = value.T.reshape(spec.channels, *spec.space)
    state = initial_state(spec.neuron, params, x[0])
    if spec.state_io:
        for name in state:
            value = dyadic(rng, x.shape[1], spec.pixels, spec.channels)
            inputs.append(value.numpy())
            state[name] = channels_first(value[:, None], spec.space)[0]
    values, membrane = scan(spec.neuron, params, x, state)
    found = [channels_last(values)] + ([channels_last(membrane)] if spec.membrane else [])
    return found + ([channels_last(v[None])[:, 0] for v in state.values()] if spec.state_io else [])


# ---- whole numbers


def prepare_whole(spec: k.RegionSpec, seed: int = 0, batch: int = 1, density: float = 0.2) -> Case:
    """Random whole arguments, as large as the sums' type allows, and the reference results in float64, all exact."""
    rng = np.random.default_rng(seed)
    n = batch if spec.batch is None else spec.batch
    inputs, total = [], torch.zeros(spec.timesteps, n, spec.channels, *spec.space, dtype=torch.float64)
    for source in spec.sources:
        x = _whole_values(rng, source, n, density)
        last = channels_last(x)
        in_bits = source.form == "bits"
        inputs.append(to_bits(last.numpy().astype(np.uint8), source.planes) if in_bits else _as(last, source.values))
        total = total + _whole_current(spec, source, x, rng, inputs)
    if spec.bias:
        bias = _whole(rng, 100, spec.channels)
        inputs.append(_as(bias, spec.number))
        total = total + bias[:, None, None]
    limit = 2**15 if spec.accumulator == "int16" else 2**31
    assert total.abs().max() < limit, "the reference leaves the region's type"
    return Case(spec, inputs, _whole_scan(spec, rng, total, inputs), n)


def check_whole(specs: list[k.RegionSpec], target: tvm.target.Target | None = None, **options: Any) -> None:
    """Compare regions of whole numbers, each with data of its own."""
    check_all([prepare_whole(spec, seed=i, **options) for i, spec in enumerate(specs)], target)


def _whole(rng: np.random.Generator, bound: int, *shape: int, low: int | None = None) -> torch.Tensor:
    return torch.from_numpy(rng.integers(-bound if low is None else low, bound + 1, shape).astype(np.float64))


def _as(x: torch.Tensor, dtype: str) -> np.ndarray:
    return x.numpy().astype(dtype)


def _whole_values(rng: np.random.Generator, source: k.Source, batch: int, density: float) -> torch.Tensor:
    shape = (source.timesteps, batch, source.channels, *source.space)
    if source.form == "dense":
        if source.most or source.least:
            return _whole(rng, source.most, *shape, low=source.least)
        return _whole(rng, 255, *shape, low=0) if source.values == "uint8" else _whole(rng, 100, *shape)
    return random_source(rng, source, batch, density).double()


def _whole_current(
    spec: k.RegionSpec,
    source: k.Source,
    x: torch.Tensor,
    rng: np.random.Generator,
    inputs: list[np.ndarray],
) -> torch.Tensor:
    if source.kind == "conv":
        weight = _whole(rng, _bound(spec, source, x), spec.channels, source.channels // source.groups, *source.kernel)
        inputs.append(k.pack_weights(spec, source, weight.to(getattr(torch, source.weights))))
        return source_current(spec, source, x, weight)
    if source.per_channel:
        scale = _whole(rng, 20, spec.channels)
        inputs.append(_as(scale, source.weights))
        x = x * scale[:, None, None]
    return source_current(spec, source, x, None)


def _bound(spec: k.RegionSpec, source: k.Source, x: torch.Tensor) -> int:
    """Weights whose sums over such inputs stay within the sums' type, some standard deviations wide."""
    if spec.accumulator == "int32":
        return 127
    inputs = source.taps * source.channels // source.groups * max(1, source.timesteps // spec.timesteps)
    return max(1, min(127, int(7000 / float((inputs * x.square().mean()).sqrt()))))


def _whole_scan(
    spec: k.RegionSpec, rng: np.random.Generator, x: torch.Tensor, inputs: list[np.ndarray]
) -> list[torch.Tensor]:
    if spec.neuron is None:
        return [channels_last(x)]
    places = dict(spec.ratios)
    params = {name: torch.tensor(v, dtype=torch.float64) for name, v in spec.neuron.params.items() if type(v) is float}
    for name in (*spec.per_channel, *spec.per_neuron):
        shape = (spec.channels,) if name in spec.per_channel else (spec.pixels, spec.channels)
        value = _whole(rng, 2 ** places[name] if name in places else 300, *shape, low=1)
        inputs.append(_as(value, "int32"))
        value = value / 2 ** places.get(name, 0)
        params[name] = value[:, None, None] if value.ndim == 1 else value.T.reshape(spec.channels, *spec.space)
    state = initial_state(spec.neuron, params, x[0])
    if spec.state_io:
        for name in state:
            value = _whole(rng, 200, x.shape[1], spec.pixels, spec.channels)
            inputs.append(_as(value, "int32"))
            state[name] = channels_first(value[:, None], spec.space)[0]
    values, membrane = scan(spec.neuron, params, x, state)
    found = [channels_last(values)] + ([channels_last(membrane)] if spec.membrane else [])
    return found + ([channels_last(v[None])[:, 0] for v in state.values()] if spec.state_io else [])
