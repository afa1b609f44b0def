"""Counting the instructions that a program executes on a 64-bit ARM core, without one: an emulated core (Unicorn) that
reports every basic block it enters.

A block of 4-byte instructions runs whole once it is entered, so instructions are the sizes of the entered blocks over
four, and each block belongs to the function whose symbol stands before it. The program is an ordinary statically linked
ELF file for Linux; of the operating system there is what such a program asks for at its start, to read the files that
its arguments name, to print, and at its end. Counts do not depend on the machine that emulates, and say nothing about
cycles: caches, issue width and latencies are not modelled.

Needs the extra ``count``.
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from unicorn import UC_ARCH_ARM64, UC_HOOK_BLOCK, UC_HOOK_CODE, UC_HOOK_INTR, UC_MODE_ARM, Uc, UcError
from unicorn import arm64_const as arm

PAGE = 0x1000
STACK, STACK_BYTES = 0x7F_0000_0000, 8 << 20
HEAP, HEAP_BYTES = 0x10_0000_0000, 256 << 20
SYSTEM_CALL = 2
"""The exception that the instruction SVC raises."""
FLOATING_POINT = 3 << 20
"""CPACR_EL1.FPEN: vector instructions are not trapped."""
FIRST_FILE = 3
NOT_THERE, NO_SUCH_CALL, NO_TERMINAL = -2, -38, -25
ALL_FEATURES = "max"
CORES = {
    ALL_FEATURES: arm.UC_CPU_ARM64_MAX,
    "cortex-a72": arm.UC_CPU_ARM64_A72,
    "cortex-a57": arm.UC_CPU_ARM64_A57,
    "cortex-a53": arm.UC_CPU_ARM64_A53,
}


@dataclass(frozen=True)
class Counted:
    """What a run executed: instructions by function, what it printed, and its exit status.

    ``parts`` are the calls of the functions that were marked, in order, with all instructions until the next one.
    """

    instructions: Mapping[str, int]
    parts: Sequence[tuple[str, int]]
    printed: bytes
    status: int

    @property
    def total(self) -> int:
        """Instructions of all functions."""
        return sum(self.instructions.values())


def count(
    program: Path, arguments: Sequence[str] = (), core: str = ALL_FEATURES, marked: Collection[str] = (),
    singly: bool = False,
) -> Counted:  # fmt: skip
    """Run a program to its end. ``singly`` counts instruction by instruction, not by blocks: slow, to check by.

    Raises:
        RuntimeError: it faults (an instruction that ``core`` lacks does that), or is no static aarch64 program.
    """
    return _Process(program.read_bytes(), [program.name, *arguments], core, marked, singly).run()


class _Process:
    """One program on one emulated core."""

    def __init__(
        self, content: bytes, arguments: Sequence[str], core: str, marked: Collection[str], singly: bool
    ) -> None:
        self.elf = ELFFile(io.BytesIO(content))
        if self.elf["e_machine"] != "EM_AARCH64" or self.elf["e_type"] != "ET_EXEC":
            raise RuntimeError("not a statically linked program for aarch64 at a fixed address")
        self.core = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
        self.core.ctl_set_cpu_model(CORES[core])
        self.symbols = _Symbols(self.elf)
        self.marks = {address for address, name in self.symbols.names.items() if name in marked}
        self.entered: Counter[tuple[int, int]] = Counter()
        self.parts = [("", self.entered)]
        self.printed, self.status, self.fault = bytearray(), -1, ""
        self.arguments, self.files = arguments, list[io.BytesIO]()
        self.heap = self.mapped = HEAP
        self._load()
        self.core.mem_map(HEAP, HEAP_BYTES)
        self.core.mem_map(STACK - STACK_BYTES, STACK_BYTES)
        self.core.reg_write(arm.UC_ARM64_REG_CPACR_EL1, FLOATING_POINT)
        self.core.reg_write(arm.UC_ARM64_REG_SP, self._stack(arguments))
        self.core.hook_add(UC_HOOK_CODE if singly else UC_HOOK_BLOCK, self._block)
        self.core.hook_add(UC_HOOK_INTR, self._interrupt)

    def run(self) -> Counted:
        try:
            self.core.emu_start(self.elf["e_entry"], 0)
        except UcError as error:
            self.fault = str(error)
        if self.fault:
            at = self.core.reg_read(arm.UC_ARM64_REG_PC)
            raise RuntimeError(f"the program faults at {at:#x} in {self.symbols.at(at)}: {self.fault}")
        instructions: Counter[str] = Counter()
        for _, entered in self.parts:
            for (address, size), times in entered.items():
                instructions[self.symbols.at(address)] += times * size // 4
        parts = [(name, sum(times * size // 4 for (_, size), times in part.items())) for name, part in self.parts]
        return Counted(instructions, parts[1:], bytes(self.printed), self.status)

    def _block(self, core: Any, address: int, size: int, data: Any) -> None:
        if address in self.marks:
            self.entered = Counter()
            self.parts.append((self.symbols.names[address], self.entered))
        self.entered[address, size] += 1

    # ---- memory

    def _load(self) -> None:
        pages = set()
        segments = [s for s in self.elf.iter_segments() if s["p_type"] == "PT_LOAD"]
        for s in segments:
            pages.update(range(s["p_vaddr"] // PAGE, -(-(s["p_vaddr"] + s["p_memsz"]) // PAGE)))
        for page in sorted(pages):
            self.core.mem_map(page * PAGE, PAGE)
        for s in segments:
            self.core.mem_write(s["p_vaddr"], s.data())

    def _stack(self, arguments: Sequence[str]) -> int:
        """What the kernel puts there: number and addresses of the arguments, no environment, and the few facts that a
        C library asks for (number: value)."""
        top = STACK - PAGE
        pointers = []
        for text in arguments:
            top -= len(text.encode()) + 1
            self.core.mem_write(top, text.encode() + b"\0")
            pointers.append(top)
        headers = self.elf["e_phoff"] + min(
            s["p_vaddr"] - s["p_offset"] for s in self.elf.iter_segments() if s["p_type"] == "PT_LOAD"
        )
        facts = {3: headers, 4: self.elf["e_phentsize"], 5: self.elf["e_phnum"], 6: PAGE, 9: self.elf["e_entry"],
                 16: 0, 23: 0, 25: top & ~15, 0: 0}  # fmt: skip
        words = [len(pointers), *pointers, 0, 0, *(word for fact in facts.items() for word in fact)]
        start = (top - 64 - 8 * len(words)) & ~15
        self.core.mem_write(start, struct.pack(f"<{len(words)}Q", *words))
        return start

    # ---- the operating system

    def _interrupt(self, core: Any, number: int, data: Any) -> None:
        """A system call; anything else ends the run."""
        if number != SYSTEM_CALL:
            self.fault = f"exception {number}: an instruction that this core lacks, or an address that is not there"
            return core.emu_stop()
        call = core.reg_read(arm.UC_ARM64_REG_X8)
        given = [core.reg_read(arm.UC_ARM64_REG_X0 + i) for i in range(6)]
        answer = CALLS.get(call, lambda process, *given: NO_SUCH_CALL)(self, *given)
        core.reg_write(arm.UC_ARM64_REG_X0, answer & (2**64 - 1))

    def write(self, file: int, address: int, size: int, *rest: int) -> int:
        self.printed += self.core.mem_read(address, size)
        return size

    def writev(self, file: int, vector: int, parts: int, *rest: int) -> int:
        words = struct.unpack(f"<{2 * parts}Q", self.core.mem_read(vector, 16 * parts))
        return sum(self.write(file, a, n) for a, n in zip(words[::2], words[1::2], strict=True))

    def exit(self, status: int, *rest: int) -> int:
        self.status = status & 0xFF
        self.core.emu_stop()
        return 0

    def openat(self, folder: int, path: int, *rest: int) -> int:
        """Files that the arguments name, for reading."""
        name = bytes(self.core.mem_read(path, PAGE)).partition(b"\0")[0].decode()
        if name not in self.arguments or not Path(name).is_file():
            return NOT_THERE
        self.files.append(io.BytesIO(Path(name).read_bytes()))
        return FIRST_FILE + len(self.files) - 1

    def read(self, file: int, address: int, size: int, *rest: int) -> int:
        content = self.files[file - FIRST_FILE].read(size) if file >= FIRST_FILE else b""
        self.core.mem_write(address, content)
        return len(content)

    def brk(self, address: int, *rest: int) -> int:
        """The heap grows from below."""
        self.heap = address if HEAP <= address <= HEAP + HEAP_BYTES // 2 else self.heap
        return self.heap

    def mmap(self, address: int, size: int, *rest: int) -> int:
        """Fresh memory, from the heap's upper half; nothing is given back."""
        if self.mapped == HEAP:
            self.mapped += HEAP_BYTES // 2
        found = self.mapped
        self.mapped += -(-size // PAGE) * PAGE
        return found if self.mapped <= HEAP + HEAP_BYTES else -12


CALLS: Mapping[int, Callable[..., int]] = {
    29: lambda process, *given: NO_TERMINAL,  # ioctl
    56: _Process.openat,
    57: lambda process, *given: 0,  # close
    63: _Process.read,
    64: _Process.write,
    66: _Process.writev,
    78: lambda process, *given: NOT_THERE,  # readlinkat
    93: _Process.exit,
    94: _Process.exit,  # exit_group
    96: lambda process, *given: 1,  # set_tid_address
    98: lambda process, *given: 0,  # futex
    99: lambda process, *given: 0,  # set_robust_list
    113: lambda process, *given: 0,  # clock_gettime: time stands still
    214: _Process.brk,
    215: lambda process, *given: 0,  # munmap
    222: _Process.mmap,
    226: lambda process, *given: 0,  # mprotect
    278: lambda process, address, size, *given: size,  # getrandom: zeros
}  # fmt: skip
"""System calls by number; what is not here is answered with "no such call"."""


class _Symbols:
    """The functions of a program by address."""

    def __init__(self, elf: ELFFile) -> None:
        table = elf.get_section_by_name(".symtab")
        found = {}
        for symbol in table.iter_symbols() if table is not None else ():
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF":
                found[symbol["st_value"]] = symbol.name
        self.names: Mapping[int, str] = found
        self.addresses = sorted(found)

    def at(self, address: int) -> str:
        """The function whose code stands there."""
        i = bisect_right(self.addresses, address)
        return self.names[self.addresses[i - 1]] if i else "?"
