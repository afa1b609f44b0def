"""Back ends: what the compiler knows of the machines it compiles for, and how a placed graph becomes code.

``boards`` describes machines as data, ``plan`` is what lowering produces, ``lower`` makes a plan from a graph and
``build`` turns a plan into a library. ``cpu`` holds the kernels for CPUs.
"""

if not __name__.startswith("ldsnn_compiler."):
    raise ImportError("import this as ldsnn_compiler.targets, a second copy of its classes would not be recognised")

from ldsnn_compiler.targets.boards import Board, board, boards, register_board

__all__ = ["Board", "board", "boards", "register_board"]
