"""Names in C: what begins all names of a network, and names of parameters made from those of graph nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ldsnn_compiler.errors import LdsnnError, Problem

#: words of C and C++ that are no names, and the names that the source itself uses
_TAKEN = (
    "alignas alignof and asm auto bool break case catch char class compl concept const constexpr continue decltype "
    "default delete do double else enum explicit export extern false float for friend goto if inline int long mutable "
    "namespace new noexcept not nullptr operator or private protected public register requires restrict return short "
    "signed sizeof static struct switch template this throw true try typedef typeid typename union unsigned using "
    "virtual void volatile wchar_t while xor main context weights identity repeat inputs outputs state saved argc argv "
    "memcmp memcpy memset printf fprintf fopen fclose fread fwrite stderr"
)
#: files of these names would hide the standard's headers, or the bundle's own main.c
_NO_FILES = (
    "assert complex ctype errno fenv float inttypes iso646 limits locale main math setjmp signal stdalign stdarg "
    "stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype"
)


def network_name(name: str) -> str:
    """``name``, if files and C names can begin with it."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        hint = "letters, digits and underscores, a letter first"
        raise LdsnnError(Problem("names in C cannot begin with this", where=name, attribute="name", hint=hint))
    if name in _NO_FILES.split():
        raise LdsnnError(Problem(f"{name}.h or {name}.c is a file that means something else", name, attribute="name"))
    return name


def made_name(name: str) -> str:
    """A name made from one that may not be fit for C."""
    made = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_")
    return network_name(made if made[:1].isalpha() and made not in _NO_FILES.split() else f"net_{made}")


def parameters(names: Iterable[str]) -> dict[str, str]:
    """A parameter's name for each of these, all different, in capitals too."""
    found: dict[str, str] = {}
    taken = {word.upper() for word in _TAKEN.split()}
    for name in names:
        base = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_")
        base = base if base[:1].isalpha() else f"x{base}"
        made, n = base, 1
        while made.upper() in taken:
            n += 1
            made = f"{base}_{n}"
        taken.add(made.upper())
        found[name] = made
    return found
