"""Every NIR node without state against PyTorch, and back into a file."""

from __future__ import annotations

from typing import Any

import nir_nets as nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend.nir import export_nir, import_nir

pytestmark = pytest.mark.nir

try:
    import nir
except ModuleNotFoundError:  # the marker skips every test of this file
    nir = None


def weight(*shape: int) -> np.ndarray:
    """Weights in eighths, so that sums are exact."""
    return np.random.default_rng(0).integers(-8, 9, shape) / 8.0


def tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(weight(*shape)).float()


def conv1d(**changed: Any) -> Any:
    given = {"input_shape": 9, "weight": weight(4, 2, 3), "stride": 2, "padding": 1, "dilation": 1, "groups": 1}
    return nir.Conv1d(bias=weight(4), **{**given, **changed})


def conv2d(**changed: Any) -> Any:
    given = {"input_shape": (6, 5), "weight": weight(4, 1, 3, 3), "stride": (1, 2), "padding": 1, "dilation": (2, 1)}
    return nir.Conv2d(bias=weight(4), groups=2, **{**given, **changed})


def pool(kind: Any) -> Any:
    return kind(np.array([2, 3]), np.array([2, 1]), np.array([1, 0]))


CASES: dict[str, tuple[Any, tuple[int, ...], Any]] = {
    "Linear": (lambda: nir.Linear(weight(3, 4)), (4,), lambda x: x @ tensor(3, 4).T),
    "Affine": (lambda: nir.Affine(weight(3, 4), weight(3)), (4,), lambda x: x @ tensor(3, 4).T + tensor(3)),
    "Scale": (lambda: nir.Scale(weight(2, 3)), (2, 3), lambda x: x * tensor(2, 3)),
    "Threshold": (lambda: nir.Threshold(np.ones(3)), (3,), lambda x: (x > 1).float()),
    "Flatten": (lambda: nir.Flatten({"input": np.array([2, 3, 4])}, 0, -1), (2, 3, 4), lambda x: x.flatten(1)),
    "Flatten some": (lambda: nir.Flatten({"input": np.array([2, 3, 4])}, 1, 2), (2, 3, 4), lambda x: x.flatten(2)),
    "Conv1d": (conv1d, (2, 9), lambda x: F.conv1d(x, tensor(4, 2, 3), tensor(4), 2, 1)),
    "Conv2d": (conv2d, (2, 6, 5), lambda x: F.conv2d(x, tensor(4, 1, 3, 3), tensor(4), (1, 2), 1, (2, 1), 2)),
    "Conv2d valid": (
        lambda: conv2d(padding="valid", dilation=1), (2, 6, 5),
        lambda x: F.conv2d(x, tensor(4, 1, 3, 3), tensor(4), (1, 2), groups=2),
    ),
    "Conv2d same": (
        lambda: conv2d(padding="same", stride=1), (2, 6, 5),
        lambda x: F.conv2d(x, tensor(4, 1, 3, 3), tensor(4), 1, "same", (2, 1), 2),
    ),
    "SumPool2d": (
        lambda: pool(nir.SumPool2d), (2, 6, 5), lambda x: 6 * F.avg_pool2d(x, (2, 3), (2, 1), (1, 0)),
    ),
    "AvgPool2d": (lambda: pool(nir.AvgPool2d), (2, 6, 5), lambda x: F.avg_pool2d(x, (2, 3), (2, 1), (1, 0))),
}  # fmt: skip


def through(node: Any, shape: tuple[int, ...], out: tuple[int, ...]) -> Any:
    """Input, the node, Output."""
    ends = {"input": nir.Input(np.array(shape)), "output": nir.Output(np.array(out))}
    return nir.NIRGraph({"n": node, **ends}, [("input", "n"), ("n", "output")], type_check=False)


@pytest.mark.parametrize("case", CASES)
def test_computes_what_pytorch_does_and_comes_back(case: str) -> None:
    make, shape, expected = CASES[case]
    x = nets.noise(2, 3, *shape)
    wanted = expected(x.flatten(0, 1)).unflatten(0, (2, 3))
    imported = import_nir(through(make(), shape, tuple(wanted.shape[2:])), 2, nets.Dt)
    assert not imported.notes
    torch.testing.assert_close(nets.run(imported.graph, x), wanted)
    written = export_nir(imported.graph, nets.Dt).graph
    torch.testing.assert_close(nets.run(written, x), wanted)


def test_padding_that_keeps_the_size_of_an_even_kernel_goes_behind() -> None:
    node = conv1d(weight=weight(4, 2, 4), padding="same", stride=1)
    x = nets.noise(2, 3, 2, 9)
    wanted = F.conv1d(F.pad(x.flatten(0, 1), (1, 2)), tensor(4, 2, 4), tensor(4)).unflatten(0, (2, 3))
    torch.testing.assert_close(nets.run(through(node, (2, 9), (4, 9)), x), wanted)


def test_a_matrix_for_each_of_several_rows() -> None:
    x = nets.noise(2, 3, 5, 4)
    found = nets.run(through(nir.Affine(weight(5, 3, 4), weight(5, 3)), (5, 4), (5, 3)), x)
    torch.testing.assert_close(found, torch.einsum("roi,tnri->tnro", tensor(5, 3, 4), x) + tensor(5, 3))


def test_thresholds_that_differ() -> None:
    x = nets.noise(2, 3, 3)
    found = nets.run(through(nir.Threshold(np.array([0.25, 0.5, 1.0])), (3,), (3,)), x)
    assert torch.equal(found, (x > torch.tensor([0.25, 0.5, 1.0])).float())


def test_axes_that_are_not_there_cannot_be_flattened() -> None:
    with pytest.raises(ImportRefused, match=r"n: Flatten: flattens axes 1 to 5 of an input of shape \(2, 3\)"):
        import_nir(through(nir.Flatten({"input": np.array([2, 3])}, 1, 5), (2, 3), (6,)), 2, nets.Dt)
