"""Time loops that are no loops over a network's own state are refused, with what is wrong and where."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from frontend_models import dyadic, make_dyadic
from loop_models import Written, agree
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend import trace

pytestmark = [pytest.mark.snntorch, pytest.mark.spikingjelly]

try:
    import snntorch
    from spikingjelly.activation_based import neuron
except ModuleNotFoundError:  # the markers skip every test of this file
    snntorch = neuron = None


def leaky(**kw: Any) -> nn.Module:
    return snntorch.Leaky(beta=0.5, **kw)


def hidden() -> nn.Module:
    return leaky(init_hidden=True)


def feedback(m: Any, x: Tensor) -> Any:
    """Spikes of one step added to the input of the next."""
    mem1, spk = None, torch.zeros(2, 6)
    record = []
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x) + m.fc2(spk), mem1)
        record.append(spk)
    return torch.stack(record)


def late_input(m: Any, x: Tensor) -> Any:
    """The second layer sees the spikes of the step before."""
    mem1 = mem2 = None
    before = 0.0
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        out, mem2 = m.lif2(m.fc2(spk if t == 0 else before), mem2)
        before = spk
    return out


def moving_average(m: Any, x: Tensor) -> Any:
    mem1, trace_ = None, 0.0
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        trace_ = 0.5 * trace_ + spk
    return trace_


def changed_membrane(m: Any, x: Tensor) -> Any:
    mem1 = None
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        mem1 = mem1 * 0.5
    return spk


def swapped_membranes(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        out, mem2 = m.lif2(m.fc2(spk), mem2)
        mem1, mem2 = mem2, mem1
    return out


def fresh_membrane(m: Any, x: Tensor) -> Any:
    mem2 = m.lif2.init_leaky()
    for _ in range(m.steps):
        spk, _ = m.lif1(m.fc1(x), torch.zeros(2, 6))
        out, mem2 = m.lif2(m.fc2(spk), mem2)
    return out


def charged_membrane(m: Any, x: Tensor) -> Any:
    mem1 = torch.ones(2, 6)
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
    return spk


def every_other_step(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        if t % 2:
            spk, mem2 = m.lif2(m.fc2(spk), mem2)
    return spk


def other_weights_at_the_end(m: Any, x: Tensor) -> Any:
    mem1, record = None, []
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x) if t < m.steps - 1 else m.fc1(2 * x), mem1)
        record.append(spk)
    return torch.stack(record)


def weights_of_each_step(m: Any, x: Tensor) -> Any:
    mem1, total = None, 0
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        total = total + spk * 0.5**t
    return total


def one_step_only(m: Any, x: Tensor) -> Any:
    mem1, record = None, []
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        record.append(spk)
    return record[2]


def without_the_first_steps(m: Any, x: Tensor) -> Any:
    mem1, record = None, []
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        record.append(spk)
    return torch.stack(record[3:])


def sum_of_some(m: Any, x: Tensor) -> Any:
    mem1, total = None, 0
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        if t < 5:
            total = total + spk
    return total


def running_sum_recorded(m: Any, x: Tensor) -> Any:
    mem1, total, record = None, 0, []
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        total = total + spk
        record.append(total)
    return torch.stack(record)


def running_sum_fed_on(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    total = 0
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        total = total + spk
        out, mem2 = m.lif2(total, mem2)
    return out


def backwards(m: Any, x: Tensor) -> Any:
    mem1 = None
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x[m.steps - 1 - t]), mem1)
    return spk


def one_frame_ahead(m: Any, x: Tensor) -> Any:
    mem1 = None
    for t in range(m.steps - 1):
        spk, mem1 = m.lif1(m.fc1(x[t + 1]), mem1)
    return spk


def batch_first(m: Any, x: Tensor) -> Any:
    mem1 = None
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x[:, t]), mem1)
    return spk


def time_last(m: Any, x: Tensor) -> Any:
    mem1 = None
    for t in range(x.shape[-1]):
        spk, mem1 = m.lif1(m.fc1(x[..., t]), mem1)
    return spk


def written_into_numbers(m: Any, x: Tensor) -> Any:
    mem1, record = None, torch.zeros(m.steps, 2, 6)
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        record[t] = spk
    return record


def written_backwards(m: Any, x: Tensor) -> Any:
    mem1, record = None, torch.zeros(m.steps, x.shape[0], 6)
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        record[m.steps - 1 - t] = spk
    return record


def written_into_more_steps(m: Any, x: Tensor) -> Any:
    mem1, record = None, torch.zeros(m.steps + 1, x.shape[0], 6)
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        record[t] = spk
    return record


def written_in_part(m: Any, x: Tensor) -> Any:
    mem1, record = None, torch.zeros(m.steps, x.shape[0], 6)
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        if t < 5:
            record[t] = spk
    return record


def written_and_broadcast(m: Any, x: Tensor) -> Any:
    mem1, record = None, torch.zeros(m.steps, 3, x.shape[0], 6)
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        record[t] = spk
    return record


def written_behind_a_view(m: Any, x: Tensor) -> Any:
    mem1, record = None, torch.zeros(m.steps, x.shape[0], 6)
    first = record[0]
    for t in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        record[t] = spk
    return record, first


def added_in_place(m: Any, x: Tensor) -> Any:
    mem1, total = None, torch.zeros(2, 6)
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        total.add_(spk)
    return total


def until_it_fires(m: Any, x: Tensor) -> Any:
    mem1, spk = None, torch.zeros(2, 6)
    while spk.sum() == 0:
        spk, mem1 = m.lif1(m.fc1(x), mem1)
    return spk


CARRIED = "only neuron state"
ALIKE = "every timestep must do the same"
STATIC: dict[Callable[..., Any], tuple[str, ...]] = {
    feedback: ("lif1", "step 1 takes a value of lif1 (Leaky) in step 0", CARRIED),
    late_input: ("lif2", "step 1 takes a value of lif1 (Leaky) in step 0", CARRIED),
    moving_average: ("add()", "step 0 of", "step 1 of lif1 (Leaky)", CARRIED),
    changed_membrane: ("lif1", "state passed to step 1", "mul of lif1 (Leaky)", CARRIED),
    swapped_membranes: ("lif1", "state passed to step 1", "but lif2 (Leaky)", CARRIED),
    fresh_membrane: ("lif1", "fresh state in each of its 8 calls", "8 timesteps"),
    charged_membrane: ("lif1", "not zero", "init_leaky()"),
    every_other_step: ("lif2", "called 4 times", "8 timesteps, as often as lif1"),
    other_weights_at_the_end: ("lif1", "step 7 differs from step 0", "x became mul of x", ALIKE),
    weights_of_each_step: ("sum over time differs in step 1", "0.5 in place of 1.0", ALIKE),
    one_step_only: ("lif1", "only timestep 2 is used", "0..7"),
    without_the_first_steps: ("stack()", "holds timesteps 3..7 of a loop over 0..7"),
    sum_of_some: ("sum", "covers timesteps 0..4 of 0..7"),
    running_sum_recorded: ("stack()", "running sum of lif1 (Leaky) in step 1", CARRIED),
    running_sum_fed_on: ("lif2", "running sum of lif1 (Leaky)", CARRIED),
    **dict.fromkeys(
        (written_into_numbers, written_backwards, written_into_more_steps, written_behind_a_view),
        ("changes a tensor in place", "torch.stack"),
    ),
    written_in_part: ("holds timesteps 0..4 of a loop over 0..7",),
    written_and_broadcast: ("[T, N, 6] is written into a tensor [8, 3, ", "torch.stack"),
    added_in_place: ("changes a tensor in place", "total = total + value"),
    until_it_fires: ("forward", "cannot be traced"),
}
SEQUENCE: dict[Callable[..., Any], tuple[str, ...]] = {
    backwards: ("lif1", "step 0 takes a value of x[7] in step 7"),
    one_frame_ahead: ("lif1", "step 1 differs from step 0", "2 in place of 1"),
    batch_first: ("axis 1", "not time"),
}


def test_every_problem_is_reported_once_with_its_line() -> None:
    """A membrane that goes through something else does so in every step."""
    with pytest.raises(ImportRefused) as refused:
        trace(Written(swapped_membranes, leaky), dyadic(2, 4))
    problems = refused.value.problems
    assert [p.where.split()[0] for p in problems] == ["lif1", "lif2"]
    first = swapped_membranes.__code__.co_firstlineno
    assert [p.where.split()[1] for p in problems] == [f"test_reroll_refused.py:{first + n}" for n in (3, 4)]


def refusal(model: nn.Module, x: Tensor) -> str:
    with pytest.raises(ImportRefused) as refused:
        trace(model, x)
    return str(refused.value)


@pytest.mark.parametrize("forward", STATIC, ids=lambda f: f.__name__)
def test_loops_over_a_static_input(forward: Any) -> None:
    text = refusal(Written(forward, leaky), dyadic(2, 4, seed=3))
    for wanted in STATIC[forward]:
        assert wanted in text


def test_time_on_the_last_axis() -> None:
    text = refusal(Written(time_last, leaky), dyadic(5, 4, 8))
    assert "axis -1" in text
    assert "let the model take [T, N, ...] or [N, T, ...]" in text


@pytest.mark.parametrize("forward", SEQUENCE, ids=lambda f: f.__name__)
def test_loops_over_a_sequence(forward: Any) -> None:
    text = refusal(Written(forward, leaky), dyadic(8, 2, 4, seed=3))
    for wanted in SEQUENCE[forward]:
        assert wanted in text


def test_a_state_that_comes_from_outside() -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(4, 6), leaky()

        def forward(self, x: Tensor, mem: Tensor) -> Any:
            return self.lif(self.fc(x), mem)

    with pytest.raises(ImportRefused, match=r"lif .*'mem' of forward.*init_hidden=True"):
        trace(Step(), (torch.rand(2, 4), torch.zeros(2, 6)), timesteps=8)


def test_a_fresh_state_without_a_loop() -> None:
    """Called once for each timestep, such a model would forget everything in between."""

    def forward(m: Any, x: Tensor) -> Any:
        return m.lif1(m.fc1(x), m.lif1.init_leaky())[0]

    with pytest.raises(ImportRefused, match=r"lif1 .*without a loop over 8 timesteps"):
        trace(Written(forward, leaky), torch.rand(2, 4), timesteps=8)
    assert trace(Written(forward, leaky), torch.rand(2, 4), timesteps=1).base_timesteps == 1


def test_a_neuron_shared_by_two_places() -> None:
    """Its hidden state would run on from one place to the other within a step."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.sn = nn.Linear(4, 4), nn.Linear(4, 4), neuron.IFNode()

        def forward(self, x: Tensor) -> Any:
            total = 0
            for _ in range(4):
                total = total + self.sn(self.fc2(self.sn(self.fc1(x))))
            return total

    assert "step 1 takes a value of sn (IFNode) in step 0" in refusal(Shared(), torch.rand(2, 4))


def test_timesteps_that_contradict_the_loop() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        mem = m.lif1.init_leaky()
        for _ in range(m.steps):
            spk, mem = m.lif1(m.fc1(x), mem)
        return spk

    with pytest.raises(ImportRefused, match="runs 8 timesteps, expected 16"):
        trace(Written(forward, leaky), torch.rand(2, 4), timesteps=16)
    with pytest.raises(ImportRefused, match="runs 8 timesteps, expected 9"):
        trace(Written(lambda m, x: by_index(m, x), leaky), torch.rand(9, 2, 4))


def by_index(m: Any, x: Tensor) -> Any:
    mem = None
    for t in range(m.steps):
        spk, mem = m.lif1(m.fc1(x[t]), mem)
    return spk


BREAKAGES: dict[str, str] = {
    "skip": "a call is left out",
    "again": "a call is made twice",
    "other": "another layer is used",
    "scaled": "a current is scaled",
    "stale": "the current of the step before is used",
    "state": "the state is changed",
}


class Broken(nn.Module):
    """A random stack of layers in a loop that does one thing differently in one step of one layer."""

    def __init__(self, seed: int, what: str | None) -> None:
        super().__init__()
        chosen = random.Random(seed)
        self.depth, self.steps = chosen.randint(1, 3), chosen.randint(3, 6)
        self.at = (chosen.randrange(1, self.steps), chosen.randrange(self.depth))
        self.what = what
        self.fcs = nn.ModuleList([nn.Linear(4, 4) for _ in range(self.depth)])
        self.lifs = nn.ModuleList([leaky() for _ in range(self.depth)])

    def forward(self, x: Tensor) -> Any:
        mems: list[Any] = [lif.init_leaky() for lif in self.lifs]  # type: ignore[operator]
        before: list[Any] = [None] * self.depth
        total: Any = 0.0
        for t in range(self.steps):
            y = x
            for i in range(self.depth):
                odd = self.what if (t, i) == self.at else None
                layer = self.fcs[i] if odd != "other" else nn.functional.relu
                current = layer(y)
                current = current * 2 if odd == "scaled" else before[i] if odd == "stale" else current
                before[i] = current
                mem = mems[i] + 1 if odd == "state" else mems[i]
                if odd != "skip":
                    y, mems[i] = self.lifs[i](current, mem)
                if odd == "again":
                    y, mems[i] = self.lifs[i](current, mems[i])
            total = total + y
        return total


@pytest.mark.parametrize("what", [None, *BREAKAGES])
@pytest.mark.parametrize("seed", range(4))
def test_random_loops_with_one_odd_step(seed: int, what: str | None) -> None:
    """What differs in one step is refused with the layer named, unless it makes no difference to the results.

    A static input's current is the same in every step; a last step left out is a loop that is one step shorter.
    """
    model = make_dyadic(Broken(seed, what))
    x = 2 * dyadic(2, 4, seed=seed)
    shorter = what == "skip" and model.depth == 1 and model.at[0] == model.steps - 1
    if what is None or shorter or (what == "stale" and model.at[1] == 0):
        agree(model, x)
    else:
        assert f"lifs.{model.at[1]}" in refusal(model, x)
