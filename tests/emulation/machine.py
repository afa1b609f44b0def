"""The emulated machine: Python on a 64-bit ARM core that this machine does not have."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
EMULATOR, COMPILER = "qemu-aarch64-static", "aarch64-linux-gnu-gcc"
#: the core that is emulated unless a call names another; "max" is one with every feature
CORE = "cortex-a72"
#: the file that says that everything is there
READY = "ready"


def folder() -> Path:
    """Where the emulated machine lives: what ``LDSNN_AARCH64`` names."""
    return Path(os.environ.get("LDSNN_AARCH64", Path.home() / ".cache" / "ldsnn" / "aarch64"))


def missing() -> str:
    """What keeps this machine from emulating another, or ""."""
    lacking = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    if lacking:
        return f"not on PATH: {', '.join(lacking)}"
    return "" if (folder() / READY).is_file() else "not set up: PYTHONPATH=tests python -m emulation"


def environment(core: str = CORE) -> dict[str, str]:
    """The variables of an emulated process: this core, this checkout on the path, TVM without its compiler."""
    return {
        **os.environ,
        "QEMU_CPU": core,
        "EMULATED_PYTHONPATH": str(ROOT),
        "TVM_USE_RUNTIME_LIB": "1",
        "TVM_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def python(arguments: Sequence[str | Path], core: str = CORE, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run Python there with these arguments; output and errors are captured, a failure is left to the caller."""
    command = [str(folder() / "python"), *map(str, arguments)]
    return subprocess.run(command, env=environment(core), capture_output=True, text=True, timeout=timeout, check=False)
