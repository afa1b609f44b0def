"""Textual pipelines: they print as they parse, and every mistake is located."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldsnn_compiler.errors import LdsnnError, ParseError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.pipeline import Pass, default_pipeline, parse_pipeline, passes, pipeline_text, register_pass
from ldsnn_compiler.pipeline.registry import _PASSES


@dataclass(frozen=True)
class Every(Pass):
    """One option of each kind."""

    name: ClassVar[str] = "test-every-option"
    exact: ClassVar[bool] = True
    flag: bool = False
    count: int = 1
    ratio: float = 0.5
    text: str = "a"
    file: Path = Path("f")
    maybe: str | None = None
    number: int | None = 3

    def run(self, graph: Graph) -> bool:
        return False


@dataclass(frozen=True)
class Needs(Pass):
    name: ClassVar[str] = "test-needs-one"
    exact: ClassVar[bool] = True
    value: int

    def run(self, graph: Graph) -> bool:
        return False


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    register_pass(Every)
    register_pass(Needs)
    yield
    del _PASSES[Every.name], _PASSES[Needs.name]


@given(
    st.builds(
        Every,
        flag=st.booleans(),
        count=st.integers(),
        ratio=st.floats(allow_nan=False),
        text=st.text(),
        file=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).map(Path),
        maybe=st.none() | st.text() | st.sampled_from(["none", "true", "1"]),
        number=st.none() | st.integers(),
    )
)
def test_every_value_prints_and_parses_back(each: Every) -> None:
    assert parse_pipeline(str(each)) == (each,)


def test_text_of_a_pipeline() -> None:
    text = 'canonicalize,test-every-option{flag=true,text="a b",maybe="none",number=none},dead-code'
    assert pipeline_text(parse_pipeline(text)) == text
    assert parse_pipeline(" ") == ()
    assert parse_pipeline("canonicalize , dead-code { }") == parse_pipeline("canonicalize,dead-code")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("canonicalise", "pipeline:1: unknown pass 'canonicalise' (did you mean canonicalize"),
        ("dead-code,,dead-code", "pipeline:11: expected a pass, found ','"),
        ("dead-code,", "pipeline:11: expected a pass, found the end"),
        ("dead-code dead-code", "pipeline:11: expected ',' or the end, found 'd'"),
        ("dead-code{", "pipeline:11: expected an option, found the end"),
        ("test-needs-one", "pipeline:1: test-needs-one needs the option value: int"),
        ("test-needs-one{value=}", "pipeline:22: expected a value, found '}'"),
        ("test-needs-one{value=1.5}", "pipeline:22: expected value: int, not '1.5'"),
        ("test-needs-one{value=1,value=2}", "pipeline:24: option 'value' is given twice"),
        ("test-needs-one{valeu=1,value=2}", "pipeline:16: test-needs-one has no option 'valeu' (did you mean value?)"),
        ("test-every-option{flag=yes}", "pipeline:24: expected flag: bool = false, not 'yes'"),
        ("test-every-option{count=none}", "pipeline:25: expected count: int = 1, not 'none'"),
        ('test-every-option{text="a}', "pipeline:24: expected a closing quote"),
        ('test-every-option{text="\\x"}', 'pipeline:24: "\\x" is not a JSON string'),
    ],
)
def test_mistakes_are_located(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_pipeline(text)
    assert str(caught.value).startswith(message)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ParseError) as caught:
        parse_pipeline("nothing,test-every-option{count=x,what=1},dead-code,test-needs-one")
    assert [p.where for p in caught.value.problems] == ["pipeline:1", "pipeline:33", "pipeline:35", "pipeline:53"]


def test_a_name_is_taken_once() -> None:
    @dataclass(frozen=True)
    class Other(Pass):
        name: ClassVar[str] = "canonicalize"
        exact: ClassVar[bool] = True

        def run(self, graph: Graph) -> bool:
            return False

    with pytest.raises(LdsnnError, match=r"registered already, by ldsnn_compiler\.passes\.canonicalize\.Canonicalize"):
        register_pass(Other)
    assert register_pass(passes()["canonicalize"]) is passes()["canonicalize"]


def test_a_pass_must_be_well_formed() -> None:
    class Loose(Pass):
        name: ClassVar[str] = "Not_Kebab"

        def run(self, graph: Graph) -> bool:
            return False

    with pytest.raises(LdsnnError) as caught:
        register_pass(Loose)
    assert "kebab-case name, not 'Not_Kebab'" in str(caught.value)
    assert "declares whether it is exact" in str(caught.value)


def test_an_option_needs_a_text_form() -> None:
    with pytest.raises(LdsnnError, match="option sizes of pass 'test-sizes' is one of bool, int, float, str, Path"):
        register_pass(Sizes)


@dataclass(frozen=True)
class Sizes(Pass):
    name: ClassVar[str] = "test-sizes"
    exact: ClassVar[bool] = True
    sizes: tuple[int, ...] = ()

    def run(self, graph: Graph) -> bool:
        return False


def test_every_built_in_pass_prints_and_explains_itself() -> None:
    built_in = {n: kind for n, kind in passes().items() if kind.__module__.startswith("ldsnn_compiler.")}
    assert len(built_in) >= 7
    for name, kind in built_in.items():
        assert kind.name == name and kind.__doc__, name
        assert parse_pipeline(name) == (kind(),)


def test_the_default_pipeline_takes_a_schedule_file() -> None:
    plain, given = parse_pipeline(default_pipeline()), parse_pipeline(default_pipeline("a b/s.json"))
    differing = [str(b) for a, b in zip(plain, given, strict=True) if a != b]
    assert differing == ['assign-timesteps{schedule="a b/s.json"}']


def test_the_default_pipeline_goes_on_from_a_stage() -> None:
    whole = default_pipeline()
    later = [default_pipeline(stage=stage) for stage in ("scheduled", "placed", "fused")]
    assert [whole.endswith(text) for text in later] == [True] * 3
    assert [text.partition(",")[0] for text in later] == ["commute-resample", "fuse-timesteps", ""]
