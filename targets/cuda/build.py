"""From a Relax module whose functions have threads to an executable with a fat binary inside."""

from __future__ import annotations

from functools import partial
from typing import Any

from ldsnn_compiler.targets.boards import Board, architectures
from ldsnn_compiler.targets.cuda import compiler, device, embed, emulate, intrinsics, resources
from ldsnn_compiler.targets.cuda.gpu import Gpu


def compiled(module: Any, board: Board) -> Any:
    """TVM's executable, for every GPU that boards know and, through PTX, for later ones."""
    import tvm

    assert board.gpu is not None
    if board.gpu.emulated:
        return tvm.compile(_on_cpu(module), target=board.target())
    intrinsics.register()
    config = {"relax.backend.use_cuda_graph": True}
    with embed.compiling(partial(_binary, board.gpu)), tvm.transform.PassContext(config=config):
        return tvm.compile(module, target=board.target(), relax_pipeline=pipeline())


def _binary(gpu: Gpu, source: str) -> bytes:
    """The fat binary, for kernels that fit the board's GPU."""
    whole, needs = device.completed(source), device.since(source)
    found = resources.resources(compiler.cubin(whole, gpu.arch))
    resources.check(found, resources.threads(source), gpu)
    able = [arch for arch in architectures() if int(arch.removeprefix("sm_")) >= needs]
    return compiler.fat_binary(whole, able)


def _on_cpu(module: Any) -> Any:
    from tvm import tirx

    for name, function in list(module.functions_items()):
        if isinstance(function, tirx.PrimFunc):
            module.update_func(name, emulate.on_cpu(function))
    return module


def pipeline() -> Any:
    """TVM's passes from Relax to its virtual machine, without those that schedule: every function has its threads.

    Memory is planned, and where shapes are known all launches between input and output are replayed as one CUDA graph.
    """
    import tvm
    from tvm import relax

    passes = [
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.RewriteCUDAGraph(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]

    return tvm.transform.Sequential(passes)
