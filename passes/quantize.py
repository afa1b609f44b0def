"""Rewrite a network of real numbers into one of whole numbers: int8 or int16 weights, int32 sums and membranes.

Before::

    %x = input()                                            float32, real
    %c = conv2d(%x) {weight=@w, bias=@b}                    float32
    %s = neuron(%c) {neuron=if(threshold=1.0)}              float32, event(1, 0.5)
    %p = avg_pool(%s) {kernel=[2, 2]}
    %y = linear(%p) {weight=@fc}

After::

    %q = quantize(%x) {scale=0.00392, low=0, high=255}      int32
    %c = conv2d(%q) {weight=@w int8, bias=@b int32}         int32
    %s = neuron(%c) {neuron=if(threshold=@t int32, fraction=0)}      int32, event(1, 1.0)
    %p = sum_pool(%s) {kernel=[2, 2]}
    %y = linear(%p) {weight=@fc int8}
    %r = dequantize(%y) {by=@s}                             float32

The maths: a stream's numbers are its whole numbers times a scale (see ``_scales``). A layer with inputs of scale a and
a result of scale s has weights ``round(a w / s)``, half to even, and a bias ``round(b / s)``; s is the largest
``|a w|`` over ``2**(weight_bits - 1) - 1``, per output channel or per layer. Averages become sums, their divisor goes
into the scale. A neuron fed in units of s has thresholds, resets and floors divided by s; decays are multiples of
``2**-fraction`` (see :mod:`ldsnn_compiler.ir.fixed`). Where currents meet, they share s; a stream of events that joins
them is multiplied by ``round(unit / s)``. Approximate; from then on every target computes the same numbers. What is not
proved to fit int32 is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.integers import Calibration
from ldsnn_compiler.ir.bounds import Bounds, overflows
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.passes._scales import Scales
from ldsnn_compiler.passes._whole_graph import Numbers, scales_of, whole_graph
from ldsnn_compiler.passes._whole_neurons import fewer_places
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass

WEIGHT_BITS = range(2, 17)
INPUT_BITS = range(2, 17)


@register_pass
@dataclass(frozen=True)
class Quantize(Pass):
    """Whole numbers from here on; ``calibration`` is a file of input ranges, or the JSON text of one.

    ``per``: ``channel`` or ``layer``, what has a scale of its own. ``fraction``: binary places of decays; by default
    15, fewer where products then fit int32, more for slow decays.
    """

    name: ClassVar[str] = "quantize"
    exact: ClassVar[bool] = False
    calibration: str | None = None
    weight_bits: int = 8
    per: str = "channel"
    fraction: int | None = None
    input_bits: int = 8

    @classmethod
    def of(cls, calibration: Calibration, **options: Any) -> Quantize:
        """The pass for a calibration at hand, which its text then holds."""
        return cls(" ".join(calibration.text().split()), **options)

    def run(self, graph: Graph) -> bool:
        self._check(graph)
        calibration, numbers = self._ranges(), self._numbers()
        made = whole_graph(graph, numbers, calibration)
        bounds = Bounds(made)
        if problems := overflows(made, bounds):
            raise LdsnnError(problems)
        if self.fraction is None and (fewer := fewer_places(made, bounds)):
            made = whole_graph(graph, replace(numbers, fractions=fewer), calibration)
        graph.become(made)
        return True

    def scales(self, graph: Graph) -> Scales:
        """What a whole number of each value of ``graph`` stands for, once the pass has run on it.

        Raises:
            LdsnnError: the pass cannot run on this graph.
        """
        self._check(graph)
        return scales_of(graph, self._numbers(), self._ranges())

    def _ranges(self) -> Calibration:
        return Calibration() if self.calibration is None else Calibration.open(self.calibration)

    def _numbers(self) -> Numbers:
        return Numbers(self.weight_bits, self.input_bits, self.per == "channel", self.fraction)

    def _check(self, graph: Graph) -> None:
        problems = []
        if graph.stage != "scheduled":
            hint = "run assign-timesteps before it, select-kernels after it"
            problems.append(
                Problem(f"a scheduled graph is quantized, this one is {graph.stage}", graph.name, hint=hint)
            )
        if graph.numerics == "int":
            problems.append(Problem("computes whole numbers already", graph.name))
        for name, known in (("weight_bits", WEIGHT_BITS), ("input_bits", INPUT_BITS)):
            if getattr(self, name) not in known:
                message = f"is from {known[0]} to {known[-1]}, not {getattr(self, name)}"
                problems.append(Problem(message, self.name, attribute=name))
        if self.per not in ("channel", "layer"):
            problems.append(Problem(f"is channel or layer, not {self.per!r}", self.name, attribute="per"))
        if self.fraction is not None and not 1 <= self.fraction <= 24:
            problems.append(Problem(f"is from 1 to 24, not {self.fraction}", self.name, attribute="fraction"))
        if problems:
            raise LdsnnError(problems)


def with_numerics(
    passes: Iterable[Pass], graph: Graph, numerics: str | None, calibration: Calibration | str | Path | None = None,
    weight_bits: int | None = None,
) -> tuple[Pass, ...]:  # fmt: skip
    """The passes of a pipeline with the ``quantize`` that ``numerics`` ``int`` asks for, unless ``graph`` is of whole
    numbers already; one that is there gets what its text leaves out.

    Raises:
        LdsnnError: options that nothing takes, numbers that the graph no longer has, or no place for the pass.
    """
    found = list(passes)
    options: dict[str, Any] = {} if weight_bits is None else {"weight_bits": weight_bits}
    if calibration is not None:
        known = calibration if isinstance(calibration, Calibration) else Calibration.open(calibration)
        options["calibration"] = " ".join(known.text().split())
    if numerics not in (None, "fp32", "int"):
        raise LdsnnError(Problem(f"is fp32 or int, not {numerics!r}", attribute="numerics"))
    there = [i for i, each in enumerate(found) if isinstance(each, Quantize)]
    if numerics == "fp32" and (there or graph.numerics == "int"):
        raise LdsnnError(Problem("asks for fp32 of whole numbers", graph.name, attribute="numerics"))
    if numerics == "int" and not there and graph.numerics != "int":
        names = [each.name for each in found]
        if "select-kernels" not in names:
            hint = "name quantize in it, behind assign-timesteps"
            raise LdsnnError(Problem("no pass of the pipeline makes whole numbers", attribute="numerics", hint=hint))
        there = [names.index("select-kernels")]
        found.insert(there[0], Quantize())
    if options and not there:
        raise LdsnnError([Problem("needs numerics int", attribute=name) for name in options])
    for i in there:
        given = {k: v for k, v in options.items() if getattr(found[i], k) == getattr(Quantize(), k)}
        found[i] = replace(found[i], **given)
    return tuple(found)
