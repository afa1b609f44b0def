"""What an object file holds: sections, and the symbols that it defines and needs. ELF, 64 bits, little-endian."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from ldsnn_compiler.errors import LdsnnError

_HEADER = Struct("<16sHHIQQQIHHHHHH")
_SECTION = Struct("<IIQQQQIIQQ")
_SYMBOL = Struct("<IBBHQQ")
_SYMBOL_TABLE, _NO_BITS, _ALLOCATED, _WRITABLE, _EXECUTABLE = 2, 8, 2, 1, 4
_UNDEFINED, _GLOBAL = 0, 1


@dataclass(frozen=True)
class Section:
    """A section that takes memory when the program runs; ``kind`` is ``code``, ``constants``, ``data`` or ``zeros``."""

    name: str
    size: int
    kind: str


@dataclass(frozen=True)
class ObjectFile:
    """Sections that take memory, names of the symbols that it defines and of those it needs from elsewhere.

    Weak symbols, which several files may define, are not among the former.
    """

    sections: tuple[Section, ...]
    defined: frozenset[str]
    undefined: frozenset[str]

    def bytes_of(self, kind: str) -> int:
        """Bytes in all sections of that kind."""
        return sum(s.size for s in self.sections if s.kind == kind)


def read_object(content: bytes) -> ObjectFile:
    """Parse an object file; anything else than 64-bit little-endian ELF is an error."""
    if content[:6] != b"\x7fELF\x02\x01":
        raise LdsnnError("the object file is not 64-bit little-endian ELF: C bundles are for Linux targets")
    headers = list(_section_headers(content))
    names = _payload(content, headers[_HEADER.unpack_from(content)[13]])
    sections = [Section(_text(names, h[0]), h[5], _kind(h[1], h[2])) for h in headers if h[2] & _ALLOCATED and h[5] > 0]
    symbols = [s for h in headers if h[1] == _SYMBOL_TABLE for s in _symbols(content, h, headers)]
    needed = frozenset(name for name, _, section in symbols if section == _UNDEFINED)
    given = frozenset(name for name, binding, section in symbols if section != _UNDEFINED and binding == _GLOBAL)
    return ObjectFile(tuple(sections), given, needed)


def _section_headers(content: bytes) -> Iterator[tuple[int, ...]]:
    header = _HEADER.unpack_from(content)
    start, size, count = header[6], header[11], header[12]
    return (_SECTION.unpack_from(content, start + i * size) for i in range(count))


def _symbols(content: bytes, table: tuple[int, ...], headers: list[tuple[int, ...]]) -> Iterator[tuple[str, int, int]]:
    """(name, binding, number of the section that defines it) of every named symbol; sections have no name here."""
    names = _payload(content, headers[table[6]])
    for name, info, _, section, _, _ in _SYMBOL.iter_unpack(_payload(content, table)):
        if name:
            yield _text(names, name), info >> 4, section


def _payload(content: bytes, header: tuple[int, ...]) -> bytes:
    return b"" if header[1] == _NO_BITS else content[header[4] : header[4] + header[5]]


def _text(names: bytes, start: int) -> str:
    return names[start : names.index(b"\0", start)].decode()


def _kind(type: int, flags: int) -> str:
    if flags & _EXECUTABLE:
        return "code"
    if flags & _WRITABLE:
        return "zeros" if type == _NO_BITS else "data"
    return "constants"
