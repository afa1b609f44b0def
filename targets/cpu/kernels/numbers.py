"""Types of the numbers that kernels read, add up and write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

#: float16 is a type of weights only, of GPUs, where they are no others in it than in float32
Number = Literal["float32", "float16", "int32", "int16", "int8", "uint8"]

BYTES: Mapping[Number, int] = {"float32": 4, "float16": 2, "int32": 4, "int16": 2, "int8": 1, "uint8": 1}
#: largest number in a byte
BYTE = 255
#: least and largest number of a type, for those that hold whole numbers of unknown size; int32 holds any
LEAST: Mapping[Number, int] = {"uint8": 0, "int16": 1 - 2**15}
LARGEST: Mapping[Number, int] = {"uint8": BYTE, "int16": 2**15 - 1}
