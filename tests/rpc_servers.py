"""TVM's RPC server and tracker as processes of their own, on free ports of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

START_S = 120.0
"""Seconds within which a server has to listen, also an emulated one."""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: Sequence[str], port: int, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[Any]]:
    """A server in a group of its own, listening on ``port``; in the end the whole group is killed."""
    started = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        end = time.monotonic() + START_S
        while not _listens(port):
            assert started.poll() is None and time.monotonic() < end, f"no server: {' '.join(command)}"
            time.sleep(0.2)
        yield started
    finally:
        kill(started)


def kill(server: subprocess.Popen[Any]) -> None:
    """Kill a server and all that it started, at once."""
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    server.wait()


def server_command(port: int, key: str, python: str = sys.executable, more: Sequence[str] = ()) -> list[str]:
    """TVM's RPC server on exactly that port."""
    return [python, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--port", str(port), "--port-end",
            str(port + 1), "--key", key, *more]  # fmt: skip


def tracker_command(port: int) -> list[str]:
    """TVM's tracker on exactly that port."""
    return [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1", "--port", str(port), "--port-end",
            str(port + 1)]  # fmt: skip


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
