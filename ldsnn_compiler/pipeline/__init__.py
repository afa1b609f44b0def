"""Passes as data, textual pipelines, the runner that checks every pass, and plug-ins.

.. code-block:: python

    run_pipeline(graph, parse_pipeline("canonicalize,assign-timesteps{schedule=s.json},dead-code"), [DumpIR("dumps")])
"""

from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.instruments import DumpIR, Instrument, PrintAfterAll, TimePasses
from ldsnn_compiler.pipeline.plugins import load_plugins
from ldsnn_compiler.pipeline.registry import passes, register_pass
from ldsnn_compiler.pipeline.runner import run_pipeline
from ldsnn_compiler.pipeline.text import FOLD, OPTIMISE, default_pipeline, parse_pipeline, pipeline_text

__all__ = [
    "FOLD",
    "OPTIMISE",
    "DumpIR",
    "Instrument",
    "Pass",
    "PrintAfterAll",
    "TimePasses",
    "default_pipeline",
    "load_plugins",
    "parse_pipeline",
    "passes",
    "pipeline_text",
    "register_pass",
    "run_pipeline",
]
