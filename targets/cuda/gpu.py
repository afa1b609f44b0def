"""GPUs as data, and what the driver says of the one in this machine."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

from ldsnn_compiler.errors import LdsnnError, Problem

DRIVER = "libcuda.so.1"
#: of a layer on tensor cores: output channels are more than, inputs of a kernel position at least
LEAST_CHANNELS, LEAST_INPUTS = 16, 16
#: (position, timestep) pairs that a block of those kernels may have
PAIRS = (16, 32, 64, 128)
#: numbers of the driver's device attributes
_ATTRIBUTES = {"major": 75, "minor": 76, "multiprocessors": 16, "l2": 38, "shared": 81}


@dataclass(frozen=True)
class Gpu:
    """A board's GPU. ``arch`` is NVIDIA's name of its architecture (``sm_86``), ``l2_kib`` its cache for all
    multiprocessors, ``shared_kib`` and ``registers`` (of 32 bits) what a multiprocessor has for the blocks on it.

    ``l2_gbs``: what that cache delivers to all of them together, in GB/s. ``half_tflops`` and ``byte_tops``: 10**12
    multiplications and additions a second on tensor cores, of half precision summed in float32 and of bytes; 0: none.
    ``emulated``: its kernels run on the CPU, threads as loops, to be tested where there is no GPU.
    """

    arch: str
    kind: str = "cuda"
    multiprocessors: int = 1
    l2_kib: int = 4096
    shared_kib: int = 100
    registers: int = 65536
    l2_gbs: float = 1000.0
    half_tflops: float = 0.0
    byte_tops: float = 0.0
    emulated: bool = False

    def __post_init__(self) -> None:
        problems = []
        if self.kind != "cuda":
            problems.append(Problem(f"the only kind of GPU is cuda, not {self.kind!r}", "gpu", attribute="kind"))
        if not (self.arch.startswith("sm_") and self.arch[3:].isdigit() and int(self.arch[3:]) >= 70):
            problems.append(Problem(f"an architecture from sm_70 on, not {self.arch!r}", "gpu", attribute="arch"))
        if problems:
            raise LdsnnError(problems)

    def rate(self, instruction: str) -> float:
        """10**12 operations a second of an instruction of tensor cores (:data:`~.cpu.kernels.dot.DOTS`); 0: none."""
        if self.capability < 80:
            return 0.0
        return {"mma-half": self.half_tflops, "mma-byte": self.byte_tops}[instruction]

    @property
    def capability(self) -> int:
        """10 * major + minor of its compute capability."""
        return int(self.arch.removeprefix("sm_"))


@cache
def running() -> tuple[str, Gpu] | None:
    """Name and description of this machine's first CUDA device, or None where there is none or no driver."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    device, count, text = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        return None
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(text, 256, device):
        return None
    values: dict[str, int] = {}
    for name, number in _ATTRIBUTES.items():
        value = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(value), number, device):
            return None
        values[name] = value.value
    found = Gpu(
        f"sm_{values['major']}{values['minor']}",
        multiprocessors=values["multiprocessors"],
        l2_kib=values["l2"] // 1024,
        shared_kib=values["shared"] // 1024,
    )
    return text.value.decode(), found
