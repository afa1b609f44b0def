"""What TIR borrows from LLVM, said in CUDA: kernels are written once, and run on both kinds of machine."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def register() -> None:
    """Teach TVM's CUDA code generator the LLVM intrinsics that kernels use."""
    from tvm import tirx

    tirx.register_intrin_lowering("tirx.call_llvm_pure_intrin", target="cuda", f=_lowered, level=99)


def _lowered(call: Any) -> Any:
    from tvm import tirx
    from tvm.target import codegen

    name = str(codegen.llvm_get_intrinsic_name(int(call.args[0])))
    operands = list(call.args[1:])
    match name:
        case "llvm.arithmetic.fence":  # nothing is contracted there to begin with
            return operands[0]
        case "llvm.fma":
            return tirx.call_pure_extern("float32", "__fmaf_rn", *operands)
        case "llvm.cttz":
            one = tirx.const(1, "int32")
            first = tirx.call_pure_extern("int32", "__ffsll", tirx.Cast("int64", operands[0]))
            return tirx.Cast("uint64", first - one)
    return call
