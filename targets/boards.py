"""Boards: machines as data. Lowering asks a board what it can do (``vector_bits``, ``has``), never what it is called.

The built-in ones are in ``boards.toml``; a plug-in adds its own with :func:`register_board`. ``native`` is the machine
this process runs on.
"""

from __future__ import annotations

import ctypes
import os
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.targets.cuda import gpu as cuda
from ldsnn_compiler.targets.cuda.gpu import Gpu

#: CPU features by architecture that code generators use unasked, beyond what every CPU of it has (SSE2, NEON): what a
#: machine must have to run code made for another
CPU_FEATURES: Mapping[str, tuple[str, ...]] = {
    "x86_64": (
        "avx", "avx2", "avxvnni", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "gfni",
        "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
        "avx512bf16", "avx512bitalg", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512vpopcntdq",
    ),
    "aarch64": (
        "aes", "bf16", "complxnum", "crc", "dotprod", "fp16fml", "fullfp16", "i8mm", "jsconv", "lse", "rcpc", "rdm",
        "sha2", "sha3", "sve", "sve2",
    ),
}  # fmt: skip
#: widths of vector registers that there are
VECTOR_BITS = (128, 256, 512, 1024, 2048)
#: the target's name of this machine's GPU
CUDA = "cuda"
_LINUX_NAMES = {"abm": "lzcnt", "bmi1": "bmi"}
#: feature to (entry of the auxiliary vector, bit): HWCAP and HWCAP2 of Linux on aarch64
_HWCAP, _HWCAP2 = 16, 26
_CAPABILITIES = {
    "aes": (_HWCAP, 3), "sha2": (_HWCAP, 6), "crc": (_HWCAP, 7), "lse": (_HWCAP, 8), "fullfp16": (_HWCAP, 10),
    "rdm": (_HWCAP, 12), "jsconv": (_HWCAP, 13), "complxnum": (_HWCAP, 14), "rcpc": (_HWCAP, 15),
    "sha3": (_HWCAP, 17), "dotprod": (_HWCAP, 20), "sve": (_HWCAP, 22), "fp16fml": (_HWCAP, 23),
    "sve2": (_HWCAP2, 1), "i8mm": (_HWCAP2, 13), "bf16": (_HWCAP2, 14),
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What ``select-kernels`` reckons with, in nanoseconds on one core (``region_us`` in microseconds).

    ``row_ns``: adding one weight vector of 16 float32 lanes for one spike; ``spike_ns``: finding one set bit;
    ``neuron_ns``: one neuron evaluation; ``multiply_ns``: one multiply-add of the dense kernel; ``region_us``: entering
    a region. ``whole_row_ns`` and ``whole_multiply_ns``: the same of whole numbers with int8 weights; 16 of a row are
    half a vector of int16, and products four at a time where the machine has such an instruction.
    """

    row_ns: float = 0.6
    spike_ns: float = 0.5
    neuron_ns: float = 0.8
    multiply_ns: float = 0.04
    region_us: float = 2.0
    whole_row_ns: float = 0.3
    whole_multiply_ns: float = 0.04


@dataclass(frozen=True)
class Board:
    """A machine to compile for. Cache sizes in KiB (``l3_kib`` shared by all cores), ``vector_bits`` the widest
    register; generated code uses those of :data:`CPU_FEATURES` that ``features`` lists, whatever the CPU model has.

    With a ``gpu`` networks run there, and the rest describes the machine that holds it; ``cost`` is then per
    multiprocessor.
    """

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    cores: int = 1
    vector_bits: int = 128
    l1_kib: int = 32
    l2_kib: int = 256
    l3_kib: int = 4096
    cost: Cost = field(default_factory=Cost)
    gpu: Gpu | None = None
    doc: str = ""

    def __post_init__(self) -> None:
        at, sizes = f"board {self.name!r}", ("cores", "l1_kib", "l2_kib", "l3_kib")
        wrong = {k: getattr(self, k) for k in sizes if type(getattr(self, k)) is not int or getattr(self, k) < 1}
        problems = [Problem(f"a whole number from 1, not {v!r}", at, attribute=k) for k, v in wrong.items()]
        if self.vector_bits not in VECTOR_BITS:
            known = ", ".join(map(str, VECTOR_BITS))
            problems.append(Problem(f"one of {known}, not {self.vector_bits!r}", at, attribute="vector_bits"))
        if problems:
            raise LdsnnError(problems)

    @property
    def architecture(self) -> str:
        """What the triple starts with: ``x86_64``, ``aarch64``."""
        return self.triple.split("-")[0]

    @property
    def is_foreign(self) -> bool:
        """Whether it is of another architecture than the running machine."""
        return self.architecture != platform.machine()

    def has(self, feature: str) -> bool:
        """Whether generated code may use this CPU feature (LLVM's name)."""
        return feature in self.features

    def lanes(self, bits: int = 32) -> int:
        """Numbers of that many bits in one vector register."""
        return self.vector_bits // bits

    def target(self, threads: int | None = None) -> Any:
        """The TVM target; ``threads`` defaults to the board's cores."""
        import tvm

        config: dict[str, Any] = {"kind": "llvm", "mcpu": self.cpu, "num-cores": threads or self.cores}
        if unused := self.unused():
            config["mattr"] = [f"-{name}" for name in unused]
        if self.triple and self.is_foreign:
            config["mtriple"] = self.triple
        if self.gpu is None or self.gpu.emulated:
            return tvm.target.Target(config)
        limits = {"max_threads_per_block": 1024, "max_shared_memory_per_block": 48 * 1024, "thread_warp_size": 32}
        return tvm.target.Target({"kind": self.gpu.kind, "arch": self.gpu.arch, **limits}, host=config)

    def unused(self) -> tuple[str, ...]:
        """Features that the CPU model has and generated code must leave alone: those not listed in ``features``."""
        known = CPU_FEATURES.get(self.architecture, ())
        model = _model_features(self.cpu, self.triple) if known else frozenset()
        return tuple(f for f in known if f in self.without or (f in model and f not in self.features))

    def missing(self) -> tuple[str, ...]:
        """Features that code for this board needs and the running machine lacks."""
        if self.is_foreign:
            return (self.architecture,)
        lacking = tuple(f for f in self.features if f not in running_features())
        return lacking if self.gpu is None or self.gpu.emulated else (*lacking, *_missing_gpu())

    def to_json(self) -> dict[str, Any]:
        """Plain data: what a bundle's manifest says about its machine."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Board:
        """The board that :meth:`to_json` wrote."""
        return _board(values["name"], {k: v for k, v in values.items() if k != "name"}, "manifest.json")


_BOARDS: dict[str, Board] = {}


def register_board(board: Board) -> Board:
    """Make a board known by its name; another board of that name is an error."""
    _load_builtin()
    if board.name in ("native", CUDA) or _BOARDS.get(board.name, board) != board:
        raise LdsnnError(f"a board named {board.name!r} is registered already")
    _BOARDS[board.name] = board
    return board


def boards() -> Mapping[str, Board]:
    """All boards by name, ``native`` and those of installed plug-ins among them."""
    from ldsnn_compiler.pipeline.plugins import load_entry_points

    _load_builtin()
    load_entry_points("ldsnn_compiler.targets")
    gpu = native_gpu()
    return {**dict(sorted(_BOARDS.items())), "native": native(), **({CUDA: gpu} if gpu else {})}


def board(name: str | Board) -> Board:
    """The board of that name; a :class:`Board` passes through."""
    if isinstance(name, Board):
        return name
    known = boards()
    if name == CUDA and name not in known:
        hint = f"name the card to compile for: {', '.join(k for k, b in known.items() if b.gpu)}"
        raise LdsnnError(Problem("this machine has no CUDA device", where=name, hint=hint))
    if name not in known:
        raise LdsnnError(f"unknown target {name!r}, known are {', '.join(known)}")
    return known[name]


def read_boards(text: str, source: str = "boards.toml") -> tuple[Board, ...]:
    """Boards from TOML text, one table each; unknown keys and wrong types are errors that name the board."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LdsnnError(f"{source}: {error}") from None
    return tuple(_board(name, table, source) for name, table in tables.items())


def _board(name: str, table: Mapping[str, Any], source: str) -> Board:
    known = {f.name for f in fields(Board)} - {"name"}
    unknown = sorted(set(table) - known)
    if unknown:
        raise LdsnnError(f"{source}: board {name!r} has no setting {', '.join(unknown)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    try:
        values["cost"] = Cost(**table.get("cost", {}))
        if table.get("gpu") is not None:
            values["gpu"] = Gpu(**table["gpu"])
        return Board(name, **values)
    except TypeError as error:
        raise LdsnnError(f"{source}: board {name!r}: {error}") from None


@cache
def _load_builtin() -> None:
    path = Path(__file__).with_name("boards.toml")
    for entry in read_boards(path.read_text(), path.name):
        _BOARDS[entry.name] = entry


@cache
def running_features() -> frozenset[str]:
    """The running machine's CPU features, by LLVM's names; hypervisors may hide some that its model would have."""
    return _hardware_capabilities() if platform.machine() == "aarch64" else _cpuinfo_flags()


def _cpuinfo_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset(_model_features(_system_cpu()))
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return frozenset(_LINUX_NAMES.get(flag, flag.replace("_", "")) for flag in flags)


def _hardware_capabilities() -> frozenset[str]:
    """What Linux tells an aarch64 process of its core; /proc/cpuinfo may speak of another (under emulation it does)."""
    ask = ctypes.CDLL(None).getauxval
    ask.argtypes, ask.restype = [ctypes.c_ulong], ctypes.c_ulong
    words = {entry: ask(entry) for entry, _ in _CAPABILITIES.values()}
    return frozenset(name for name, (entry, bit) in _CAPABILITIES.items() if words[entry] >> bit & 1)


@cache
def native() -> Board:
    """The machine this process runs on: its CPU, the features it shows, the cores this process may use."""
    _load_builtin()
    cpu = _system_cpu()
    like = next((b for b in _BOARDS.values() if b.cpu == cpu), None)
    model, running = _model_features(cpu), running_features()
    known = CPU_FEATURES.get(platform.machine(), ())
    features = tuple(f for f in known if f in model and f in running)
    bits = 512 if "avx512f" in features else 256 if "avx2" in features else 128
    described = like or Board("native", "", cpu, vector_bits=bits, cost=_generic_cost(bits))
    sizes: dict[str, Any] = dict(_caches())
    return replace(
        described,
        name="native",
        triple=f"{platform.machine()}-unknown-linux-gnu",
        features=features,
        without=tuple(f for f in known if f in model and f not in running),
        cores=len(os.sched_getaffinity(0)),
        vector_bits=bits,
        doc=f"the machine this process runs on ({cpu})",
        **sizes,
    )


@cache
def native_gpu() -> Board | None:
    """This machine with its first CUDA device, if it has one: its cost is that of the likest board."""
    found = cuda.running()
    if found is None:
        return None
    _load_builtin()
    name, gpu = found
    like = min(
        (b for b in _BOARDS.values() if b.gpu), key=lambda b: abs(b.gpu.capability - gpu.capability) if b.gpu else 0
    )
    rates = {k: getattr(like.gpu, k) for k in ("l2_gbs", "half_tflops", "byte_tops")}
    return replace(
        native(), name=CUDA, gpu=replace(gpu, **rates), cost=like.cost, doc=f"the GPU of this machine ({name})"
    )


def architectures() -> tuple[str, ...]:
    """Of every GPU that a board has, and of this machine's: what a library holds machine code for."""
    _load_builtin()
    known = {b.gpu.arch for b in _BOARDS.values() if b.gpu is not None and not b.gpu.emulated}
    found = cuda.running()
    return tuple(sorted(known | ({found[1].arch} if found else set())))


def _missing_gpu() -> tuple[str, ...]:
    found = cuda.running()
    if found is None:
        return ("a CUDA device",)
    _load_builtin()
    lowest = min((b.gpu for b in _BOARDS.values() if b.gpu is not None), key=lambda gpu: gpu.capability)
    return () if found[1].capability >= lowest.capability else (f"a CUDA device of {lowest.arch} or later",)


def _generic_cost(vector_bits: int) -> Cost:
    if platform.machine() == "aarch64":
        return _BOARDS["aarch64"].cost
    return _BOARDS["x86-64-v4" if vector_bits == 512 else "x86-64-v3"].cost


def _system_cpu() -> str:
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu())


@cache
def _model_features(cpu: str, triple: str = "") -> frozenset[str]:
    """What LLVM knows of a CPU model; without a triple it is one of this machine's architecture."""
    import tvm
    from tvm.target import codegen

    config = {"kind": "llvm", "mcpu": cpu, **({"mtriple": triple} if triple else {})}
    with tvm.target.Target(config) as target:
        return frozenset(str(f) for f in codegen.llvm_get_cpu_features(target))


def _caches() -> dict[str, int]:
    sizes: dict[str, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / f).read_text().strip() for f in ("level", "type", "size"))
        if kind != "Instruction" and size.endswith("K") and level in "123":
            sizes[f"l{level}_kib"] = int(size[:-1])
    return sizes
