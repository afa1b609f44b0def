"""Compiles graphs to C bundles, builds their programs with a C compiler, and holds what they answer against the
interpreter."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphs import inputs_of

from ldsnn_compiler.driver import compile_c
from ldsnn_compiler.integers import Calibration, Range
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.targets.c import CBundle
from ldsnn_compiler.targets.lower import plan

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1")
#: options that make a network of :mod:`graphs` one of whole numbers
WHOLE: dict[str, Any] = {"numerics": "int", "calibration": Calibration({"x": Range(0.0, 1.0)}, 1)}
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def bundle(graph: Graph, folder: Path, name: str = "net", **options: Any) -> CBundle:
    """Compile to C; dyadic inputs are the example."""
    made = compile_c(graph, name=name, **options)
    made.save(folder, inputs_of(made.graph, made.network.batch))
    return made


def build(sources: Sequence[Path], program: Path, cc: Sequence[str] = ("cc",), flags: Sequence[str] = STRICT) -> Path:
    """Compile and link; headers are found beside every source."""
    command = [*cc, *flags, *(f"-I{s.parent}" for s in sources), *map(str, sources), "-lm", "-o", str(program)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return program


def parts(folder: Path, name: str = "net") -> list[Path]:
    """What a program of a network is linked from, but for a main."""
    return [folder / f"{name}.c", folder / f"{name}_kernels.o"]


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a program that ends well."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done


@dataclass(frozen=True)
class Answers:
    """What the example program of a bundle wrote."""

    run: tuple[torch.Tensor, ...]
    steps: tuple[torch.Tensor, ...]
    state: dict[tuple[str, str], torch.Tensor]


def answers(made: CBundle, folder: Path, program: Path, runner: Sequence[str] = ()) -> Answers:
    """Let the program take its example whole and in steps."""
    weights, example = folder / f"{made.network.name}_weights.bin", folder / "example_input.bin"
    found, stepped, saved = (folder.parent / f"{folder.name}.{kind}" for kind in ("run", "steps", "state"))
    run([*runner, program, weights, example, found])
    run([*runner, program, weights, example, stepped, saved])
    return Answers(_outputs(made, found), _outputs(made, stepped), _state(made, saved.read_bytes()))


def _outputs(made: CBundle, path: Path) -> tuple[torch.Tensor, ...]:
    content, found = path.read_bytes(), []
    for port in made.network.outputs:
        count = int(np.prod(port.shape))
        array = np.frombuffer(content, port.dtype, count)
        found.append(torch.from_numpy(array.copy()).reshape(port.shape))
        content = content[array.nbytes :]
    assert not content, "the program wrote more than its outputs"
    return tuple(found)


def _state(made: CBundle, content: bytes) -> dict[tuple[str, str], torch.Tensor]:
    """The state as the interpreter shows it; behind it stand the base steps done."""
    net, settings = made.network, made.settings
    assert int.from_bytes(content[net.state_bytes :], "little") == net.graph.base_timesteps
    states = plan(net.graph, settings.board, "step", settings.tunings).states
    found = {}
    for held, spec in zip(net.state, states, strict=True):
        array = np.frombuffer(content[held.offset : held.offset + held.size], held.dtype).reshape(held.shape)
        found[held.node, held.variable] = spec.unpack(torch.from_numpy(array.copy()))
    return found


def assert_right(made: CBundle, found: Answers) -> None:
    """Outputs of the run and of the steps, and the state behind these, are the interpreter's, bit for bit."""
    reference, data = Interpreter(made.graph), inputs_of(made.graph, made.network.batch)
    with torch.no_grad():
        wanted = reference.run(*data)
        reference.reset()
        reference.step(*data)
    for i, (whole, stepped, expected) in enumerate(zip(found.run, found.steps, wanted, strict=True)):
        assert torch.equal(whole, expected), f"output {i} of the run"
        assert torch.equal(stepped, expected), f"output {i} of the steps"
    for name, variables in reference.state.items():
        for variable, value in variables.items():
            mine = found.state[name, variable]
            assert torch.equal(mine.to(value.dtype), value), f"state {name}.{variable}"


def check(graph: Graph, folder: Path, flags: Sequence[str] = STRICT, **options: Any) -> CBundle:
    """Compile, build and run on this machine."""
    made = bundle(graph, folder, **options)
    name = made.network.name
    program = build([folder / "main.c", *parts(folder, name)], folder.parent / f"{folder.name}.program", flags=flags)
    assert_right(made, answers(made, folder, program))
    return made
