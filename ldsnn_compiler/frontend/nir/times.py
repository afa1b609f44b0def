"""When a graph's values are there, in NIR's terms: NIR has one time, that of the run.

``run``        a value for every base step
``constant``   one value for the whole run: a static input, and what is computed of it alone
``mean``, ``max``, ``last``
               a readout of the run, and what is computed of it, as far as that could as well be computed before
"""

from __future__ import annotations

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.ir.graph import Graph, Node, Value

RUN, CONSTANT = "run", "constant"
_HINT = "NIR has one time for the whole network: export it as traced, with its schedule"


def time_roles(graph: Graph) -> tuple[dict[Value, str], list[Problem]]:
    """The role of every value; problems name the nodes that run on times of their own."""
    roles: dict[Value, str] = {}
    problems = []
    for node in graph.nodes:
        role = _role(graph, node, {roles[o] for o in node.operands if o in roles})
        if role is None:
            message = f"runs on {node.type.timesteps} timesteps of {node.type.dt} base steps"
            problems.append(Problem(message, node.path or node.name, node.op.name, hint=_HINT))
        roles |= {value: role or RUN for value in node.results}
    return roles, problems


def _role(graph: Graph, node: Node, given: set[str]) -> str | None:
    """None for a node that NIR's one time cannot hold."""
    whole = node.type.timesteps == 1
    if node.op.name == "input":
        return RUN if node.type.dt == 1 else (CONSTANT if whole else None)
    if node.op.name in ("resample", "readout") and node.type.dt != 1:
        mode = node["mode"] if node.op.name == "readout" else "mean"
        return mode if whole and given <= {RUN} else None
    if node.type.dt == 1:
        return RUN
    only = given.pop() if len(given) == 1 else None
    if node.op.name == "output":
        return only
    commutes = {CONSTANT: node.op.acts_per_step, "last": node.op.acts_per_step, "mean": node.op.kind == "linear"}
    return only if only is not None and commutes.get(only, False) else None
