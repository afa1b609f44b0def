"""The ANN twin of a network, the same architecture with ReLU, in ONNX Runtime: float32, and int8 as ONNX Runtime's own
static quantisation makes it. Needs the packages of the extra ``bench``."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldsnn_compiler.results import measure
from ldsnn_compiler.targets.boards import board

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INPUT = "x"
TRIALS = 20
"""Rounds of the trial that decides between the forms of an int8 network."""
EXACT = 1e-3
"""ONNX Runtime's float32 scores may differ from PyTorch's by this share of the largest; more is another network."""


@dataclass(frozen=True)
class Twin:
    """A network in ONNX Runtime for inputs of one shape, on ``threads`` threads; ``note`` says how it was made."""

    session: Any
    threads: int
    note: str

    def __call__(self, x: Tensor) -> Tensor:
        """Class scores ``[N, classes]``, for N of the example that it was made with."""
        return torch.from_numpy(self.session.run(None, {INPUT: x.contiguous().numpy()})[0])

    def bound(self, x: Tensor) -> Callable[[], None]:
        """The run on ``x`` alone, inputs and outputs bound beforehand, for timing without Python around it."""
        import onnxruntime

        binding = self.session.io_binding()
        binding.bind_ortvalue_input(INPUT, onnxruntime.OrtValue.ortvalue_from_numpy(x.contiguous().numpy()))
        binding.bind_output(self.session.get_outputs()[0].name)
        return partial(self.session.run_with_iobinding, binding)


def float_twin(module: nn.Module, example: Tensor, threads: int) -> Twin:
    """``module`` (evaluation mode, one input ``[N, *shape]``) in float32.

    Raises:
        ValueError: its scores on the example are not PyTorch's.
    """
    twin = Twin(_session(_exported(module, example), threads), threads, "float32")
    with torch.no_grad():
        expected = module(example)
    if (off := relative_difference(twin(example), expected)) > EXACT:
        raise ValueError(f"ONNX Runtime's scores are {off:.1e} of the largest away from PyTorch's")
    return twin


def int8_twin(module: nn.Module, calibration: Tensor, batch: int, threads: int) -> Twin:
    """``module`` in int8: weights per channel, activations by the range they have on ``calibration`` ``[M, *shape]``,
    with or without sign, in ONNX Runtime's operators or around float ones (QDQ), whichever is fastest here.

    Where the CPU has no VNNI, weights are of 7 bits, as ONNX Runtime advises: its kernels saturate there otherwise.
    """
    example = calibration[:batch]
    model = _exported(module, example)
    samples = [x for x in calibration.split(batch) if len(x) == batch]
    made = {}
    for sign, form in product((False, True), ("QDQ", "QOperator")):
        name = f"{'S8S8' if sign else 'U8S8'}, {form}"
        quantised = _quantised(model, samples, sign, form)
        made[name] = Twin(_session(quantised, threads), threads, f"int8, {name}, per channel, static")
    times = measure({name: twin.bound(example) for name, twin in made.items()}, TRIALS)
    return made[min(made, key=lambda name: times[name].median)]


def relative_difference(scores: Tensor, reference: Tensor) -> float:
    """Largest difference of two sets of scores, as a share of the reference's largest magnitude."""
    return float((scores - reference).abs().max() / reference.abs().max())


def _exported(module: nn.Module, example: Tensor) -> Any:
    """An ``onnx.ModelProto`` with BatchNorm folded into the convolutions."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch's exporter uses what PyTorch deprecates
        program = torch.onnx.export(module, (example,), input_names=[INPUT], dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


def _quantised(model: Any, samples: list[Tensor], signed: bool, form: str) -> Any:
    """The model with every op that has an int8 kernel quantised: by QuantizeLinear and DequantizeLinear around it
    (``form`` QDQ), or as that kernel's own operator (QOperator)."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[Tensor] = iter(samples)

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            x = next(self.rest, None)
            return None if x is None else {INPUT: x.contiguous().numpy()}

    with tempfile.TemporaryDirectory() as folder:
        exported, prepared, result = (str(Path(folder, name)) for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(model, exported)
        quant_pre_process(exported, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, result, Reader(), quant_format=QuantFormat[form], per_channel=True,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8, weight_type=QuantType.QInt8,
            reduce_range="avx512vnni" not in board("native").features,
        )  # fmt: skip
        return onnx.load(result)


def _session(model: Any, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
