"""Hand-written time loops: every way of writing one gives the graph of its single step, and the library's results."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from frontend_models import dyadic, make_dyadic
from loop_models import Written, agree
from torch import Tensor, nn

from ldsnn_compiler.frontend import trace

pytestmark = [pytest.mark.snntorch, pytest.mark.spikingjelly]

try:
    import snntorch
    from snntorch import utils
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
except ModuleNotFoundError:  # the markers skip every test of this file
    snntorch = utils = functional = layer = neuron = surrogate = None


def leaky(**kw: Any) -> nn.Module:
    return snntorch.Leaky(beta=0.5, **kw)


def step(m: Any, x: Tensor, mem1: Any, mem2: Any) -> tuple[Any, Any, Any]:
    """One timestep of the network: spikes and the two membranes."""
    spk1, mem1 = m.lif1(m.fc1(x), mem1)
    spk2, mem2 = m.lif2(m.fc2(spk1), mem2)
    return spk2, mem1, mem2


def sum_from_zero(m: Any, x: Tensor) -> Any:
    mem1, mem2, out = m.lif1.init_leaky(), m.lif2.init_leaky(), 0
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        out = out + spk
    return out


def sum_from_the_first(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = out = None
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        out = spk if out is None else out + spk
    return out / m.steps


def sum_into_zeros(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = torch.zeros(2, 6)
    out = torch.zeros(2, 6)
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        out += spk
    return out


def sum_of_currents(m: Any, x: Tensor) -> Any:
    """An accumulator behind a layer, scaled in every step; zeros that depend on the input."""
    mem1 = torch.zeros_like(m.fc1(x))
    mem2, out = None, torch.zeros_like(mem1)
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        out = torch.add(out, m.fc2(spk) * 0.25)
    return out, mem2


def python_sum(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    record = []
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        record.append(spk)
    return sum(record) / len(record), record[-1]


def running_maximum(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = best = None
    for _ in range(m.steps):
        _, mem1, mem2 = step(m, x, mem1, mem2)
        best = mem2 if best is None else torch.maximum(best, mem2)
    return best


def written_into_tensors(m: Any, x: Tensor) -> Any:
    """Tensors made for the record, time first or second."""
    mem1 = mem2 = None
    record, membranes = torch.zeros(m.steps, x.shape[0], 6), x.new_zeros(x.shape[0], m.steps, 6)
    for t in range(m.steps):
        record[t], mem1, mem2 = step(m, x, mem1, mem2)
        membranes[:, t] = mem1
    return record, membranes.sum(1)


def stacks(m: Any, x: Tensor) -> Any:
    """Recorded lists reduced in all the usual ways."""
    mem1 = mem2 = None
    spikes, membranes, rows = [], [], []
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        spikes.append(spk)
        membranes.append(mem2)
        rows.append(spk.unsqueeze(0))
    spk_rec, mem_rec = torch.stack(spikes), torch.stack(membranes, dim=0)
    return {
        "spikes": spk_rec,
        "membranes": mem_rec,
        "sum": spk_rec.sum(0),
        "mean": spk_rec.mean(dim=0),
        "last": mem_rec[-1],
        "largest": mem_rec.max(0)[0],
        "joined": torch.cat(rows, dim=0),
        "second_axis": torch.stack(spikes, 1).sum(1),
    }


def lists(m: Any, x: Tensor) -> Any:
    """Python lists returned as they are."""
    mem1 = mem2 = None
    spikes, membranes = [], []
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        spikes.append(spk)
        membranes.append(mem2.detach().clone())
    return spikes, membranes


def two_loops(m: Any, x: Tensor) -> Any:
    """One layer over all timesteps, then the next."""
    mem1, first = None, []
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        first.append(spk)
    mem2, second = None, []
    for spk in first:
        out, mem2 = m.lif2(m.fc2(spk), mem=mem2)
        second.append(out)
    return torch.stack(second)


def sequence_between_loops(m: Any, x: Tensor) -> Any:
    """The recorded sequence is indexed again."""
    mem1, first = None, []
    for _ in range(m.steps):
        spk, mem1 = m.lif1(m.fc1(x), mem1)
        first.append(spk)
    sequence = torch.stack(first)
    mem2, total = None, 0.0
    for t in range(m.steps):
        out, mem2 = m.lif2(m.fc2(sequence[t]), mem2)
        total = total + out
    return total


def after_the_loop(m: Any, x: Tensor) -> Any:
    """A layer on the last spikes, another on the sum."""
    mem1 = mem2 = None
    total = 0
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        total = total + spk
    return m.fc2(spk) + m.fc2(total), m.fc2(mem2)


def one_neuron_twice(m: Any, x: Tensor) -> Any:
    """One module with two states: two neurons."""
    mem1, mem2 = m.lif1.init_leaky(), m.lif1.init_leaky()
    total = 0
    for _ in range(m.steps):
        a, mem1 = m.lif1(m.fc1(x), mem1)
        b, mem2 = m.lif1(m.fc2(a), mem2)
        total = total + b
    return total, mem2


STATIC = [
    sum_from_zero,
    sum_from_the_first,
    sum_into_zeros,
    sum_of_currents,
    python_sum,
    running_maximum,
    written_into_tensors,
    stacks,
    lists,
    two_loops,
    sequence_between_loops,
    after_the_loop,
]


@pytest.mark.parametrize("forward", STATIC, ids=lambda f: f.__name__)
def test_a_static_input_in_a_loop(forward: Any) -> None:
    graph = agree(Written(forward, leaky), 2 * dyadic(2, 4, seed=3))
    assert len(graph.of("neuron")) == 2
    assert graph.base_timesteps == 8
    assert next(n for n in graph.of("linear") if n.path == "fc1").type.timesteps == 1


def test_zeros_sized_by_the_input() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        mem1, mem2 = torch.zeros(x.size(0), 6, device=x.device), torch.zeros(x.shape[0], 6)
        out = torch.zeros(x.shape[0], 6)
        for _ in range(m.steps):
            spk, mem1, mem2 = step(m, x.view(x.size(0), -1), mem1, mem2)
            out = out + spk
        return out

    agree(Written(forward, leaky), 2 * dyadic(2, 2, 2, seed=3))


def started_here(m: Any, x: Tensor) -> Any:
    """States and records as in snnTorch's tutorials."""
    mem1, mem2 = m.lif1.init_leaky(), m.lif2.init_leaky()
    spikes, membranes = [], []
    for _ in range(m.steps):
        spk, mem1, mem2 = step(m, x, mem1, mem2)
        spikes.append(spk)
        membranes.append(mem2)
    return torch.stack(spikes, dim=0), torch.stack(membranes).sum(0), spk, membranes


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("forward", [started_here, sum_from_zero, sum_into_zeros], ids=lambda f: f.__name__)
def test_the_shortest_loops(forward: Any, steps: int) -> None:
    """A state that forward starts itself says that there is a loop, even one of a single timestep."""
    graph = agree(Written(forward, leaky, steps), 4 * dyadic(2, 4, seed=3))
    assert graph.base_timesteps == steps


def test_a_loop_of_one_timestep_over_a_sequence() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        mem1, mem2 = m.lif1.init_leaky(), m.lif2.init_leaky()
        for t in range(x.size(0)):
            spk, mem1, mem2 = step(m, x[t], mem1, mem2)
        return spk, mem2

    agree(Written(forward, leaky), 4 * dyadic(1, 2, 4, seed=3))


def test_a_sequential_with_hidden_states_in_a_loop() -> None:
    """snnTorch's other idiom: ``utils.reset``, and a last layer that returns its membrane."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(1, 4, 3),
                nn.MaxPool2d(2),
                leaky(init_hidden=True),
                nn.Flatten(),
                nn.Linear(16, 5),
                leaky(init_hidden=True, output=True),
            )

        def forward(self, x: Tensor) -> Any:
            spk_rec, mem_rec = [], []
            utils.reset(self.net)
            for _ in range(8):
                spk_out, mem_out = self.net(x)
                spk_rec.append(spk_out)
                mem_rec.append(mem_out)
            return torch.stack(spk_rec), torch.stack(mem_rec)

    graph = agree(make_dyadic(Net()), 2 * dyadic(3, 1, 6, 6, seed=4))
    assert [n.path for n in graph.of("neuron")] == ["net.2", "net.5"]


def by_index(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    spikes = []
    for t in range(x.size(0)):
        spk, mem1, mem2 = step(m, x[t], mem1, mem2)
        spikes.append(spk)
    return torch.stack(spikes), mem1


def by_select(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    for t in range(m.steps):
        spk, mem1, mem2 = step(m, x.select(0, t), mem1, mem2)
    return spk, mem2


def by_unbind(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    frames = torch.unbind(x)
    for t in range(m.steps):
        spk, mem1, mem2 = step(m, frames[t], mem1, mem2)
    return spk, mem2


def by_full_index(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    for t in range(m.steps):
        spk, mem1, mem2 = step(m, x[t, :, :], mem1, mem2)
    return spk, mem2


def by_iteration(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    total = 0
    for frame in x:
        spk, mem1, mem2 = step(m, frame, mem1, mem2)
        total = total + spk
    return total / len(x)


def batch_first_inside(m: Any, x: Tensor) -> Any:
    """Time moved behind the batch before the loop, and back."""
    x = x.transpose(0, 1)
    mem1 = mem2 = None
    spikes = []
    for t in range(m.steps):
        spk, mem1, mem2 = step(m, x[:, t], mem1, mem2)
        spikes.append(spk)
    return torch.stack(spikes, dim=1).transpose(0, 1)


SEQUENCE = [by_index, by_select, by_unbind, by_full_index, by_iteration, batch_first_inside]


@pytest.mark.parametrize("forward", SEQUENCE, ids=lambda f: f.__name__)
def test_a_sequence_in_a_loop(forward: Any) -> None:
    graph = agree(Written(forward, leaky), 2 * dyadic(8, 2, 4, seed=3))
    assert len(graph.of("neuron")) == 2
    assert graph.inputs[0]["time"] == "sequence"


def frames_by_index(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    spikes = []
    for t in range(x.shape[1]):
        spk, mem1, mem2 = step(m, x[:, t], mem1, mem2)
        spikes.append(spk)
    return torch.stack(spikes, dim=1), mem2


def frames_unbound(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    spikes = []
    for frame in x.unbind(1):
        spk, mem1, mem2 = step(m, frame, mem1, mem2)
        spikes.append(spk)
    return torch.stack(spikes, 1)


def frames_transposed(m: Any, x: Tensor) -> Any:
    mem1 = mem2 = None
    spikes = []
    for frame in x.permute(1, 0, 2):
        spk, mem1, mem2 = step(m, frame, mem1, mem2)
        spikes.append(spk)
    return torch.stack(spikes).permute(1, 0, 2)


@pytest.mark.parametrize("forward", [frames_by_index, frames_unbound, frames_transposed], ids=lambda f: f.__name__)
def test_a_batch_of_sequences_in_a_loop(forward: Any) -> None:
    """``[N, T, ...]``, as data loaders give it."""
    graph = agree(Written(forward, leaky), 2 * dyadic(2, 8, 4, seed=3))
    assert (graph.inputs[0]["time"], graph.base_timesteps) == ("batch_first", 8)


def test_a_state_of_its_own_makes_a_second_neuron_refused_by_name() -> None:
    """One module may hold two states in snnTorch, one here."""
    with pytest.raises(Exception, match=r"lif1.*is called again"):
        trace(Written(one_neuron_twice, leaky), dyadic(2, 4))


class Inner(nn.Module):
    """A loop in a submodule that is called once."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 4), leaky(init_hidden=True)

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset_mem()
        return torch.stack([self.lif(self.fc(x)) for _ in range(8)])


def test_a_loop_inside_a_submodule() -> None:
    model = make_dyadic(nn.Sequential(nn.Linear(4, 4), Inner()))
    graph = agree(model, 4 * dyadic(2, 4, seed=5))
    assert [n.path for n in graph.of("neuron")] == ["1.lif"]


class Around(nn.Module):
    """SpikingJelly's usual forward: a loop around a single-step network."""

    def __init__(self, net: nn.Module, steps: int) -> None:
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        out_fr = 0.0
        for _ in range(self.steps):
            out_fr += self.net(x)
        return out_fr / self.steps


def test_a_loop_around_a_spikingjelly_network() -> None:
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        neuron.IFNode(v_reset=None),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Dropout(0.5),
        layer.Linear(36, 5),
        neuron.LIFNode(tau=2.0),
    )
    model = make_dyadic(Around(net, 16)).eval()
    graph = agree(model, dyadic(2, 1, 6, 6, seed=2), reset=functional.reset_net)
    assert graph.base_timesteps == 16
    assert [n.path for n in graph.of("neuron")] == ["net.2", "net.7"]
    assert graph.node("net.0").type.timesteps == 1


def test_a_loop_over_frames_of_a_spikingjelly_network() -> None:
    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.sn = nn.Linear(4, 5), neuron.IFNode()

        def forward(self, x_seq: Tensor) -> Any:
            y, v = [], []
            for t in range(x_seq.shape[0]):
                y.append(self.sn(self.fc(x_seq[t])))
                v.append(self.sn.v)
            return torch.stack(y), torch.stack(v), self.sn.v

    agree(make_dyadic(Frames()).eval(), dyadic(8, 2, 4, seed=2), reset=functional.reset_net)


def test_vgg16_over_sixteen_timesteps_takes_seconds() -> None:
    layers: list[nn.Module] = []
    channels = 1
    for width in (4, 4, 0, 8, 8, 0, 8, 8, 8, 0, 8, 8, 8, 0, 8, 8, 8, 0):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), neuron.IFNode(v_reset=None)]
            channels = width
        else:
            layers.append(nn.AvgPool2d(2))
    model = Around(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 10)), 16).eval()
    start = time.process_time()
    graph = trace(model, torch.rand(1, 1, 32, 32))
    assert time.process_time() - start < 10
    assert len(graph.of("neuron")) == 13
    assert len(graph.of("conv2d")) == 13
