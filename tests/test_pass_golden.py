"""Short IR in, expected IR out, and the same bits from the interpreter where the passes are exact.

``golden/<case>.in.ldir`` starts with a comment naming its pipeline, ``// run: canonicalize``;
``golden/<case>.out.ldir`` is what comes out. ``pytest tests/test_pass_golden.py --update-golden`` rewrites the latter.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graphs import assert_same_outputs

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix(".in.ldir") for path in GOLDEN.glob("*.in.ldir"))


def _filled(text: str, file: str) -> Graph:
    """The graph with dyadic weights; variances are 4, so that their roots are powers of two."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, value in sorted(parse_graph(text, file=file).tensors.items()):
        drawn = torch.randint(-8, 9, value.shape, generator=generator).float() / 8
        tensors[name] = torch.full_like(drawn, 4.0) if name.endswith("var") else drawn
    return parse_graph(text, tensors, file)


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, request: pytest.FixtureRequest) -> None:
    source, expected = GOLDEN / f"{case}.in.ldir", GOLDEN / f"{case}.out.ldir"
    text = source.read_text()
    pipeline = parse_pipeline(text.splitlines()[0].removeprefix("// run: "))
    before = _filled(text, source.name)
    after = run_pipeline(before.clone(), pipeline)
    if all(each.exact for each in pipeline):
        assert_same_outputs(before, after)
    if request.config.getoption("--update-golden"):
        expected.write_text(graph_text(after, hashes=False))
    assert graph_text(after, hashes=False) == expected.read_text()


def test_every_expected_file_has_its_input() -> None:
    expected = {path.name.removesuffix(".out.ldir") for path in GOLDEN.glob("*.out.ldir")}
    assert expected == set(CASES), "orphans, or inputs never run with --update-golden"
    assert {path.name.split(".", 1)[1] for path in GOLDEN.iterdir()} == {"in.ldir", "out.ldir"}
