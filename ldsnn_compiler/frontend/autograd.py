"""Surrogate gradients written as ``torch.autograd.Function``: traced by what their forward computes.

``torch.fx`` cannot follow ``Function.apply``. A forward that is a step function at zero, however it is written, becomes
``(x > 0).float()`` or ``(x >= 0).float()``; any other is followed line by line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import fx

_PROBE: Final = (-100.0, -1.0, -0.25, -1e-6, 0.0, 1e-6, 0.25, 1.0, 100.0)


class Unused:
    """Stands for the ``ctx`` of a forward: what is saved for the backward pass is not looked at."""

    def save_for_backward(self, *tensors: Any) -> None:
        """Nothing is kept."""

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Nothing is differentiated."""


@contextmanager
def followed() -> Iterator[None]:
    """Within, functions applied to proxies are traced."""
    original = vars(torch.autograd.Function)["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(a, fx.Proxy) for a in args):
            return original.__func__(cls, *args, **kwargs)
        step = _step(cls, args, kwargs)
        return _run(cls, args, kwargs) if step is None else step

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[method-assign,assignment]
    forwards = [(cls, vars(cls)["forward"]) for cls in _written(torch.autograd.Function) if "forward" in vars(cls)]
    for cls, forward in forwards:
        cls.forward = staticmethod(_following(cls, forward.__func__))
    try:
        yield
    finally:
        torch.autograd.Function.apply = original  # type: ignore[method-assign]
        for cls, forward in forwards:
            cls.forward = forward


def _written(base: Any) -> Iterator[Any]:
    """Subclasses that are not PyTorch's own."""
    for cls in base.__subclasses__():
        yield from _written(cls)
        if not cls.__module__.startswith("torch."):
            yield cls


def _following(cls: Any, forward: Any) -> Any:
    """The forward for an ``apply`` that was taken before, ``spike = Surrogate.apply``: it calls this one itself."""

    def run(*args: Any, **kwargs: Any) -> Any:
        given = args if _is_set_up(cls) else args[1:]
        if not any(isinstance(a, fx.Proxy) for a in given):
            return forward(*args, **kwargs)
        step = _step(cls, given, kwargs)
        return forward(*(() if _is_set_up(cls) else (Unused(),)), *given, **kwargs) if step is None else step

    return run


def _run(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The forward; it has a ``ctx`` unless ``setup_context`` is there to take it."""
    return cls.forward(*(() if _is_set_up(cls) else (Unused(),)), *args, **kwargs)


def _is_set_up(cls: Any) -> bool:
    """Whether the forward takes no ``ctx``."""
    return bool(cls.setup_context is not torch.autograd.Function.setup_context)


def _step(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The step function that a forward of one tensor is, None if it is none."""
    x, *rest = args
    if not isinstance(x, fx.Proxy) or any(isinstance(a, fx.Proxy) for a in (*rest, *kwargs.values())):
        return None
    probe = torch.tensor(_PROBE)
    try:
        with torch.no_grad():
            found = _run(cls, (probe.clone(), *rest), kwargs)
    except Exception:  # a forward that needs another shape, say, is followed instead
        return None
    if not isinstance(found, torch.Tensor) or found.shape != probe.shape:
        return None
    for name, wanted in (("gt", probe > 0), ("ge", probe >= 0)):
        if torch.equal(found.float(), wanted.float()):
            return x.tracer.create_proxy("call_function", getattr(torch, name), (x, 0.0), {}).float()
    return None
