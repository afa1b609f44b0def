"""``ldsnn stream``: samples as streams that go on from one call to the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ldsnn_compiler.cli.common import Answer, Data, Dt, Limit, Model, Sequence, Threads, Timesteps, note
from ldsnn_compiler.cli.execute import ByInterpreter, compiled_on, samples
from ldsnn_compiler.cli.models import ModelOptions, kind_of, needed_data, open_graph

if TYPE_CHECKING:
    from ldsnn_compiler.interp.module import Interpreter
    from ldsnn_compiler.runtime import Compiled

StateIn = Annotated[Path | None, typer.Option("--state-in", help="go on from the state in this file")]
StateOut = Annotated[Path | None, typer.Option("--state-out", help="write the state that is left to this file")]


def stream(
    model: Model,
    data: Data = None,
    state_in: StateIn = None,
    state_out: StateOut = None,
    interpreter: ByInterpreter = False,
    threads: Threads = None,
    timesteps: Timesteps = None,
    dt: Dt = None,
    sequence: Sequence = False,
    limit: Limit = None,
) -> Answer:
    """Run the report split granule by granule, each sample a stream, from a saved state and to one."""
    import torch

    from ldsnn_compiler.evaluate import full_layout, scores

    data = needed_data(data, "stream")
    options = ModelOptions(model, timesteps, data=data, sequence=sequence, dt=dt)
    network = _network(options, interpreter, threads)
    x, labels, said = samples(data, network.graph, limit)
    if state_in is not None:
        network.load_state(state_in)
    first = network.base_step
    with torch.no_grad():
        found = scores(network.step(full_layout(network.graph, x)))
    if state_out is not None:
        network.save_state(state_out)
        note(f"wrote {state_out}")
    right = None if labels is None else int((found.argmax(1) == labels).sum())
    answer = {"model": model, "samples": len(x), "first_step": first, "base_step": network.base_step, "right": right}
    told = f"{len(x)} samples, timesteps {first} to {network.base_step - 1}, {said}"
    return Answer({**answer, "scores": found.tolist()}, (told, *([f"right: {right}"] if right is not None else ())))


def _network(options: ModelOptions, interpreter: bool, threads: int | None) -> Interpreter | Compiled:
    """The bundle as it is, another model for any number of samples."""
    if interpreter:
        from ldsnn_compiler.interp.module import Interpreter

        return Interpreter(open_graph(options))
    batch = 1 if kind_of(options.model) == "bundle" else None
    return compiled_on(None, options, None, "native", batch, threads, None)
