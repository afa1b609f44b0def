"""DATA arguments: what a calibration or search may see, and what figures are reported on.

A specification is one of

``digits``           a built-in data set (:func:`builtins` lists them; :func:`register_data` adds one)
``file.npz``         arrays ``x_train, y_train, x_test, y_test`` (train becomes calibration, test report), or ``x, y``,
                     which are split here in a fixed way; the ``y`` may be left out
``file.npz{dt=1ms}`` recordings of an event camera, see :mod:`ldsnn_compiler.events.files`
``file.py:factory``  a callable without arguments giving ``{"calibration": (x, y), "report": (x, y)}``, arrays or
                     tensors; ``y`` may be None

``x`` is ``[N, ...]``, floating and ready for the model: nothing is scaled or normalised here. float16 stays as it is
and becomes float32 batch by batch: event frames, whose small counts it holds exactly, then take half the memory. ``y``
is ``[N]`` class numbers. The two splits never hold the same sample. Arrays are read without pickle.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.events.files import NAMES, EventFile, holds_events
from ldsnn_compiler.ir.graph import Node

Split = tuple[Tensor, Tensor | None]
SPLITS = ("calibration", "report")
SHARE = 5
"""Of data that come unsplit, one sample in this many is for calibration, the others are for reporting."""


class DataError(LdsnnError):
    """A DATA argument that cannot be used."""


@dataclass(frozen=True)
class Data:
    """Two disjoint splits, each ``(x, y)``: x float32 or float16 ``[N, ...]``, y int64 ``[N]`` or None.

    ``note`` says where the splits come from, for reports.
    """

    calibration: Split
    report: Split
    note: str = ""


Factory = Callable[[], Any]
_BUILTINS: dict[str, Factory] = {}


def register_data(name: str, factory: Factory) -> None:
    """Make ``name`` a built-in data set: ``factory()`` gives what a ``file.py:factory`` gives. Names may not clash."""
    if _BUILTINS.get(name, factory) is not factory:
        raise DataError(f"a data set named {name!r} is registered already")
    _BUILTINS[name] = factory


def builtins() -> tuple[str, ...]:
    """Names of the built-in data sets."""
    return tuple(sorted(_BUILTINS))


def _digits() -> Mapping[str, Any]:
    from ldsnn_compiler.demo.data import digits_data

    return digits_data()


register_data("digits", _digits)


def load_data(spec: str, node: Node | None = None) -> Data:
    """Read, check and split the data a specification names (see the module's text).

    Events become frames of the input ``node`` of a network; without it their specification says what frames.

    Raises:
        DataError: with everything that is wrong: missing keys, lengths that differ, dtypes, NaN, splits that overlap.
    """
    if spec in _BUILTINS:
        return _checked(spec, _BUILTINS[spec](), f"built-in {spec}")
    file, _, events = spec.partition("{")
    if file.endswith(".npz"):
        return _from_npz(Path(file), events.removesuffix("}"), node)
    if ".py:" in spec:
        return _checked(spec, call_factory(spec), f"splits given by {spec}")
    hint = f"a data set is {', '.join(builtins())}, a file.npz or a file.py:factory"
    raise DataError(Problem("is no data set", where=spec, hint=hint))


def load_factory(spec: str) -> Factory:
    """The callable that ``file.py:factory`` names.

    The file is executed as a module of its own, with its folder importable meanwhile.

    Raises:
        DataError: there is no such file or callable, or executing the file fails.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise DataError(Problem("no such file", where=file))
    module_spec = importlib.util.spec_from_file_location(f"ldsnn_user_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise DataError(Problem("is no Python file", where=file))
    module = importlib.util.module_from_spec(module_spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        module_spec.loader.exec_module(module)
    except LdsnnError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's file does, leaving the process included
        raise DataError(Problem(f"fails when imported, {type(error).__name__}: {error}", where=file)) from error
    finally:
        sys.path.remove(folder)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise DataError(Problem("no such callable in the file", where=file, attribute=name))
    return factory  # type: ignore[no-any-return]


def call_factory(spec: str) -> Any:
    """What ``file.py:factory`` gives when called; its exceptions become a :class:`DataError`."""
    factory = load_factory(spec)
    try:
        return factory()
    except LdsnnError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(Problem(f"fails when called, {type(error).__name__}: {error}", where=spec)) from error


def _from_npz(path: Path, events: str, node: Node | None) -> Data:
    arrays = _read_npz(path)
    if holds_events(arrays):
        return _from_events(path, arrays, events, node)
    if events:
        raise DataError(Problem(f"{{{events}}} is for recordings of events, this holds none", where=str(path)))
    whole, parts = "x" in arrays, {"x_train", "x_test"} & arrays.keys()
    if whole and parts:
        raise DataError(Problem(f"holds both x and {', '.join(sorted(parts))}; keep one form", where=str(path)))
    if whole:
        return _split_whole(path, arrays["x"], arrays.get("y"))
    missing = [key for key in ("x_train", "x_test") if key not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        hint = "store x, y or x_train, y_train, x_test, y_test"
        raise DataError(Problem(f"lacks {', '.join(missing)}, holds {found}", where=str(path), hint=hint))
    given = {
        "calibration": (arrays["x_train"], arrays.get("y_train")),
        "report": (arrays["x_test"], arrays.get("y_test")),
    }
    return _checked(str(path), given, "x_train is calibration, x_test is report")


def _from_events(path: Path, arrays: Mapping[str, npt.NDArray[Any]], options: str, node: Node | None) -> Data:
    file = EventFile(path, arrays, options, node)
    if holds_events({"t", "events"} & arrays.keys()):
        return _split_whole(path, *file.split(""))
    missing = [s for s in ("_train", "_test") if not {f"t{s}", f"events{s}"} & arrays.keys()]
    if missing:
        raise DataError(Problem(f"holds no events{' or events'.join(missing)}", where=str(path)))
    note = "the training recordings are calibration, the test recordings are report"
    return _checked(str(path), {"calibration": file.split("_train"), "report": file.split("_test")}, note)


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays we know, where present; never through pickle."""
    try:
        # numpy leaves a file open that it opened itself and could not read.
        with path.open("rb") as stream, zipfile.ZipFile(stream), np.load(stream, allow_pickle=False) as file:
            known = NAMES if holds_events(file.files) else ("x", "y", "x_train", "y_train", "x_test", "y_test")
            return {key: file[key] for key in file.files if key in known}
    except FileNotFoundError:
        raise DataError(Problem("no such file", where=str(path))) from None
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        hint = "write it with numpy.savez, plain number arrays only"
        raise DataError(Problem(f"cannot be read, {error}", where=str(path), hint=hint)) from error


def _split_whole(path: Path, x: Any, y: Any) -> Data:
    """Every fifth distinct sample to calibration, the others to report; equal samples stay together."""
    problems: list[Problem] = []
    whole = _checked_split(str(path), (x, y), problems)
    if whole is None:
        raise DataError(problems)
    images, labels = whole
    first = {digest: i for i, digest in reversed(list(enumerate(_digests(images))))}
    rank = {digest: i for i, digest in enumerate(sorted(first, key=first.__getitem__))}
    chosen = torch.tensor([rank[digest] % SHARE == 0 for digest in _digests(images)])
    if bool(chosen.all()):
        raise DataError(Problem("needs at least two different samples to split", where=str(path)))
    taken = [(images[m], None if labels is None else labels[m]) for m in (chosen, ~chosen)]
    return Data(taken[0], taken[1], f"no split given: one sample in {SHARE} is calibration, the others are report")


def _checked(where: str, given: Any, note: str) -> Data:
    if not isinstance(given, Mapping):
        hint = 'give {"calibration": (x, y), "report": (x, y)}'
        raise DataError(Problem(f"gives a {type(given).__name__}, not a dict", where=where, hint=hint))
    problems = [Problem("missing", where=where, attribute=k, kind="dict") for k in SPLITS if k not in given]
    problems += [Problem("unknown entry", where=where, attribute=str(k), kind="dict") for k in given if k not in SPLITS]
    splits = {k: _checked_split(f"{where}, {k}", given[k], problems) for k in SPLITS if k in given}
    calibration, report = splits.get("calibration"), splits.get("report")
    if calibration and report:
        problems += _pair_problems(where, calibration[0], report[0])
    if problems or calibration is None or report is None:
        raise DataError(problems)
    return Data(calibration, report, note)


def _checked_split(where: str, pair: Any, problems: list[Problem]) -> Split | None:
    """``(x, y)`` in our dtypes; None where ``problems`` grew."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        problems.append(Problem("is not a pair (x, y)", where=where, hint="y may be None"))
        return None
    x, y = (None if part is None else _tensor(part) for part in pair)
    found = list(_sample_problems(where, x)) + (list(_label_problems(where, y, x)) if y is not None else [])
    problems.extend(found)
    if found or not isinstance(x, Tensor):
        return None
    kept = x if x.dtype == torch.float16 else x.float()
    return kept.contiguous(), y.long() if isinstance(y, Tensor) else None


def _tensor(value: Any) -> Tensor | str:
    """A tensor, or the reason why it is none."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    array = np.asarray(value)
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError:
        return f"dtype {array.dtype} is no number"


def _sample_problems(where: str, x: Tensor | str | None) -> Iterator[Problem]:
    at = {"where": where, "kind": "x"}
    if x is None or isinstance(x, str):
        yield Problem(x or "is None", **at)
    elif not x.is_floating_point():
        name = str(x.dtype).removeprefix("torch.")
        yield Problem(f"dtype {name}, expected float32", hint="convert it to what the model takes, e.g. x / 255", **at)
    elif x.ndim < 2 or x.numel() == 0:
        yield Problem(f"shape {tuple(x.shape)}, expected samples [N, ...]", **at)
    else:
        bad = sum(int((~torch.isfinite(part)).flatten(1).any(1).sum()) for part in x.split(64))  # little memory
        if bad:
            yield Problem(f"{bad} of {len(x)} samples hold NaN or infinity", **at)


def _label_problems(where: str, y: Tensor | str, x: Tensor | str | None) -> Iterator[Problem]:
    at = {"where": where, "kind": "y"}
    if isinstance(y, str):
        yield Problem(y, **at)
        return
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        yield Problem(f"dtype {str(y.dtype).removeprefix('torch.')}, expected integer class numbers", **at)
    elif y.numel() and int(y.min()) < 0:
        yield Problem("negative class numbers", **at)
    if y.ndim != 1:
        yield Problem(f"shape {tuple(y.shape)}, expected [N]", **at)
    elif isinstance(x, Tensor) and x.ndim and len(x) != len(y):
        yield Problem(f"{len(y)} labels for {len(x)} samples", **at)


def _pair_problems(where: str, calibration: Tensor, report: Tensor) -> Iterator[Problem]:
    if calibration.shape[1:] != report.shape[1:]:
        shapes = f"{tuple(calibration.shape[1:])} in calibration, {tuple(report.shape[1:])} in report"
        yield Problem(f"samples differ in shape: {shapes}", where=where)
        return
    seen = set(_digests(calibration))
    shared = sum(digest in seen for digest in _digests(report))
    if shared:
        hint = "remove them: figures are reported on samples that were never looked at"
        yield Problem(f"{shared} of {len(report)} report samples are in calibration too", where=where, hint=hint)


def _digests(x: Tensor) -> list[bytes]:
    """One hash a sample."""
    return [hashlib.blake2b(sample.numpy().tobytes(), digest_size=16).digest() for sample in x]
