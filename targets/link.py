"""Linking a library for a board that need not be this machine: TVM's own way here, a cross compiler for the rest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.targets.boards import Board


def export(module: Any, path: str, board: Board | None) -> None:
    """Write TVM's executable ``module``, compiled for ``board`` (None: this machine), as a shared library."""
    if board is not None and board.is_foreign:
        module.export_library(path, fcompile=_Linker(cross_compiler(board), board.triple))
    else:
        module.export_library(path)


def cross_compiler(board: Board) -> tuple[str, ...]:
    """A C compiler command for a board of another architecture: Debian's cross compiler, or Zig from a Python package.

    Raises:
        LdsnnError: there is neither; it says what to install.
    """
    system = f"{board.architecture}-linux-gnu"
    for name in (f"{system}-gcc", f"{system}-g++"):
        if shutil.which(name):
            return (name,)
    if find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "cc", "-target", system)
    message = f"compiling for {board.name} needs a cross compiler for {board.architecture}"
    hint = f"apt install gcc-{system.replace('_', '-')}, or pip install ziglang"
    raise LdsnnError(Problem(message, hint=hint))


class _Linker:
    """What ``export_library`` calls to join objects; its attributes tell TVM what comes out."""

    output_format = "so"

    def __init__(self, command: Sequence[str], triple: str) -> None:
        self.command, self.get_target_triple = tuple(command), lambda: triple

    def __call__(self, output: str, objects: Sequence[str], options: Sequence[str] | None = None, **_: Any) -> None:
        command = [*self.command, "-shared", "-fPIC", "-o", output, *objects, *(options or ())]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            message = f"{' '.join(self.command)} cannot link the library: {(made.stderr or made.stdout).strip()}"
            raise LdsnnError(Problem(message.splitlines()[0], hint=message.splitlines()[-1]))
