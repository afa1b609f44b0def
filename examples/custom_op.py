"""An op of your own, in one file: clip every value to a range.

The declaration gives its attributes, how it may move in time, its meaning (PyTorch, one step) and its plain kernel (a
TVM tensor expression). Printer, parser, verifier, interpreter, compiler and `ldsnn ops` then know it.

    python examples/custom_op.py
"""

from __future__ import annotations

from typing import Any

import torch

from ldsnn_compiler.ir.op import Attr, Call, per_step_op


def _clip(call: Call, x: torch.Tensor) -> torch.Tensor:
    return x.clamp(call["low"], call["high"])


def _clip_kernel(call: Call, x: Any) -> Any:
    from tvm import te, tirx

    low, high = (tirx.const(call[k], "float32") for k in ("low", "high"))
    return te.compute(x.shape, lambda *i: tirx.min(tirx.max(x(*i), low), high), name="clip")


CLIP = per_step_op(
    "clip",
    "y = min(max(x, low), high)",
    _clip,
    kind="per_step",
    attrs={"low": Attr(float, 0.0, "least value"), "high": Attr(float, 1.0, "largest value")},
    compute=_clip_kernel,
)


def main() -> None:
    import ldsnn_compiler as ld
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.ir.text import node_text
    from ldsnn_compiler.ir.types import Stream

    graph = Graph("clipped", base_timesteps=2)
    x = graph.add("input", type=Stream(2, 1, (3,)), name="x")
    clipped = graph.add("clip", [x.result], high=0.5)
    graph.add("output", [clipped.result])
    data = torch.tensor([[-1.0, 0.25, 2.0], [0.0, 0.5, 0.75]])[:, None]
    print(node_text(clipped))
    print("compiled code agrees:", torch.equal(ld.Interpreter(graph)(data), ld.compile(graph)(data)))


if __name__ == "__main__":
    main()
