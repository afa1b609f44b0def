"""Instructions that multiply neighbouring narrow numbers and add the products to an int32: what dense layers in whole
numbers are made of where a machine has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ldsnn_compiler.targets.cpu.kernels.numbers import Number


@dataclass(frozen=True)
class Dot:
    """``sums[i] += values[g i] * weights[g i] + ... + values[g i + g - 1] * weights[g i + g - 1]``, g = ``group``.

    ``values`` and ``weights`` are the types, ``least`` and ``largest`` the least and largest input. ``intrinsic`` is
    LLVM's name by int32 lanes; it takes the sums first, unless ``adds`` says that they are to be added to what it
    gives. ``needs``: the CPU feature that it takes, by lanes.

    Those of GPUs read bits, and groups of weights as words of 32 bits. ``depth``: inputs that they multiply at once, of
    a kernel position; weights are packed for whole ones, 0 where there is no input. ``is_matrix``: by a warp together.
    """

    group: int
    values: Number
    weights: Number
    least: int
    largest: int
    intrinsic: Mapping[int, str]
    needs: Mapping[int, str]
    adds: bool = False
    depth: int = 0
    is_matrix: bool = False

    def shift(self, low: int, high: int) -> int | None:
        """What is added to inputs from ``low`` to ``high``, and to the 0 of padding, so that all of them are inputs of
        it; None if nothing does.

        0 if they are already. Else the least of them becomes the least that it takes, and the sums are corrected by
        as many times the weights: in whole numbers exact.
        """
        low, high = min(low, 0), max(high, 0)
        if self.least <= low and high <= self.largest:
            return 0
        return self.least - low if high - low <= self.largest - self.least else None

    @property
    def in_words(self) -> bool:
        """Whether weights are packed into words of 32 bits."""
        return self.depth > 0


_VNNI = {n: f"llvm.x86.avx512.vpdpbusd.{32 * n}" for n in (4, 8, 16)}
_MADD = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}

#: by the names that :class:`~.spec.Tuning` lists, the best first
DOTS: Mapping[str, Dot] = {
    "vpdpbusd": Dot(4, "uint8", "int8", 0, 255, _VNNI, {4: "avx512vnni", 8: "avx512vnni", 16: "avx512vnni"}),
    "vex-vpdpbusd": Dot(4, "uint8", "int8", 0, 255, _VNNI, {4: "avxvnni", 8: "avxvnni"}),
    "sdot": Dot(4, "int8", "int8", -128, 127, {4: "llvm.aarch64.neon.sdot.v4i32.v16i8"}, {4: "dotprod"}),
    "pmaddwd": Dot(2, "int16", "int16", 1 - 2**15, 2**15 - 1, _MADD, {8: "avx2", 16: "avx512bw"}, adds=True),
    "mma-half": Dot(2, "float16", "float16", 0, 1023, {}, {}, depth=16, is_matrix=True),
    "mma-byte": Dot(4, "uint8", "int8", 0, 255, {}, {}, depth=32, is_matrix=True),
    "dp4a": Dot(4, "uint8", "int8", 0, 255, {}, {}, depth=4),
}


def dots(has: Callable[[str], bool], lanes: int) -> tuple[str, ...]:
    """Names of the instructions that a machine with the features ``has`` can use on vectors of that many int32."""
    return tuple(name for name, dot in DOTS.items() if lanes in dot.needs and has(dot.needs[lanes]))
