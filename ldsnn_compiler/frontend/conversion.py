"""ANN to SNN: every ReLU of a plain PyTorch network becomes an integrate-and-fire neuron.

A neuron with soft reset that is fed x for T timesteps fires about ``T x / threshold`` times, so with ``spike_value``
equal to the threshold its mean output is x, rounded to one of T levels and clipped to [0, threshold]. Values keep the
ANN's scale: weights and biases are used as they are, and no layer is normalised by the one before it. ``v_init =
threshold / 2`` turns the rounding down into rounding to nearest (Deng and Gu 2021, "Optimal conversion of
conventional artificial neural networks to spiking neural networks"; Bu et al. 2022).

What the ANN's sizes and clips are is measured on calibration data, labels are not needed: see
:mod:`ldsnn_compiler.frontend.calibration`. The image is a static input, held for T timesteps behind what comes before
the first ReLU; the result is the mean over time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction

import torch
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused, Problem
from ldsnn_compiler.frontend.bias import correct_bias
from ldsnn_compiler.frontend.calibration import Histogram
from ldsnn_compiler.frontend.rectifiers import Choose, Rectifier, front_end, integrate_and_fire
from ldsnn_compiler.frontend.tracer import import_model
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron

THRESHOLDS = ("percentile", "max", "mse")
BATCH = 50
BIAS_SAMPLES = 16
TOLERANCE = 1e-3
"""Largest difference, relative to the largest output, between the imported ANN and the model itself."""


def convert(
    ann: nn.Module,
    calibration: Tensor,
    timesteps: int,
    *,
    threshold: str = "mse",
    percentile: float = 99.9,
    bias: bool = False,
    name: str = "net",
) -> Graph:
    """Convert a ReLU network to a spiking one of ``timesteps`` uniform timesteps.

    ``nn.ReLU``, ``nn.ReLU6``, their functions and methods, and :class:`~ldsnn_compiler.frontend.qcfs.QCFS` become
    neurons; a neuron's path is that of its module, of the enclosing module and ``relu`` for a function, ``#2`` for a
    second call. QCFS needs no calibration; at one timestep it keeps its levels as graded spikes and is exact.

    Args:
        ann: as in ``eval()``; it takes one batch ``[N, ...]``.
        calibration: samples ``[N, ...]`` like those it was trained on, ready for the model.
        timesteps: T, of every layer.
        threshold: how a layer's threshold is read off its outputs: ``mse`` (in T / 4 steps, the resolution that uneven
            spikes reach: on ResNet-20 nearer to the ANN than T, T / 2 or T / 8 steps or any percentile), ``percentile``
            or ``max``.
        percentile: for ``percentile``, in %. Less clips more outputs; more makes a spike coarser.
        bias: correct biases for this T, see :mod:`ldsnn_compiler.frontend.bias`; not for use with a schedule.
        name: name of the graph.

    Raises:
        ImportRefused: listing everything that cannot be converted.
    """
    _check_arguments(ann, calibration, timesteps, threshold, percentile)
    rectifiers: dict[str, Rectifier] = {}
    conventional = _import(ann, calibration, 1, name, _recording(rectifiers))
    _check_neurons(conventional, rectifiers)
    _check_same(ann, conventional, calibration[:BATCH])
    measured = _measure(conventional, calibration, {p for p, r in rectifiers.items() if r.levels is None})
    read = _reader(threshold, percentile, timesteps)
    cells = {path: _neuron(r, path, timesteps, read, measured.get(path)) for path, r in rectifiers.items()}
    graph = _import(ann, calibration, timesteps, name, lambda path, _: cells[path])
    _average_outputs(graph)
    if bias:
        samples = calibration[:BIAS_SAMPLES].float()
        correct_bias(graph, samples, _outputs(conventional, samples))
    graph.prune_tensors()
    _note_max_pools(graph)
    return graph


def _check_arguments(ann: object, calibration: object, timesteps: object, threshold: str, percentile: float) -> None:
    problems = []
    if not isinstance(ann, nn.Module):
        problems.append(Problem(f"a torch.nn.Module is needed, not {type(ann).__name__}", where="the model"))
    if not isinstance(calibration, Tensor) or not calibration.is_floating_point() or calibration.ndim < 2:
        problems.append(Problem("a floating-point tensor [N, ...] is needed", where="calibration"))
    elif not calibration.numel() or not bool(torch.isfinite(calibration).all()):
        problems.append(Problem("is empty or holds NaN or infinity", where="calibration"))
    if not isinstance(timesteps, int) or isinstance(timesteps, bool) or timesteps < 1:
        problems.append(Problem(f"a positive whole number is needed, not {timesteps!r}", where="timesteps"))
    if threshold not in THRESHOLDS:
        problems.append(Problem(f"is one of {', '.join(THRESHOLDS)}, not {threshold!r}", where="threshold"))
    if not 0 < percentile <= 100:
        problems.append(Problem(f"is above 0 and at most 100, not {percentile}", where="percentile"))
    if problems:
        raise ImportRefused(problems)


# ---- the network as it is


def _import(ann: nn.Module, calibration: Tensor, timesteps: int, name: str, choose: Choose) -> Graph:
    result = import_model(ann, calibration[:2].float(), timesteps, name=name, extra=(front_end(choose),))
    if result.problems:
        raise ImportRefused(result.problems)
    if timesteps > 1:
        for note in result.notes:
            warnings.warn(str(note), stacklevel=3)
    return result.graph


def _recording(rectifiers: dict[str, Rectifier]) -> Choose:
    def choose(path: str, rectifier: Rectifier) -> Neuron:
        rectifiers[path] = rectifier
        return rectifier.conventional

    return choose


def _check_neurons(graph: Graph, rectifiers: Mapping[str, Rectifier]) -> None:
    spiking = [n for n in graph.of("neuron") if n.path not in rectifiers]
    hint = "import it with ld.trace"
    problems = [
        Problem("is a spiking neuron already", where=n.path, kind=n["neuron"].template, hint=hint) for n in spiking
    ]
    if not rectifiers:
        problems.append(Problem("has no ReLU to convert", where="the model", hint="" if spiking else "use nn.ReLU"))
    if problems:
        raise ImportRefused(problems)


def _check_same(ann: nn.Module, graph: Graph, x: Tensor) -> None:
    """The imported ANN computes what the model does (an in-place ReLU whose input is used again would show here)."""
    with torch.no_grad(), _evaluation(ann):
        wanted, found = ann(x.float()), Interpreter(graph).run(x.float()[None])[0][0]
    if not isinstance(wanted, Tensor):
        return
    error = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1e-12))
    if not error <= TOLERANCE:
        message = f"computes something else than its import (off by {error:.1%})"
        hint = "a tensor changed in place and used again, or an input that decides what is computed, cannot be followed"
        raise ImportRefused(Problem(message, where="the model", hint=hint))


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Within, the model is in evaluation mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


# ---- thresholds


def _measure(graph: Graph, calibration: Tensor, paths: set[str]) -> dict[str, Histogram]:
    """Histograms of the outputs of the rectifiers at ``paths``."""
    found = {path: Histogram() for path in paths}

    def observe(node: Node, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        if node.op.name == "neuron" and node.path in found:
            found[node.path].observe(outputs[0])

    if found:
        interpreter = Interpreter(graph)
        interpreter.observers.append(observe)
        with torch.no_grad():
            for batch in calibration.split(BATCH):
                interpreter.run(batch.float()[None])
    return found


def _outputs(graph: Graph, samples: Tensor) -> dict[str, Tensor]:
    """Outputs ``[N, *shape]`` of an ANN's rectifiers, by path."""
    found: dict[str, Tensor] = {}
    interpreter = Interpreter(graph)
    interpreter.observers.append(lambda node, _, outputs: found.update({node.path: outputs[0][0]}))
    with torch.no_grad():
        interpreter.run(samples[None])
    return {node.path: found[node.path] for node in graph.of("neuron")}


def _reader(threshold: str, percentile: float, timesteps: int) -> Callable[[Histogram], float]:
    if threshold == "max":
        return lambda histogram: histogram.largest
    if threshold == "mse":
        return lambda histogram: histogram.least_error(max(1, timesteps // 4))
    # A percentile among the zeros of a sparse layer says nothing about its outputs; the largest one does.
    return lambda histogram: histogram.quantile(percentile) or histogram.largest


def _neuron(
    rectifier: Rectifier, path: str, timesteps: int, read: Callable[[Histogram], float], histogram: Histogram | None
) -> Neuron:
    if histogram is None:
        assert rectifier.ceiling is not None
        return rectifier.graded if timesteps == 1 else integrate_and_fire(rectifier.ceiling)
    threshold = read(histogram)
    if not threshold:
        warnings.warn(f"{path}: no calibration sample activates it, so its threshold is set to 1", stacklevel=4)
    return integrate_and_fire(threshold or 1.0)


# ---- the network as it becomes


def _average_outputs(graph: Graph) -> None:
    """Outputs become their mean over the run, without a time axis."""
    for output in graph.outputs:
        value = output.operands[0]
        with graph.edit():
            if value.type.timesteps > 1:
                duration = Fraction(graph.base_timesteps)
                graph.insert(
                    "resample", value, users=[(output, 0)], name=f"{output.name}.mean", dt=duration, mode="mean"
                )
            graph.set_attrs(output, time="squeeze")


def _note_max_pools(graph: Graph) -> None:
    for node in graph.of("max_pool"):
        if node.type.timesteps > 1:
            text = "takes the largest value of each timestep, which overestimates the largest mean"
            warnings.warn(f"{node.path}: {text} (average pooling is exact)", stacklevel=3)
