"""Networks for a Raspberry Pi 4, run, profiled and tuned over RPC on an emulated one: compiled here, computed there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from emulation import machine
from graphs import inputs_of
from rpc_servers import free_port, process, server_command
from target_harness import check_steps
from tuning_worker import compiled, network

import ldsnn_compiler as ld
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.runtime import Compiled, remote
from ldsnn_compiler.tuning.tune import tune

pytestmark = pytest.mark.arm_emulation
BOARD, ANSWER_S = "raspberry-pi-4", 120.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of TVM's RPC server on the emulated board."""
    port = free_port()
    with process(server_command(port, "pi", str(machine.folder() / "python")), port, machine.environment()):
        yield f"127.0.0.1:{port},pi"


@pytest.fixture
def there(address: str, monkeypatch: pytest.MonkeyPatch) -> Compiled:
    monkeypatch.setattr(remote, "ANSWER_S", ANSWER_S)
    return compiled(target=BOARD).on(ld.connect(address))


def test_a_board_gives_the_interpreters_bits(there: Compiled) -> None:
    given = inputs_of(there.graph, 1)
    with torch.no_grad():
        assert torch.equal(there.run(*given)[0], Interpreter(there.graph).run(*given)[0])
    check_steps(there, given, 1)


def test_regions_are_timed_and_tuned_there(there: Compiled, tmp_path: Path) -> None:
    given = inputs_of(there.graph, 1)
    profile = there.profile(*given, repeats=1)
    assert profile.latency_ms > 0 and all(r.ms > 0 for r in profile.regions if r.kernel != "plain")
    found = tune(there, trials=1, storage=tmp_path / "t.sqlite")
    assert all(row.measured for row in found.rows)
    assert torch.equal(found.network.run(*given)[0], there.run(*given)[0])


def test_code_for_another_processor_is_refused_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ANSWER_S", ANSWER_S)
    with pytest.raises(LdsnnError, match="loading the library failed"):
        ld.compile(network(), threads=1, tuned=False).on(ld.connect(address))
