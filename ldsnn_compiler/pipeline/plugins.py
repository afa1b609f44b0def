"""Passes, boards and front ends of other people: installed ones by entry point, others from a file.

An entry point of a group in :data:`GROUPS` names a pass class, which is registered, or a module or object that
registers what it brings when it is imported (``register_pass``, ``ldsnn_compiler.targets.register_board``,
``ir.op.register``, ``ir.neuron.register``). Whatever goes wrong is an error: a plug-in that is silently absent
changes results.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass

GROUPS = ("ldsnn_compiler.passes", "ldsnn_compiler.targets", "ldsnn_compiler.frontends")
_LOADED: set[str] = set()


def load_plugins(files: Iterable[str | Path] = ()) -> None:
    """Load every installed plug-in, then each Python file; all that fail are reported at once."""
    problems: list[Problem] = []
    loads = [partial(load_entry_points, group) for group in GROUPS] + [partial(load_file, file) for file in files]
    for load in loads:
        try:
            load()
        except LdsnnError as error:
            problems += error.problems
    if problems:
        raise LdsnnError(problems)


def load_entry_points(group: str) -> None:
    """Load the installed plug-ins of one group, once per process; two of one name are an error."""
    if group in _LOADED:
        return
    found = sorted(entry_points(group=group), key=lambda e: e.name)
    problems = [
        Problem(f"plug-in {name!r} is installed {n} times, by {_owners(found, name)}", where=group)
        for name, n in Counter(e.name for e in found).items()
        if n > 1
    ]
    for each in found if not problems else ():
        try:
            _register(each)
        except LdsnnError as error:
            problems += error.problems
    if problems:
        raise LdsnnError(problems)
    _LOADED.add(group)


def load_file(path: str | Path) -> None:
    """Import a Python file, once; what it registers is then known."""
    path = Path(path).resolve()
    name = f"ldsnn_plugin_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise LdsnnError(Problem("not a Python file that can be read", where=str(path), kind="plug-in"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise LdsnnError(_failed(error, str(path))) from error


def _register(each: EntryPoint) -> None:
    try:
        loaded = each.load()
    except (Exception, SystemExit) as error:
        raise LdsnnError(_failed(error, f"{each.group}: {each.name} = {each.value}")) from error
    if isinstance(loaded, type) and issubclass(loaded, Pass):
        register_pass(loaded)
        if loaded.name != each.name:
            message = f"the entry point {each.name!r} names a pass called {loaded.name!r}"
            raise LdsnnError(Problem(message, where=each.value, kind="plug-in"))


def _failed(error: BaseException, where: str) -> Problem:
    return Problem(f"cannot be imported: {type(error).__name__}: {error}", where=where, kind="plug-in")


def _owners(found: Iterable[EntryPoint], name: str) -> str:
    return ", ".join(sorted(e.dist.name if e.dist else e.value for e in found if e.name == name))
