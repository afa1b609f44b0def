"""The neuron emitter for whole numbers: neuron programs in int32, ratios and halves as fixed-point numbers.

Every expression has binary places that are known here: a whole number has none, 0.75 is 3 with two of them, a ratio
parameter has those it was rounded to. Products add places, sums align them, ``floor`` drops them by an arithmetic
shift. So ``floor(a * ratio + 0.5)`` is ``(a * m + (1 << (F - 1))) >> F`` without a rule of its own. Quotients of whole
numbers stay open until they are rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from tvm import tirx

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.neuron import Emitter, Value
from ldsnn_compiler.targets.cpu.kernels.tir import Expr


@dataclass(frozen=True)
class Fixed(Value):
    """``expr / 2**places``, divided by ``divisor`` if there is one."""

    places: int = 0
    divisor: Expr = None


class FixedEmitter(Emitter):
    """Emits expressions over vectors of ``lanes`` int32; products with ratios are taken in ``products``, quotients in
    ``quotients``."""

    def __init__(self, lanes: int, products: str = "int64", quotients: str = "float64") -> None:
        super().__init__(lanes, "int32")
        self.products, self.quotients = products, quotients
        self._operations = {
            "add": lambda a, b: self._aligned(lambda x, y: x + y, a, b),
            "sub": lambda a, b: self._aligned(lambda x, y: x - y, a, b),
            "min": lambda a, b: self._aligned(tirx.min, a, b),
            "max": lambda a, b: self._aligned(tirx.max, a, b),
            "ge": lambda a, b: Value(self._aligned(tirx.GE, a, b).expr, is_mask=True),
            "gt": lambda a, b: Value(self._aligned(tirx.GT, a, b).expr, is_mask=True),
            "select": lambda c, a, b: self._aligned(lambda x, y: tirx.Select(self.mask(c), x, y), a, b),
            "mul": self._mul,
            "div": self._div,
            "floor": self._floor,
            "ceil": self._ceil,
        }

    def constant(self, value: float) -> Value:
        """A dyadic number."""
        exact = Fraction(value)
        return Fixed(tir.const(exact.numerator, self.lanes, "int32"), places=exact.denominator.bit_length() - 1)

    def parameter(self, expr: Expr, places: int = 0) -> Value:
        """A vector of a parameter, rounded to that many binary places."""
        return Fixed(expr, places=places)

    def number(self, value: Value) -> Expr:
        """As int32."""
        fixed = self._fixed(value)
        if fixed.places or fixed.divisor is not None:
            raise LdsnnError("a whole-number neuron keeps a number with binary places; its program has to round it")
        return tir.cast(fixed.expr, "int32", self.lanes)

    def _fixed(self, value: Value) -> Fixed:
        if value.is_mask:
            return Fixed(super().number(value))
        return value if isinstance(value, Fixed) else Fixed(value.expr)

    def _shifted(self, value: Fixed, places: int, dtype: str) -> Expr:
        if value.divisor is not None:
            raise LdsnnError("a whole-number neuron computes with a quotient before it is rounded")
        wide = tir.cast(value.expr, dtype, self.lanes)
        return wide if places == value.places else wide << tir.const(places - value.places, self.lanes, dtype)

    def _aligned(self, operation: Callable[[Expr, Expr], Expr], a: Value, b: Value) -> Fixed:
        """The operation on both numbers at the places of the finer one."""
        x, y = self._fixed(a), self._fixed(b)
        places = max(x.places, y.places)
        dtype = "int64" if "int64" in (tir.element(x.expr), tir.element(y.expr)) else "int32"
        return Fixed(operation(self._shifted(x, places, dtype), self._shifted(y, places, dtype)), places=places)

    def _mul(self, a: Value, b: Value) -> Value:
        if a.is_mask:
            a, b = b, a
        if b.is_mask:
            x = self._fixed(a)
            return Fixed(tirx.Select(b.expr, x.expr, self._zero(x.expr)), places=x.places)
        x, y = self._fixed(a), self._fixed(b)
        places = x.places + y.places
        dtype = self.products if places else "int32"
        return Fixed(self._shifted(x, x.places, dtype) * self._shifted(y, y.places, dtype), places=places)

    def _div(self, a: Value, b: Value) -> Value:
        x, y = self._fixed(a), self._fixed(b)
        if x.places or y.places:
            raise LdsnnError("a whole-number neuron divides numbers with binary places; multiply by the reciprocal")
        return Fixed(x.expr, divisor=y.expr)

    def _floor(self, a: Value) -> Value:
        x = self._fixed(a)
        if x.divisor is not None:
            return Fixed(self._quotient(tirx.floor, x))
        return Fixed(self._dropped(x.expr, x.places))

    def _ceil(self, a: Value) -> Value:
        x = self._fixed(a)
        if x.divisor is not None:
            return Fixed(self._quotient(tirx.ceil, x))
        return Fixed(self._negative(self._dropped(self._negative(x.expr), x.places)))

    def _zero(self, like: Expr) -> Expr:
        return tir.const(0, self.lanes, tir.element(like))

    def _negative(self, expr: Expr) -> Expr:
        return self._zero(expr) - expr

    def _dropped(self, expr: Expr, places: int) -> Expr:
        if not places:
            return expr
        return tir.cast(expr >> tir.const(places, self.lanes, tir.element(expr)), "int32", self.lanes)

    def _quotient(self, rounding: Callable[[Expr], Expr], value: Fixed) -> Expr:
        """As floats, since there are no vector instructions that divide integers.

        A quotient a / b that is no whole number is at least 1 / b from one, n, and rounded to it only from within
        n / 2**53 (n / 2**24 in float32): never while n * b is less than 2**53 (2**24). In int32 it is less than 2**33.
        """
        above, below = (tir.cast(e, self.quotients, self.lanes) for e in (value.expr, value.divisor))
        return tir.cast(rounding(tirx.Div(above, below)), "int32", self.lanes)
