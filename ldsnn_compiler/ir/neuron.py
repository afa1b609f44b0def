"""Neurons: templates of neuron programs with named parameters, and their retiming.

A :class:`Template` turns structural *options* (how it resets, when it fires) into a
:class:`~ldsnn_compiler.ir.program.Program` and lists the numeric *parameters* the program reads. A :class:`Neuron` is a
template with values. Templates register themselves when their file under ``ldsnn_compiler/ir/neurons`` (or a plug-in)
is imported; a new neuron is one file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.fixed import whole
from ldsnn_compiler.ir.program import Program
from ldsnn_compiler.ir.types import REAL, Signal

Option = str | int | bool
Options = Mapping[str, Option]


@dataclass(frozen=True)
class TensorRef:
    """A tensor of the graph, by name: ``@conv1.weight``."""

    name: str

    def __str__(self) -> str:
        return f"@{self.name}"


Number = float | TensorRef


@dataclass(frozen=True)
class Choice:
    """A structural option: its default and, unless it is a number, the values it may take."""

    default: Option
    values: tuple[Option, ...] | None = None
    doc: str = ""


@dataclass(frozen=True)
class Param:
    """A numeric parameter: a scalar, or a tensor per channel or per neuron. ``None`` means the caller must give it.

    A network with a magnitude beyond ``bound`` can be built and looked at, but not run.
    """

    default: float | None
    doc: str = ""
    bound: float | None = None


Retiming = Callable[["Neuron", int, int, Fraction], "Neuron"]


@dataclass(frozen=True)
class Template:
    """A family of neuron programs.

    ``retimings`` maps a method (``closed``, ``oneshot``) to a function (neuron, r, levels, share).
    """

    name: str
    doc: str
    params: Mapping[str, Param]
    options: Mapping[str, Choice]
    build: Callable[[Options], Program]
    spiking: bool = True
    retimings: Mapping[str, Retiming] = field(default_factory=dict)


_TEMPLATES: dict[str, Template] = {}


def register(template: Template) -> Template:
    """Make a template known by its name; a second template of the same name is an error."""
    if _TEMPLATES.get(template.name, template) is not template:
        raise LdsnnError(f"a neuron template named {template.name!r} is registered already")
    _TEMPLATES[template.name] = template
    return template


def template(name: str) -> Template:
    """The registered template of that name."""
    import ldsnn_compiler.ir.neurons  # noqa: F401  (registers the built-in ones)

    if name not in _TEMPLATES:
        raise LdsnnError(f"unknown neuron {name!r}, known are {', '.join(sorted(_TEMPLATES))}")
    return _TEMPLATES[name]


def templates() -> Mapping[str, Template]:
    """All registered templates by name."""
    import ldsnn_compiler.ir.neurons  # noqa: F401

    return dict(sorted(_TEMPLATES.items()))


RUNNING: Mapping[str, int | None] = {"substeps": 1, "fraction": None, "guard": 0}
"""How a neuron is run, beside its template's settings, and the defaults."""


@dataclass(frozen=True)
class Neuron:
    """A template with values: the attribute of a ``neuron`` node.

    ``settings`` holds what differs from the template's defaults, options and parameters alike, as sorted pairs.
    ``substeps`` = r runs the program r times a timestep on the held input and emits the mean of the outputs (``micro``
    retiming).

    ``fraction`` None: real numbers. Else whole numbers (:mod:`ldsnn_compiler.ir.fixed`): charges are whole numbers of a
    unit that is 2**``guard`` times finer than the input's, ratios multiples of 2**-``fraction``, and what is emitted
    over the substeps is summed.
    """

    template: str
    settings: tuple[tuple[str, Option | Number], ...] = ()
    substeps: int = 1
    fraction: int | None = None
    guard: int = 0

    def __post_init__(self) -> None:
        if type(self.substeps) is not int or self.substeps < 1:
            raise LdsnnError(f"neuron {self.template!r}: substeps is a whole number from 1, not {self.substeps!r}")
        if self.fraction is not None and not (type(self.fraction) is int and 0 <= self.fraction <= 30):
            raise LdsnnError(f"neuron {self.template!r}: fraction is a number of bits to 30, not {self.fraction!r}")
        if type(self.guard) is not int or not 0 <= self.guard <= (0 if self.fraction is None else 30):
            raise LdsnnError(f"neuron {self.template!r}: guard is a number of bits of a neuron with a fraction")

    @property
    def family(self) -> Template:
        """The template."""
        return template(self.template)

    @property
    def options(self) -> Options:
        """Every structural option with its value."""
        given = dict(self.settings)
        return {k: given.get(k, c.default) for k, c in self.family.options.items()}  # type: ignore[misc]

    @property
    def program(self) -> Program:
        """The program that the options choose, rewritten for whole numbers where there is a ``fraction``."""
        options = tuple(self.options.items())
        if self.fraction is None:
            return _build(self.template, options)
        return _build_whole(self.template, options, self.fraction, self.guard)

    @property
    def is_whole(self) -> bool:
        """Whether it computes whole numbers."""
        return self.fraction is not None

    @property
    def params(self) -> Mapping[str, Number]:
        """The parameters that the program reads, with their values."""
        given, known = dict(self.settings), self.family.params
        return {k: given.get(k, known[k].default) for k in self.program.params}  # type: ignore[misc]

    @property
    def signal(self) -> Signal:
        """Type of the emitted values: ``spike_value * count``, mean over the substeps; of whole numbers the count."""
        unit = self.params.get("spike_value", 1.0)
        if not self.family.spiking or isinstance(unit, TensorRef) or unit <= 0:
            return REAL
        return Signal(int(self.options["max_count"]) * self.substeps, unit if self.is_whole else unit / self.substeps)

    @property
    def emitted_unit(self) -> float:
        """What the sum over the substeps is multiplied by: of the counts for events, else of the program's output."""
        if self.signal.is_event:
            return self.signal.unit
        return 1.0 if self.is_whole else 1.0 / self.substeps

    def with_(self, substeps: int | None = None, **settings: Option | Number) -> Neuron:
        """A copy with some settings replaced."""
        changed = neuron(self.template, **{**dict(self.settings), **settings})
        return replace(self, settings=changed.settings, substeps=self.substeps if substeps is None else substeps)

    def retime(self, r: int | Fraction, levels: int = 1, method: str = "closed", share: float | Fraction = 1) -> Neuron:
        """The neuron that covers r of its former steps in one.

        By definition: the input repeated r times, the former neuron run on that, its outputs averaged.
        ``micro`` works for every template and is exact for input that is constant within the step; ``levels`` then
        follows from r. Other methods are the template's own. They emit up to ``share`` of what r former steps could:
        one of k spikes a step stands for share * r / k former ones.
        """
        r, share = Fraction(r), Fraction(share)
        if not 0 < share <= 1:
            raise LdsnnError(f"the range of a neuron is a share of its former one, above 0 and up to 1, not {share}")
        if share != 1 and (method == "micro" or r == 1):
            what = "micro retiming" if method == "micro" else "a neuron that keeps its steps"
            raise LdsnnError(f"{what} has the whole range, not {share}")
        if (r == 1 and levels == max(1, int(self.options.get("max_count", 1)))) or (not self.family.spiking and r == 1):
            return self
        if method == "micro":
            if r.denominator != 1:
                raise LdsnnError(f"micro retiming needs a whole number of steps, not {r}")
            return replace(self, substeps=self.substeps * int(r))
        if method not in self.family.retimings:
            known = ", ".join(sorted({"micro", *self.family.retimings}))
            raise LdsnnError(f"neuron {self.template!r} has no {method!r} retiming, only {known}")
        if self.substeps != 1:
            raise LdsnnError(f"{method} retiming of a neuron that runs {self.substeps} substeps is not defined")
        return self.family.retimings[method](self, r, levels, share)  # type: ignore[arg-type]

    def __str__(self) -> str:
        settings = [f"{k}={_text(v)}" for k, v in self.settings]
        for name, default in RUNNING.items():
            if getattr(self, name) != default:
                settings.append(f"{name}={getattr(self, name)}")
        return f"{self.template}({', '.join(settings)})"


def neuron(name: str, **settings: Option | Number) -> Neuron:
    """Build a :class:`Neuron`; unknown or ill-typed settings and missing parameters are errors, all at once."""
    family, kept, wrong = template(name), dict[str, Option | Number](), list[str]()
    for key, value in settings.items():
        if key in family.options:
            chosen, expected = _chosen(value, family.options[key])
            if chosen is None:
                wrong.append(f"{key} is {expected}, not {value!r}")
            elif chosen != family.options[key].default:
                kept[key] = chosen
        elif key in family.params:
            if not isinstance(value, int | float | TensorRef):
                wrong.append(f"{key} is a number or a tensor, not {value!r}")
                continue
            value = value if isinstance(value, TensorRef) else float(value)
            if value != family.params[key].default:
                kept[key] = value
        else:
            wrong.append(f"has no setting {key!r}")
    result = Neuron(name, tuple(sorted(kept.items())))
    if not wrong:
        wrong = [f"parameter {k!r} has no value" for k, v in result.params.items() if v is None]
    if wrong:
        raise LdsnnError(f"neuron {name!r}: {'; '.join(wrong)}")
    return result


def _chosen(value: Option | Number, choice: Choice) -> tuple[Option | None, str]:
    """``value`` as that choice has it, None if it has no such value; and what it may be."""
    if choice.values is not None:
        found = next((v for v in choice.values if v == value), None)
        return found, f"one of {', '.join(map(str, choice.values))}"
    if isinstance(choice.default, int):
        whole = isinstance(value, int | float) and value == value // 1 and value >= 0
        return int(value) if whole else None, "a whole number from 0"  # type: ignore[arg-type]
    return value if isinstance(value, str) else None, "a word"


@cache
def _build(name: str, options: tuple[tuple[str, Option], ...]) -> Program:
    """The program; of a spiking template it must say how much is emitted, and how often at most."""
    made = template(name).build(dict(options))
    if template(name).spiking and ("max_count" not in dict(options) or "n" not in {a.target for a in made.steps}):
        needs = "has an option max_count and its program assigns n, the count"
        raise LdsnnError(f"neuron {name!r}: a spiking template {needs}")
    return made


@cache
def _build_whole(name: str, options: tuple[tuple[str, Option], ...], fraction: int, guard: int) -> Program:
    return whole(_build(name, options), fraction, guard)


def _text(value: Option | Number) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if value.isidentifier() else json.dumps(value)
    return str(value) if isinstance(value, TensorRef) else repr(value)
