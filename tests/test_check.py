"""``ldsnn check`` on a model of every library: the layers as they would be imported, or all problems at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import as_json, call

HEAD = """
import torch
from torch import nn

torch.manual_seed(0)
"""
MODELS = {
    "spikingjelly": """
from spikingjelly.activation_based import layer, neuron

def good():
    net = nn.Sequential(layer.Conv2d(1, 2, 3, step_mode="m"), neuron.LIFNode(step_mode="m"))
    return net, torch.zeros(5, 1, 1, 6, 6)

def bad():
    return nn.Sequential(neuron.GatedLIFNode(T=5), nn.GELU(), neuron.PSN(5)), torch.zeros(5, 1, 4)
""",
    "snntorch": """
import snntorch as snn

class Net(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 3), snn.Leaky(beta=0.5, **settings)
        self.out = nn.Linear(3, 2)
        self.last = snn.Synaptic(alpha=0.5, beta=0.5)

    def forward(self, x):
        mem, (syn, last), spikes = self.lif.init_leaky(), self.last.init_synaptic(), []
        for t in range(5):
            s, mem = self.lif(self.fc(x[t]), mem)
            s, syn, last = self.last(self.out(s), syn, last)
            spikes.append(s)
        return torch.stack(spikes)

def good():
    return Net(), torch.zeros(5, 1, 4)

def bad():
    net = Net(inhibition=True)
    net.last.inhibition = True
    return net, torch.zeros(5, 1, 4)
""",
    "norse": """
import norse.torch as norse

def good():
    net = norse.SequentialState(nn.Linear(4, 3), norse.LIFCell(), nn.Linear(3, 2), norse.LICell())
    return norse.Lift(net), torch.zeros(5, 1, 4)

def bad():
    net = norse.SequentialState(nn.GELU(), norse.LIFExCell(), norse.LIFAdExCell())
    return norse.Lift(net), torch.zeros(5, 1, 4)
""",
    "sinabs": """
import sinabs.layers as sl

def good():
    return nn.Sequential(nn.Linear(4, 3), sl.ALIF(tau_mem=5.0, tau_adapt=9.0)), torch.zeros(1, 5, 4)

def bad():
    return nn.Sequential(sl.LIF(tau_mem=5.0, spike_fn=abs), nn.GELU(), sl.IAF(reset_fn=abs)), torch.zeros(1, 5, 4)
""",
    "torch": """
class Loop(nn.Module):
    def __init__(self, middle):
        super().__init__()
        self.fc, self.middle = nn.Linear(4, 3), middle

    def forward(self, x):
        v, spikes = torch.zeros(x.shape[1], 3), []
        for t in range(5):
            v = 0.5 * v + self.middle(self.fc(x[t]))
            s = (v > 1.0).float()
            v = v - s
            spikes.append(s)
        return torch.stack(spikes)

def good():
    return Loop(nn.Identity()), torch.zeros(5, 1, 4)

def bad():
    return Loop(nn.Sequential(nn.GELU(), nn.Softmax(-1))), torch.zeros(5, 1, 4)
""",
}
STATES = {"spikingjelly": [32], "snntorch": [3, 4], "norse": [6, 4], "sinabs": [6], "torch": [3]}
"""Numbers kept for a sample by each neuron layer of the good models."""
LIBRARIES = [pytest.param(n, marks=[getattr(pytest.mark, n)] if n != "torch" else []) for n in MODELS]


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The file with the models of a library."""
    path = tmp_path / f"a_{request.param}.py"
    path.write_text(HEAD + MODELS[request.param])
    return str(path)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("model", LIBRARIES, indirect=True)
def test_layers_as_they_would_be_imported(model: str) -> None:
    found = as_json("check", f"{model}:good")
    assert found["base_timesteps"] == 5 and found["problems"] == []
    neurons = [x for x in found["layers"] if x["op"] == "neuron"]
    assert [x["state"] for x in neurons] == STATES[Path(model).stem[2:]]
    assert all(x["timesteps"] == 5 and x["path"] and x["settings"] for x in neurons)
    weights = [x for x in found["layers"] if x["op"] in ("linear", "conv2d")]
    assert weights and all(x["parameters"] > 0 and x["kind"] in ("Linear", "Conv2d") for x in weights)
    shown = call("check", f"{model}:good")
    assert shown.exit_code == 0
    for title in ("module", "class", "op", "T", "shape", "parameters", "state", "can be compiled"):
        assert title in shown.stdout


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", LIBRARIES, indirect=True)
def test_all_problems_at_once_and_an_exit_code(model: str) -> None:
    result = call("check", f"{model}:bad", "--json")
    problems = json.loads(result.stdout)["problems"]
    assert result.exit_code == 1 and len(problems) >= 2
    assert all(p["message"] and p["where"] for p in problems)
    assert result.stderr.count("error: ") == len(problems)
    assert len({p["where"] for p in problems}) >= 2


@pytest.mark.nir
@pytest.mark.filterwarnings("ignore")
def test_nir_files_graphs_and_bundles(tmp_path: Path) -> None:
    import nir_nets as nets

    import ldsnn_compiler as ld

    path = nets.written(nets.chain(nets.made("LIF")), tmp_path)
    options = ("--timesteps", "5", "--dt", "0.5")
    found = as_json("check", path, *options)
    assert [(x["op"], x["timesteps"], x["state"]) for x in found["layers"]][-1] == ("neuron", 5, 2)
    graph = ld.read(path, 5, 0.5)
    ld.write(graph, tmp_path / "net.ldir")
    ld.compile(graph, threads=1).save(tmp_path / "net.ldsnn")
    for other in ("net.ldir", "net.ldsnn"):
        layers = as_json("check", tmp_path / other)["layers"]
        assert ("neuron", 5, 2) in [(x["op"], x["timesteps"], x["state"]) for x in layers]
