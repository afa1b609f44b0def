"""What all commands share: answers, options, and how errors reach the user.

A command is a plain function that returns an :class:`Answer`; :func:`command` makes a Typer command of it and adds
``--json``, ``--plugin`` and ``--debug``. Exit codes: 0, 1 for an error (one line on stderr per problem), 2 for wrong
usage. With ``--json`` stdout carries exactly one JSON document; what a user's own model prints goes to stderr.
"""

from __future__ import annotations

import inspect
import json as jsonlib
import sys
import traceback
from collections.abc import Callable
from collections.abc import Sequence as Parts
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console, RenderableType

from ldsnn_compiler.errors import LdsnnError

Model = Annotated[str, typer.Argument(metavar="MODEL", help="file.py:factory, .nir or .ldir file, or bundle folder")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help='an .npz (of events: "file.npz{dt=1ms}"), file.py:factory, or a built-in such as digits',
    ),
]
Timesteps = Annotated[int | None, typer.Option("--timesteps", min=1, help="uniform T0 of the model")]
Dt = Annotated[
    float | None, typer.Option("--dt", help="of a .nir file: length of a timestep in the file's unit of time")
]
Convert = Annotated[bool, typer.Option("--convert", help="turn a plain ReLU network into an SNN; needs --data")]
Calibrate = Annotated[
    str | None,
    typer.Option(
        "--calibrate",
        metavar="K=V,...",
        help="of --convert: threshold=mse|percentile|max, percentile=99.9, bias=true",
    ),
]
ScheduleFile = Annotated[Path | None, typer.Option("--schedule", help="schedule file: timesteps and levels per layer")]
Target = Annotated[str, typer.Option("--target", help="a board's name; see `ldsnn targets`")]
Batch = Annotated[str, typer.Option("--batch", help="samples per call, or `any` for a symbolic batch")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default all")]
Pipeline = Annotated[str | None, typer.Option("--pipeline", help="passes in place of the default ones")]
DumpDir = Annotated[Path | None, typer.Option("--dump-dir", help="write the IR there after every pass")]
TimePasses = Annotated[bool, typer.Option("--time-passes", help="print how long every pass took")]
Shape = Annotated[str | None, typer.Option("--shape", help="shape of one sample, such as 1,8,8, if there is no data")]
Sequence = Annotated[bool, typer.Option("--sequence", help="samples are [T, ...] and the model takes [T, N, ...]")]
Rpc = Annotated[
    str | None,
    typer.Option("--rpc", metavar="HOST:PORT,KEY", help="on the board behind this RPC server or tracker of TVM's"),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="use only the first samples of the data")]


@dataclass(frozen=True)
class Answer:
    """What a command found: ``data`` for ``--json``, ``shown`` for a person; ``exit_code`` 1 reports a failed check."""

    data: Any
    shown: Parts[RenderableType] = ()
    exit_code: int = 0


Command = TypeVar("Command", bound=Callable[..., Answer])

_EXTRA = {
    "json": Annotated[bool, typer.Option("--json", help="one JSON document on stdout")],
    "plugin": Annotated[list[Path] | None, typer.Option("--plugin", help="a Python file to load first; repeatable")],
    "debug": Annotated[bool, typer.Option("--debug", help="show the traceback of an unexpected error")],
}
_DEFAULTS = {"json": False, "plugin": None, "debug": False}


def command(app: typer.Typer) -> Callable[[Command], Command]:
    """Register a function returning an :class:`Answer` as the command of its own name; gives the function back
    unchanged."""

    def register(function: Command) -> Command:
        @wraps(function)
        def run(json: bool, plugin: list[Path] | None, debug: bool, **options: Any) -> None:
            raise typer.Exit(_run(function, options, json, plugin or [], debug))

        run.__signature__ = _signature(function)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in _signature(function).parameters.values()}
        app.command(function.__name__.rstrip("_"))(run)  # `import` is a word of Python
        return function

    return register


def _signature(function: Callable[..., Answer]) -> inspect.Signature:
    own = inspect.signature(function, eval_str=True)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[name], annotation=annotation)
        for name, annotation in _EXTRA.items()
    ]
    return own.replace(parameters=[*own.parameters.values(), *extra], return_annotation=None)


def _run(function: Callable[..., Answer], options: dict[str, Any], json: bool, plugin: list[Path], debug: bool) -> int:
    try:
        with redirect_stdout(sys.stderr if json else sys.stdout):
            load_plugins(plugin)
            answer = function(**options)
    except LdsnnError as error:
        return _fail(json, [asdict(p) for p in error.problems], [str(p) for p in error.problems])
    except (typer.BadParameter, typer.Exit):
        raise
    except KeyboardInterrupt:
        return _fail(json, [], ["interrupted"])
    except Exception as error:  # a bug, ours or in the user's model file: say so in one line
        if debug:
            traceback.print_exc()
        message = f"unexpected {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        hint = "" if debug else " (--debug shows the traceback)"
        return _fail(json, [{"message": message}], [message + hint])
    if json:
        sys.stdout.write(jsonlib.dumps(answer.data, indent=2, default=str) + "\n")
    else:
        show(answer.shown)
    return answer.exit_code


def _fail(json: bool, problems: list[dict[str, str]], lines: list[str]) -> int:
    if json:
        sys.stdout.write(jsonlib.dumps({"problems": problems}, indent=2) + "\n")
    for line in lines:
        sys.stderr.write(f"error: {line}\n")
    return 1


def show(parts: Parts[RenderableType]) -> None:
    """Print for a person; plain strings as they are. Wide enough for whole tables when stdout is no terminal."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    for part in parts:
        if isinstance(part, str):
            sys.stdout.write(part if part.endswith("\n") else part + "\n")
        else:
            console.print(part)


def note(text: str) -> None:
    """A line of progress, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def load_plugins(files: Parts[Path]) -> None:
    """Load ``--plugin`` files; what they register is known afterwards."""
    if files:
        from ldsnn_compiler.pipeline import load_plugins as load

        load([str(f) for f in files])


def parse_batch(text: str) -> int | None:
    """``any`` is a symbolic batch (None); else a positive number."""
    if text == "any":
        return None
    if not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"a positive number or `any`, not {text!r}", param_hint="--batch")
    return int(text)
