"""Networks on a board: TVM's RPC server as another process of this machine."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import inputs_of
from rpc_servers import free_port, kill, process, server_command, tracker_command
from tuning_worker import MadeUp, compiled, network
from typer.testing import CliRunner, Result

import ldsnn_compiler as ld
from ldsnn_compiler.cli.app import app
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.store import write_graph
from ldsnn_compiler.runtime import Compiled, remote
from ldsnn_compiler.runtime.remote import Address, ConnectionLost
from ldsnn_compiler.tuning.bench import DeviceBench
from ldsnn_compiler.tuning.tune import tune

KEY = "board"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server that all tests of this file may use, one after the other."""
    port = free_port()
    with process(server_command(port, KEY), port):
        yield f"127.0.0.1:{port},{KEY}"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time to end a session."""
    monkeypatch.setattr(remote, "ANSWER_S", 60.0)


@pytest.fixture(scope="module")
def here() -> Compiled:
    return compiled()


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_board_gives_the_bits_of_this_process(address: str, here: Compiled) -> None:
    there, given = here.on(ld.connect(address)), inputs_of(here.graph, 1)
    assert torch.equal(there.run(*given)[0], here.run(*given)[0])
    assert torch.equal(there(given[0]), here(given[0]))
    here.reset()
    for t in range(here.graph.base_timesteps):
        now = [x[t : t + 1] for x in given]
        assert torch.equal(there.step(*now)[0], here.step(*now)[0])
        for node, variables in here.state.items():
            assert all(torch.equal(there.state[node][k], v) for k, v in variables.items())
    assert not there.device.is_here and there.device.name == address


def test_a_board_is_profiled_region_by_region(address: str, here: Compiled) -> None:
    given = inputs_of(here.graph, 1)
    found, wanted = (net.profile(*given, repeats=2) for net in (here.on(ld.connect(address)), here))
    assert [r.nodes for r in found.regions] == [r.nodes for r in wanted.regions]
    assert found.latency_ms > 0 and all(r.ms > 0 for r in found.regions if r.kernel != "plain")
    assert found.totals == wanted.totals


def test_a_bundle_runs_on_a_board(address: str, here: Compiled, tmp_path: Path) -> None:
    here.save(tmp_path / "net.ldsnn")
    there, given = ld.load(tmp_path / "net.ldsnn", ld.connect(address)), inputs_of(here.graph, 1)
    assert torch.equal(there.run(*given)[0], here.run(*given)[0])


def test_regions_are_tuned_on_the_board(address: str, here: Compiled, tmp_path: Path) -> None:
    found = tune(here.on(ld.connect(address)), trials=1, storage=tmp_path / "t.sqlite")
    assert [row.measured >= 1 for row in found.rows] == [True] * 3
    assert found.to_json()["device"] == address and found.before.median > 0
    given = inputs_of(here.graph, 1)
    assert torch.equal(found.network.run(*given)[0], here.run(*given)[0])


def test_commands_run_on_the_board(address: str, tmp_path: Path) -> None:
    graph = network()
    write_graph(graph, tmp_path / "net.ldir")
    x, z = (inputs_of(graph, 4, seed)[0].transpose(0, 1).numpy() for seed in (0, 1))
    labels = np.zeros(4, np.int64)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=labels, x_test=z, y_test=labels)
    common = (tmp_path / "net.ldir", "--data", tmp_path / "data.npz", "--rpc", address, "--json")
    ran = call("run", *common, "--repeats", 2, "--no-work")
    assert ran.exit_code == 0, ran.output
    (row,) = json.loads(ran.stdout)["rows"]
    assert row["latency_ms"] > 0
    profiled = call("profile", *common, "--repeats", 2)
    assert profiled.exit_code == 0 and json.loads(profiled.stdout)["regions"], profiled.output
    storage = tmp_path / "t.sqlite"
    tuned = call("tune", *common, "--trials", 1, "--storage", storage)
    assert tuned.exit_code == 0, tuned.output
    found = json.loads(tuned.stdout)
    assert len(found["regions"]) == 3 and found["device"] == address and found["database"] == str(storage)
    assert call("tune", *common[:-1], "--trials", 1, "--storage", storage).exit_code == 0
    refused = call("run", *common[:-1], "--interpreter")
    assert refused.exit_code == 1 and "--rpc: boards run compiled code" in refused.output


def test_wrong_addresses_are_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("board", "host:,key", "host:99999", "host:80,a b"):
        with pytest.raises(LdsnnError, match="a board is host:port,key"):
            ld.connect(text)
    assert str(Address.read("pi.local:9090,pi")) == "pi.local:9090,pi" and Address.read("[::1]:80").host == "::1"
    with pytest.raises(LdsnnError, match=r"no RPC server, .*on the board: python -m tvm"):
        ld.connect(f"127.0.0.1:{free_port()},{KEY}")
    with pytest.raises(LdsnnError, match="does not know the key 'other'"):
        ld.connect(f"{address.partition(',')[0]},other")
    monkeypatch.setattr(remote, "ANSWER_S", 0.2)
    held = ld.connect(address)
    with pytest.raises(LdsnnError, match=r"no answer .*is another one connected"):
        ld.connect(address)
    del held
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(LdsnnError, match="no answer"):
            ld.connect(f"127.0.0.1:{silent.getsockname()[1]},{KEY}")


def test_a_lost_connection_is_said_and_tuning_goes_on_afterwards(here: Compiled, tmp_path: Path) -> None:
    port, given, storage = free_port(), inputs_of(here.graph, 1), tmp_path / "t.sqlite"

    class Unplugged(MadeUp):
        """The board goes away in the middle of the third measurement."""

        def compare(self, region, tuning, rounds):  # type: ignore[no-untyped-def]
            if len(self.measured) == 2:
                kill(server)
                return DeviceBench(there).compare(region, tuning, rounds)
            return super().compare(region, tuning, rounds)

    with process(server_command(port, KEY), port) as server:
        there = here.on(ld.connect(f"127.0.0.1:{port},{KEY}"))
        bench = Unplugged()
        with pytest.raises(ConnectionLost, match=r"connection lost while .*start the server again"):
            tune(there, trials=2, storage=storage, bench=bench)
        with pytest.raises(ConnectionLost, match="connection lost"):
            there.run(*given)
    rest, whole = MadeUp(), MadeUp()
    tune(here, trials=2, storage=storage, bench=rest)
    tune(here, trials=2, storage=tmp_path / "whole.sqlite", bench=whole)
    assert bench.measured + rest.measured == whole.measured


def eventually(address: str, seconds: float = 120.0) -> remote.Remote:
    """A board behind a tracker: a server answers on its port before it has told the tracker."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ld.connect(address)
        except LdsnnError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def test_a_tracker_gives_a_board_by_its_key(here: Compiled) -> None:
    tracker, port = free_port(), free_port()
    at = f"127.0.0.1:{tracker}"
    with process(tracker_command(tracker), tracker):
        with pytest.raises(LdsnnError, match=r"the tracker does not know the key 'pi' \(no server has registered"):
            ld.connect(f"{at},pi")
        with process(server_command(port, "pi", more=("--tracker", at)), port):
            there, given = here.on(eventually(f"{at},pi")), inputs_of(here.graph, 1)
            assert torch.equal(there.run(*given)[0], here.run(*given)[0])
            with pytest.raises(LdsnnError, match="does not know the key 'other' "):
                ld.connect(f"{at},other")
