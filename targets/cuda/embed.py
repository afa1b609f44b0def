"""CUDA binaries inside TVM's libraries, on machines with a GPU and without.

TVM embeds what its CUDA run time makes of a kernel's source, and without that run time the source itself, which whoever
loads the library would have to compile. That run time wants a driver library. So, where there is no driver, the build
loads a stand-in whose every function says that there is no device: it lives in a temporary folder, serves this process
only, and is part of nothing that is written.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.targets.cuda import compiler

#: what TVM's CUDA run time takes from the driver
DRIVER_FUNCTIONS = (
    "cuDeviceGetName", "cuFuncSetAttribute", "cuGetErrorName", "cuGetErrorString", "cuInit", "cuLaunchKernelEx",
    "cuModuleGetFunction", "cuModuleLoadData", "cuModuleUnload", "cuTensorMapEncodeTiled",
)  # fmt: skip
NO_DEVICE = 100
DRIVER, RUNTIME = "libcuda.so.1", "libcudart.so.13"
CALLBACK = "tvm_callback_cuda_compile"


@contextmanager
def compiling(binary: Callable[[str], bytes]) -> Iterator[None]:
    """While this lasts TVM's CUDA source becomes what ``binary`` makes of it; errors of that are raised as they are."""
    import tvm_ffi

    load_runtime()
    former = tvm_ffi.get_global_func(CALLBACK, allow_missing=True)

    failed: list[LdsnnError] = []

    def compiled(source: str, *target: Any) -> bytes:
        try:
            return binary(source)
        except LdsnnError as error:
            failed.append(error)
            raise

    tvm_ffi.register_global_func(CALLBACK, compiled, override=True)
    try:
        yield
    except RuntimeError:
        if failed:
            raise failed[0] from None
        raise
    finally:
        if former is not None:
            tvm_ffi.register_global_func(CALLBACK, former, override=True)


@cache
def load_runtime() -> None:
    """Load TVM's CUDA run time into this process."""
    from tvm import libinfo
    from tvm_ffi.libinfo import load_lib_ctypes

    _load_cudart()
    try:
        ctypes.CDLL(DRIVER, ctypes.RTLD_GLOBAL)
    except OSError:
        _load_stand_in()
    try:
        load_lib_ctypes("tvm", "tvm_runtime_cuda", "RTLD_GLOBAL", extra_lib_paths=libinfo.package_lib_paths())
    except (OSError, RuntimeError) as error:
        raise LdsnnError(f"TVM's CUDA run time cannot be loaded: {str(error).splitlines()[0]}") from None


def _load_cudart() -> None:
    found = compiler.package_library(RUNTIME)
    try:
        ctypes.CDLL(str(found) if found else RUNTIME, ctypes.RTLD_GLOBAL)
    except OSError:
        problem = f"CUDA's run time {RUNTIME} is not installed"
        raise LdsnnError(Problem(problem, hint="pip install nvidia-cuda-runtime")) from None


def _load_stand_in() -> None:
    """A driver library without a driver, loaded from a folder that is gone afterwards."""
    tool = shutil.which("c++") or shutil.which("g++") or shutil.which("cc")
    if tool is None:
        raise LdsnnError("compiling for CUDA needs a C compiler, as linking any network does")
    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        source, library = Path(scratch) / "driver.c", Path(scratch) / DRIVER
        source.write_text("".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in DRIVER_FUNCTIONS))
        line = [tool, "-x", "c", "-shared", "-fPIC", f"-Wl,-soname,{DRIVER}", "-o", str(library), str(source)]
        subprocess.run(line, check=True, capture_output=True)
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
