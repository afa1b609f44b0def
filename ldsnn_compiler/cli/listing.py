"""``ldsnn ops``, ``passes``, ``targets``: what is known, read from the declarations themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ldsnn_compiler.cli.common import Answer


def _table(titles: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Any:
    from rich.table import Table

    table = Table(show_lines=False)
    for title in titles:
        table.add_column(title, no_wrap=title == "name", overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table


def ops() -> Answer:
    """List the IR's ops and neuron templates."""
    from ldsnn_compiler.ir.neuron import templates
    from ldsnn_compiler.ir.op import ops as known
    from ldsnn_compiler.ir.text import attr_text

    data: list[dict[str, Any]] = []
    for op in known().values():
        attributes = {
            name: f"{a.type.__name__}"
            if repr(a.default) == "required"
            else f"{a.type.__name__} = {attr_text(a.default)}"
            for name, a in op.attrs.items()
        }
        least, most = op.operands
        data.append(
            {"name": op.name, "kind": op.kind, "operands": [least, most], "attributes": attributes, "doc": op.doc}
        )
    neurons: list[dict[str, Any]] = [
        {
            "name": t.name,
            "parameters": {k: p.default for k, p in t.params.items()},
            "options": {k: c.default for k, c in t.options.items()},
            "retimings": sorted(["micro", *t.retimings]),
            "doc": t.doc,
        }
        for t in templates().values()
    ]
    rows = [(d["name"], d["kind"], ", ".join(f"{k}: {v}" for k, v in d["attributes"].items()), d["doc"]) for d in data]
    shown = [(n["name"], ", ".join(n["parameters"]), ", ".join(n["retimings"]), n["doc"]) for n in neurons]
    return Answer(
        {"ops": data, "neurons": neurons},
        (
            _table(("name", "kind", "attributes", "meaning"), rows),
            _table(("name", "parameters", "retimings", "neuron"), shown),
        ),
    )


def passes() -> Answer:
    """List the passes and their options."""
    from ldsnn_compiler.pipeline import passes as known
    from ldsnn_compiler.pipeline.base import options

    data: list[dict[str, Any]] = [
        {
            "name": name,
            "exact": kind.exact,
            "options": {k: str(o) for k, o in options(kind).items()},
            "doc": _first_paragraph(kind.__doc__),
        }
        for name, kind in known().items()
    ]
    rows = [(d["name"], "yes" if d["exact"] else "no", "; ".join(d["options"].values()), d["doc"]) for d in data]
    return Answer({"passes": data}, (_table(("name", "exact", "options", "does"), rows),))


def targets() -> Answer:
    """List the boards one can compile for."""
    from ldsnn_compiler.targets import boards

    data = [
        {**b.to_json(), "cores": b.cores, "vector_bits": b.vector_bits, "runs_here": not b.missing(), "doc": b.doc}
        for b in boards().values()
    ]
    rows = [
        (d["name"], d["cpu"], str(d["cores"]), str(d["vector_bits"]), "yes" if d["runs_here"] else "no", d["doc"])
        for d in data
    ]
    return Answer({"targets": data}, (_table(("name", "cpu", "cores", "vector bits", "runs here", "board"), rows),))


def _first_paragraph(doc: str | None) -> str:
    return " ".join((doc or "").strip().split("\n\n")[0].split())
