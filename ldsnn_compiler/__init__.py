"""Compiles spiking neural networks with a timestep count per layer: PyTorch in, tuned code out.

import ldsnn_compiler as ld
net = ld.trace(model, example, timesteps=64)
compiled = ld.compile(net, schedule="schedule.json", target="native")
compiled(x); compiled.profile(x); compiled.save("net.ldsnn")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ldsnn_compiler.driver import compile as compile
    from ldsnn_compiler.events import Binning as Binning
    from ldsnn_compiler.events import EventStream as EventStream
    from ldsnn_compiler.events import frames as frames
    from ldsnn_compiler.files import read as read
    from ldsnn_compiler.files import write as write
    from ldsnn_compiler.frontend import trace as trace
    from ldsnn_compiler.frontend.conversion import convert as convert
    from ldsnn_compiler.integers import Calibration as Calibration
    from ldsnn_compiler.integers import calibrate as calibrate
    from ldsnn_compiler.interp.module import Interpreter as Interpreter
    from ldsnn_compiler.interp.work import count_work as count_work
    from ldsnn_compiler.ir.graph import Graph as Graph
    from ldsnn_compiler.ir.verify import verify as verify
    from ldsnn_compiler.runtime import Compiled as Compiled
    from ldsnn_compiler.runtime import load as load
    from ldsnn_compiler.runtime.remote import connect as connect
    from ldsnn_compiler.schedule import Schedule as Schedule
    from ldsnn_compiler.search.optimize import optimize as optimize
    from ldsnn_compiler.tuning.tune import tune as tune

__version__ = "0.1.0"

__all__ = [
    "Binning",
    "Calibration",
    "Compiled",
    "EventStream",
    "Graph",
    "Interpreter",
    "Schedule",
    "calibrate",
    "compile",
    "connect",
    "convert",
    "count_work",
    "frames",
    "load",
    "optimize",
    "read",
    "trace",
    "tune",
    "verify",
    "write",
]

#: public name -> (module, attribute); loaded on first use, so that the command line starts fast
_PUBLIC = {
    "Calibration": ("integers", "Calibration"),
    "Binning": ("events", "Binning"),
    "Compiled": ("runtime", "Compiled"),
    "EventStream": ("events", "EventStream"),
    "Graph": ("ir.graph", "Graph"),
    "Interpreter": ("interp.module", "Interpreter"),
    "Schedule": ("schedule", "Schedule"),
    "calibrate": ("integers", "calibrate"),
    "compile": ("driver", "compile"),
    "connect": ("runtime.remote", "connect"),
    "convert": ("frontend.conversion", "convert"),
    "count_work": ("interp.work", "count_work"),
    "frames": ("events", "frames"),
    "load": ("runtime", "load"),
    "optimize": ("search.optimize", "optimize"),
    "read": ("files", "read"),
    "trace": ("frontend", "trace"),
    "tune": ("tuning.tune", "tune"),
    "verify": ("ir.verify", "verify"),
    "write": ("files", "write"),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
