"""Sizes known while tracing: ``x.shape[0]``, ``len(x)``, ``x.dim() == 4`` are numbers, not symbols.

``torch.fx`` stops at ``range(x.shape[0])``, ``*x.shape`` and ``if x.dim() == 4``. Here such a use asks the tracer,
which imports the nodes that the value depends on into a scratch graph and answers if no tensor is in it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
import torch.fx as fx

from ldsnn_compiler.frontend.traced import TIME, Poison, Traced, contains


class BatchLoop(fx.proxy.TraceError):
    """A loop over what is the batch as the example is read."""


class PoisonAsked(fx.proxy.TraceError):
    """A size of something that could not be imported, which has been reported, is asked for."""


_UNKNOWN: Final = "a tensor's values are not known while the model is imported"

Known = Callable[[fx.Node], Any]


class SizeProxy(fx.Proxy):
    """A proxy that Python may ask for its number, if it stands for one."""

    def __getattr__(self, name: str) -> fx.proxy.Attribute:
        return _Attribute(self, name)

    def __index__(self) -> int:
        return operator.index(number(self))

    def __int__(self) -> int:
        return int(number(self))

    def __float__(self) -> float:
        return float(number(self))

    def __len__(self) -> int:
        return len(sequence(self))

    def __setitem__(self, where: Any, value: Any) -> None:
        shape = getattr(_known(self), "shape", None)
        sizes = tuple(shape) if isinstance(shape, torch.Size) else None
        self.tracer.create_proxy("call_function", set_item, (self, where, value, sizes), {})


def set_item(buffer: Any, where: Any, value: Any, sizes: tuple[int, ...] | None) -> None:
    """Marks ``buffer[where] = value`` in a traced graph; ``sizes`` is the shape of a buffer made of numbers."""


class _Attribute(fx.proxy.Attribute):
    """``proxy.name``, until it is called or asked for its value."""

    def __getattr__(self, name: str) -> fx.proxy.Attribute:
        return _Attribute(self, name)

    __index__ = SizeProxy.__index__
    __int__ = SizeProxy.__int__
    __float__ = SizeProxy.__float__
    __len__ = SizeProxy.__len__


def number(proxy: fx.Proxy) -> Any:
    """The value of a proxy that no tensor is part of; TraceError for others, as fx would raise."""
    value = _known(proxy)
    if contains(value, Poison):
        raise PoisonAsked(_UNKNOWN)
    if contains(value, Traced):
        raise fx.proxy.TraceError(_UNKNOWN)
    return value


def truth(proxy: fx.Proxy) -> bool:
    """As :func:`number`, for a branch; one that nothing is known of depends on what tensors hold."""
    try:
        return bool(number(proxy))
    except PoisonAsked:
        raise fx.proxy.TraceError(_UNKNOWN) from None


def sequence(proxy: fx.Proxy) -> list[Any]:
    """What iterating over a proxy gives: numbers, or proxies of its elements; of a tensor those over time."""
    value = _known(proxy)
    if isinstance(value, Traced):
        if value.axes[0] != TIME:
            raise BatchLoop(f"iterates over the first axis of {value}")
        return [operator.getitem(proxy, t) for t in range(value.value.type.timesteps)]
    if isinstance(value, Poison):
        raise PoisonAsked
    if not hasattr(value, "__len__"):
        raise fx.proxy.TraceError("what is iterated over here is not known while the model is imported")
    if contains(value, Traced) or contains(value, Poison):
        return [operator.getitem(proxy, i) for i in range(len(value))]
    return list(value)


def iterated(proxy: fx.Proxy) -> Iterator[Any]:
    """As :func:`sequence`, for the tracer's ``iter``."""
    return iter(sequence(proxy))


def _known(proxy: fx.Proxy) -> Any:
    known: Known = proxy.tracer.known  # type: ignore[attr-defined]
    return known(proxy.node)
