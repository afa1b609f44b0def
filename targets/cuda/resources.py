"""What kernels need of a GPU, read from their machine code: registers, shared and local memory.

A cubin is an ELF file. ``.nv.info`` lists the registers of every kernel and its stack frame, in local memory, which is
where registers are spilled to; the size of the kernel's ``.nv.shared`` section is the shared memory of a block.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.targets.cuda.gpu import Gpu

#: attributes of .nv.info, each a pair of words: a symbol's number and its stack frame's bytes, or its registers
_FRAME_SIZE, _REGISTERS = 0x11, 0x2F
_MOST_SHARED = 48 * 1024
_MOST_REGISTERS = 255
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Resources:
    """Of one kernel. ``registers`` and ``local_bytes`` per thread, ``shared_bytes`` per block."""

    kernel: str
    registers: int
    shared_bytes: int
    local_bytes: int


@dataclass(frozen=True)
class _Section:
    name: str
    content: bytes
    size: int


def resources(cubin: bytes) -> tuple[Resources, ...]:
    """Of every kernel in a cubin, by name."""
    sections = {s.name: s for s in _sections(cubin)}
    symbols = _symbols(sections[".symtab"].content, sections[".strtab"].content)
    listed = {(kind, symbols.get(number, "")): n for kind, number, n in _attributes(sections[".nv.info"].content)}
    found = []
    for kernel in sorted(name.removeprefix(".text.") for name in sections if name.startswith(".text.")):
        shared = sections.get(f".nv.shared.{kernel}")
        found.append(
            Resources(
                kernel,
                registers=listed[_REGISTERS, kernel],
                shared_bytes=shared.size if shared is not None else 0,
                local_bytes=listed.get((_FRAME_SIZE, kernel), 0),
            )
        )
    return tuple(found)


def threads(source: str) -> dict[str, int]:
    """Threads of a block of every kernel, from the bounds that TVM writes into CUDA source."""
    return {name: int(count) for count, name in re.findall(r"__launch_bounds__\((\d+)\)\s+(\w+)", source)}


def check(found: tuple[Resources, ...], threads: Mapping[str, int], gpu: Gpu) -> None:
    """Raise if a block of some kernel, of that many threads, does not fit the GPU; all such kernels at once."""
    problems = []
    for each in found:
        wanted = _rounded(each.registers) * threads.get(each.kernel, 1)
        limits = (
            ("registers of a thread", each.registers, _MOST_REGISTERS),
            ("registers of a block", wanted, gpu.registers),
            ("bytes of shared memory", each.shared_bytes, min(_MOST_SHARED, gpu.shared_kib * 1024)),
        )
        problems += [
            Problem(f"needs {need} {what}, {gpu.arch} has {have}", where=each.kernel)
            for what, need, have in limits
            if need > have
        ]
    if problems:
        raise LdsnnError(problems)


def _rounded(registers: int) -> int:
    """As they are allotted to a thread: by eights."""
    return -(-registers // 8) * 8


def _sections(elf: bytes) -> Iterator[_Section]:
    if elf[:4] != b"\x7fELF":
        raise LdsnnError("not a cubin: it is no ELF file")
    start, (size, count, names_at) = struct.unpack_from("<Q", elf, 40)[0], struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, start + i * size) for i in range(count)]
    names = elf[headers[names_at][4] :]
    for name, kind, _, _, offset, length, *_ in headers:
        is_empty = kind == 8  # NOBITS: shared memory, that no byte of the file stands for
        yield _Section(_text(names, name), b"" if is_empty else elf[offset : offset + length], length)


def _symbols(table: bytes, names: bytes) -> dict[int, str]:
    return {i: _text(names, entry[0]) for i, entry in enumerate(_SYMBOL.iter_unpack(table))}


def _attributes(info: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, symbol, number) of every attribute that is a pair. One is its format, its kind, and a value or a size."""
    at = 0
    while at + 4 <= len(info):
        form, kind, value = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != 4:
            continue
        if value == 8:
            number, count = struct.unpack_from("<II", info, at)
            yield kind, number, count
        at += value


def _text(names: bytes, at: int) -> str:
    return names[at : names.index(0, at)].decode()
