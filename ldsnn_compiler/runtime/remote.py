"""A board behind TVM's RPC: its server (``python -m tvm.exec.rpc_server --key pi``), or a tracker that servers register
with.

.. code-block:: python

    board = ld.connect("192.168.1.20:9090,pi")
    there = ld.compile(net, target="raspberry-pi-4").on(board)
    there(x)

Libraries and weights are uploaded once, then inputs travel there and outputs back; streaming state stays there.
"""

from __future__ import annotations

import re
import socket
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.runtime.device import Entry
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.targets.boards import Board

ANSWER_S = 10.0
"""Seconds after which a server that is there is taken to serve somebody else."""
START = "python -m tvm.exec.rpc_server --host 0.0.0.0 --port 9090 --key NAME"


@dataclass(frozen=True)
class Address:
    """``host:port,key`` of a server or a tracker."""

    host: str
    port: int
    key: str = ""

    @classmethod
    def read(cls, text: str) -> Address:
        """From text; the key may be missing where the server has none."""
        found = re.fullmatch(r"\[?([^,\s]+?)\]?:(\d{1,5})(?:,([^,\s]+))?", text)
        if found is None or not 0 < int(found[2]) < 65536:
            raise LdsnnError(Problem(f"a board is host:port,key, not {text!r}", where="--rpc"))
        return cls(found[1], int(found[2]), found[3] or "")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" + (f",{self.key}" if self.key else "")


class ConnectionLost(LdsnnError):
    """The board went away in the middle."""


def connect(address: str) -> Remote:
    """The board at ``host:port,key``; from a tracker, the first free one of that key (and no other can have it then).

    Raises:
        LdsnnError: there is no server, it is busy, or the key is another.
    """
    at = Address.read(address)
    if _is_tracker(at):
        return Remote(at, _requested(at))
    from tvm import rpc

    try:
        return Remote(at, rpc.connect(at.host, at.port, at.key))
    except (RuntimeError, OSError) as error:
        hint = "the key is what the server was started with, --key"
        message = f"the server does not know the key {at.key!r}" if "key" in str(error) else _first_line(error)
        raise LdsnnError(Problem(message, where=str(at), hint=hint)) from error


class Remote:
    """A session with a board; see :class:`~ldsnn_compiler.runtime.device.Device`. It lasts as long as this object and
    what was put there: nobody else can have the board meanwhile."""

    def __init__(self, address: Address, session: Any) -> None:
        self.address, self._session = address, session
        self._numbers = count()

    is_here = False

    @property
    def name(self) -> str:
        return str(self.address)

    @property
    def place(self) -> Any:
        return self._session.cpu()

    def missing(self, board: Board) -> tuple[str, ...]:
        """Nothing that is known here: loading a library made for another processor fails, and says so."""
        return ()

    def use(self, threads: int) -> None:
        with self.talking("setting threads"):
            self._session.get_function("runtime.config_threadpool")(1, threads)

    def load(self, library: Library) -> Any:
        """Upload the library under a name of its own, load it, and remove the file again."""
        name = f"ldsnn{next(self._numbers)}.so"
        with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch, self.talking("loading the library"):
            path = Path(scratch) / name
            library.write(path)
            self._session.upload(bytearray(path.read_bytes()), name)
            module = self._session.load_module(name)
            self._session.remove(name)
            return module

    def machine(self, module: Any, entries: Sequence[str]) -> tuple[Any, Mapping[str, Entry]]:
        from tvm import relax

        with self.talking("starting the virtual machine"):
            vm = relax.VirtualMachine(module, self.place)
        return vm, {entry: self._entry(vm, entry) for entry in entries}

    def _entry(self, vm: Any, entry: str) -> Entry:
        """What is returned as a tuple comes over the network one by one.

        TVM's own ``get_outputs`` leaves a cycle behind that holds the machine, and with it the board, until Python
        looks for garbage.
        """
        arity, output = vm["get_output_arity"], vm["get_output"]

        def call(*arguments: Any) -> Sequence[Any]:
            with self.talking("running"):
                vm.set_input(entry, *arguments)
                vm.invoke_stateful(entry)
                return [output(entry, i) for i in range(arity(entry))]

        return call

    def times(self, vm: Any, entry: str, arguments: Sequence[Any], repeats: int) -> list[float]:
        with self.talking("timing"):
            vm.set_input(entry, *arguments)
            evaluate = vm.time_evaluator("invoke_stateful", self.place, number=1, repeat=repeats)
            return list(evaluate(entry).results)

    def put(self, x: torch.Tensor) -> Any:
        import tvm

        with self.talking("sending data"):
            return tvm.runtime.tensor(x.detach().contiguous().numpy(), self.place)

    def get(self, x: Any) -> torch.Tensor:
        with self.talking("receiving data"):
            return torch.from_numpy(x.numpy())

    @contextmanager
    def talking(self, what: str) -> Iterator[None]:
        """Errors of TVM's RPC become :class:`~ldsnn_compiler.errors.LdsnnError`, saying whether the board is gone."""
        try:
            yield
        except (RuntimeError, OSError, ValueError) as error:
            if not self._is_there():
                hint = "start the server again; what was measured is kept"
                raise ConnectionLost(Problem(f"connection lost while {what}", where=self.name, hint=hint)) from error
            raise LdsnnError(Problem(f"{what} failed, {_first_line(error)}", where=self.name)) from error

    def _is_there(self) -> bool:
        try:
            return self._session.get_function("tvm.rpc.server.workpath") is not None
        except (RuntimeError, OSError):
            return False


def _is_tracker(at: Address) -> bool:
    """A tracker answers its greeting with the same; a server hangs up; one that serves somebody else keeps silent."""
    from tvm.rpc.base import RPC_TRACKER_MAGIC

    try:
        with socket.create_connection((at.host, at.port), ANSWER_S) as probe:
            probe.sendall(struct.pack("<i", RPC_TRACKER_MAGIC))
            return probe.recv(4) == struct.pack("<i", RPC_TRACKER_MAGIC)
    except TimeoutError:
        hint = "it serves one client at a time; is another one connected?"
        raise LdsnnError(Problem("there is no answer", where=str(at), hint=hint)) from None
    except ConnectionResetError:
        return False
    except OSError as error:
        why = error.strerror or str(error)
        raise LdsnnError(Problem(f"no RPC server, {why}", where=str(at), hint=f"on the board: {START}")) from None


def _requested(at: Address) -> Any:
    """A session from a tracker."""
    from tvm import rpc

    try:
        tracker = rpc.connect_tracker(at.host, at.port)
        known = {server["key"].removeprefix("server:") for server in tracker.summary()["server_info"]}
        if at.key not in known:
            there = f"it knows {', '.join(sorted(known))}" if known else "no server has registered with it"
            raise LdsnnError(Problem(f"the tracker does not know the key {at.key!r}", where=str(at), hint=there))
        return tracker.request(at.key)
    except (RuntimeError, OSError) as error:
        raise LdsnnError(Problem(f"the tracker gives no server, {_first_line(error)}", where=str(at))) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
