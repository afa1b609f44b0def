"""TVM's thread pool, which is one per process: how many threads it may have, and how many a network uses.

Left alone, TVM halves the cores it sees (it assumes hyper-threads), so that a machine of two cores gets one thread. The
pool takes its size when it first runs; this module sets that to the cores this process may use, unless the user has set
``TVM_NUM_THREADS``, and each network then asks for its own number out of the pool.
"""

from __future__ import annotations

import os

from ldsnn_compiler.errors import LdsnnError

_BIG_CORES = 1
_configured: int | None = None

os.environ.setdefault("TVM_NUM_THREADS", str(len(os.sched_getaffinity(0))))


def available() -> int:
    """Threads the pool can have."""
    text = os.environ["TVM_NUM_THREADS"]
    if not text.isdigit() or int(text) < 1:
        raise LdsnnError(f"TVM_NUM_THREADS is a whole number from 1, not {text!r}")
    return int(text)


def use(threads: int) -> None:
    """Let the next calls run on this many threads (or as many as there are)."""
    global _configured
    wanted = min(threads, available())
    if wanted != _configured:
        import tvm

        tvm.get_global_func("runtime.config_threadpool")(_BIG_CORES, wanted)
        _configured = wanted
