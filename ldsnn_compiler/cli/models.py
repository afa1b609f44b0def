"""MODEL arguments: a PyTorch factory, a ``.nir`` or ``.ldir`` file, or a bundle folder."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ldsnn_compiler.cli.common import note
from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ldsnn_compiler.data import Data
    from ldsnn_compiler.ir.graph import Graph

ACCEPTED = "a MODEL is file.py:factory, a .nir file, a .ldir file with its .safetensors beside it, or a bundle folder"

DATA_ACCEPTED = "an .npz, file.py:factory, or a built-in such as digits"


@dataclass(frozen=True)
class ModelOptions:
    """How to read a MODEL: what the options of several commands say together."""

    model: str
    timesteps: int | None = None
    convert: bool = False
    data: str | None = None
    shape: str | None = None
    sequence: bool = False
    calibrate: str | None = None
    dt: float | None = None


def kind_of(model: str) -> str:
    """``factory``, ``nir``, ``ldir`` or ``bundle``; anything else is an error that says what is accepted."""
    if ".py:" in model:
        return "factory"
    path = Path(model)
    if path.is_dir() and (path / "manifest.json").exists():
        return "bundle"
    if path.is_dir():
        raise LdsnnError(Problem("is a folder without a manifest.json, so no bundle", where=model, hint=ACCEPTED))
    if path.suffix not in (".ldir", ".nir"):
        raise LdsnnError(Problem("is no model", where=model, hint=ACCEPTED))
    if not path.exists():
        raise LdsnnError(Problem("no such file", where=model))
    return path.suffix[1:]


def needed_data(spec: str | None, command: str) -> str:
    """The specification of data that a command cannot do without."""
    if spec is None:
        raise LdsnnError(Problem(f"{command} needs data", where="--data", hint=DATA_ACCEPTED))
    return spec


def open_data(spec: str | None, graph: Graph | None = None) -> Data | None:
    """The data, or None without a specification; events become frames of the graph's input."""
    if spec is None:
        return None
    from ldsnn_compiler.data import load_data

    node = graph.inputs[0] if graph is not None and len(graph.inputs) == 1 else None
    with warnings_as_notes():
        return load_data(spec, node)


def open_graph(options: ModelOptions) -> Graph:
    """The model as a graph: traced, converted, or read."""
    kind = kind_of(options.model)
    check_asked(options, kind)
    if kind == "factory":
        return _imported(options)
    from ldsnn_compiler.files import read

    with warnings_as_notes():
        return read(options.model, options.timesteps, options.dt)


def check_asked(options: ModelOptions, kind: str) -> None:
    """Options that say nothing about this kind of MODEL are errors."""
    asked = {
        "--timesteps": (options.timesteps, ("factory", "nir"), "a graph has its timesteps already"),
        "--dt": (options.dt, ("nir",), "the timestep of other models is their own"),
        "--convert": (options.convert, ("factory",), "only a PyTorch network is converted"),
        "--calibrate": (options.calibrate, ("factory",), "only a PyTorch network is converted"),
    }
    wrong = {name: (fits, hint) for name, (value, fits, hint) in asked.items() if value and kind not in fits}
    words = {"factory": "file.py:factory", "nir": "a .nir file", "ldir": "a .ldir file", "bundle": "a bundle"}
    if wrong:
        raise LdsnnError(
            Problem(f"applies to {' and '.join(words[f] for f in fits)}, not to {words[kind]}", where=name, hint=hint)
            for name, (fits, hint) in wrong.items()
        )


def _imported(options: ModelOptions) -> Graph:
    name = options.model.rpartition(":")[2]
    if not options.convert:
        if options.calibrate:
            raise LdsnnError(Problem("says how to convert, so it needs --convert", where="--calibrate"))
        from ldsnn_compiler.frontend import trace

        with warnings_as_notes():
            made = _call_factory(options)
            if _is_graph(made):
                return made
            module, example = _with_example(made, options)
            return trace(module, example, options.timesteps, name=name, sequence=options.sequence or None)
    problems = []
    if options.data is None:
        problems.append(Problem("--convert needs data to calibrate with", where="--data", hint=DATA_ACCEPTED))
    if options.timesteps is None:
        problems.append(Problem("--convert needs a number of timesteps", where="--timesteps"))
    settings = _calibration_settings(options.calibrate or "", problems)
    data = open_data(options.data)
    if data is None or options.timesteps is None or problems:
        raise LdsnnError(problems)
    module, _ = open_module(options)
    from ldsnn_compiler.frontend import convert

    with warnings_as_notes():
        return convert(module, data.calibration[0].float(), options.timesteps, name=name, **settings)


def _calibration_settings(text: str, problems: list[Problem]) -> dict[str, Any]:
    """``threshold=percentile,bias=true`` as arguments of ``convert``; what is wrong goes to ``problems``."""
    kinds: dict[str, Callable[[str], Any]] = {
        "threshold": str,
        "percentile": float,
        "bias": {"true": True, "false": False}.__getitem__,
    }
    found: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, _, value = part.partition("=")
        try:
            found[key] = kinds[key](value)
        except (KeyError, ValueError):
            accepted = "threshold=mse|percentile|max, percentile=NUMBER, bias=true|false"
            problems.append(Problem(f"cannot be read: {part!r}", where="--calibrate", hint=accepted))
    return found


def open_module(options: ModelOptions) -> tuple[nn.Module, Any]:
    """The user's module and an example for it.

    The factory gives the module or ``(module, example)``; a parameter called ``timesteps`` gets ``--timesteps``. The
    example is otherwise a sample of the data, or zeros of ``--shape``; with ``--sequence`` time goes before the batch.
    A factory that gives a graph is an error: there is no PyTorch network then.
    """
    made = _call_factory(options)
    if _is_graph(made):
        raise LdsnnError(Problem("gives a graph, where a PyTorch network is needed", where=options.model))
    return _with_example(made, options)


def _is_graph(made: Any) -> TypeGuard[Graph]:
    from ldsnn_compiler.ir.graph import Graph

    return isinstance(made, Graph)


def _with_example(made: Any, options: ModelOptions) -> tuple[nn.Module, Any]:
    if isinstance(made, tuple) and len(made) == 2:
        return made[0].eval() if hasattr(made[0], "eval") else made[0], made[1]
    return made.eval() if hasattr(made, "eval") else made, _example(options)


def _call_factory(options: ModelOptions) -> Any:
    """What the factory makes: the same each time, also where it leaves weights to chance and a command needs two."""
    import torch

    from ldsnn_compiler.data import call_factory, load_factory

    torch.manual_seed(0)
    factory = load_factory(options.model)
    takes_timesteps = "timesteps" in inspect.signature(factory).parameters
    if options.timesteps is None or not takes_timesteps:
        return call_factory(options.model)
    try:
        return factory(timesteps=options.timesteps)  # type: ignore[call-arg]
    except LdsnnError:
        raise
    except (Exception, SystemExit) as error:
        raise LdsnnError(Problem(f"fails when called, {type(error).__name__}: {error}", where=options.model)) from error


def _example(options: ModelOptions) -> torch.Tensor:
    import torch

    data = open_data(options.data)
    if data is not None:
        sample = data.calibration[0][:1].float()
    elif options.shape:
        sample = torch.zeros((1, *_parsed_shape(options.shape)))
    else:
        hint = "give --data, or --shape 1,8,8, or let the factory return (model, example)"
        raise LdsnnError(Problem("the shape of the input is not known", where=options.model, hint=hint))
    return sample.transpose(0, 1) if options.sequence else sample


def _parsed_shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(p.strip().isdigit() and int(p) for p in parts):
        raise LdsnnError(Problem(f"positive numbers separated by commas, not {text!r}", where="--shape"))
    return tuple(map(int, parts))


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Python warnings of the front end become lines on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for each in caught:
        note(f"note: {each.message}")
    sys.stderr.flush()
