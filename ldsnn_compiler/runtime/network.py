"""Running a network and streaming it, whatever holds the data: PyTorch on the machine that compiled it
(:class:`~ldsnn_compiler.runtime.compiled.Compiled`), numpy on a small board
(:class:`~ldsnn_compiler.runtime.light.Light`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.layouts import as_called, time_first
from ldsnn_compiler.runtime.interface import Held, Interface, Port

A = TypeVar("A")
"""The user's arrays."""


class Network(ABC, Generic[A]):
    """A compiled network.

    Calling it runs the whole window from the initial state on data in the user's layout: ``[N, *shape]`` for a static
    input, ``[T, N, *shape]`` for a sequence, and those of :mod:`ldsnn_compiler.ir.layouts`; float32.
    :meth:`run` takes and gives ``[T, N, *shape]``.
    :meth:`step` goes on by granules of ``interface.granule`` base steps and keeps :attr:`state`; it equals one run
    over them.
    """

    interface: Interface
    #: the batch it was compiled for; None leaves it open
    batch: int | None

    # ---- what a kind of array brings

    @abstractmethod
    def _given(self, x: Any, port: Port) -> A:
        """The caller's data; an error names what was found instead of float32 numbers."""

    @abstractmethod
    def _put(self, x: A) -> Any:
        """As a tensor of the library's."""

    @abstractmethod
    def _get(self, x: Any) -> A:
        """The inverse of :meth:`_put`."""

    @abstractmethod
    def _own(self, x: A, dtype: str) -> A:
        """A contiguous copy of that type."""

    @abstractmethod
    def _joined(self, parts: Sequence[A]) -> A:
        """One after the other along the first axis."""

    @abstractmethod
    def _initial(self, index: int, batch: int) -> A:
        """State variable number ``index`` before the first step, as the user sees it."""

    @abstractmethod
    def _counter(self, base_step: int) -> Any:
        """A tensor of the library's with one int32."""

    @abstractmethod
    def _invoke(self, entry: str, given: Sequence[Any]) -> list[Any]:
        """Call the library's function with these tensors and the entry's arguments."""

    # ---- running

    def __call__(self, *inputs: Any) -> A | tuple[A, ...]:
        """The whole window, in the user's layout; one output or a tuple. Leaves the streaming state alone."""
        outputs = self._run(self._whole(inputs))
        shown = [as_called(y, port.time) for port, y in zip(self.interface.outputs, outputs, strict=True)]
        return shown[0] if len(shown) == 1 else tuple(shown)

    def run(self, *inputs: Any) -> tuple[A, ...]:
        """The whole window from the initial state: ``[T, N, *shape]`` in, a tuple of ``[T, N, *shape]`` out."""
        return self._run(self._all_given(inputs))

    def _all_given(self, inputs: Sequence[Any]) -> list[Any]:
        ports = self.interface.inputs
        if len(inputs) != len(ports):
            raise LdsnnError(f"the network takes {len(ports)} input{'s' * (len(ports) != 1)}, found {len(inputs)}")
        return [self._given(x, port) for x, port in zip(inputs, ports, strict=True)]

    def _whole(self, inputs: Sequence[Any]) -> list[Any]:
        """Data in the user's layout as ``[T, N, *shape]``."""
        given = self._all_given(inputs)
        ports = self.interface.inputs
        return [time_first(x, p.time, p.timesteps, p.where) for x, p in zip(given, ports, strict=True)]

    def _run(self, inputs: Sequence[Any]) -> tuple[A, ...]:
        self._check(inputs, [port.timesteps for port in self.interface.inputs], self.batch)
        return tuple(self._get(y) for y in self._invoke("run", [self._put(x) for x in inputs]))

    # ---- streaming

    def reset(self, batch: int | None = None) -> None:
        """Back to the state before the first step. The batch is free again where it was compiled symbolic."""
        if batch is not None and self.batch not in (None, batch):
            raise LdsnnError(f"compiled for batch {self.batch}, found {batch}")
        self.base_step = 0
        self._batch = batch if batch is not None else self.batch
        self._state: list[Any] = []

    def step(self, *inputs: Any) -> tuple[A, ...]:
        """Go on by one granule or several: ``[steps, N, *shape]`` in and out, as many steps as the granules have.

        A readout gives its running value, once a call.
        """
        given, ports = self._all_given(inputs), self.interface.inputs
        count, each = self._granules(given), [self.interface.steps(port) for port in ports]
        self._batch = self._check(given, [count * steps for steps in each], self._batch)
        if not self._state:
            self._state = [self._packed(h, self._initial(i, self._batch)) for i, h in enumerate(self.interface.states)]
        answers = [self._one([x[k * s : (k + 1) * s] for x, s in zip(given, each, strict=True)]) for k in range(count)]
        return tuple(
            parts[-1] if port.is_running else self._joined(parts)
            for port, *parts in zip(self.interface.outputs, *answers, strict=True)
        )

    def _one(self, inputs: Sequence[Any]) -> tuple[A, ...]:
        counter = [self._counter(self.base_step)] if self.interface.counts else []
        # copies: what is kept from here on may be a view of them
        results = self._invoke("step", [*(self._put(self._own(x, "float32")) for x in inputs), *self._state, *counter])
        shown = len(self.interface.outputs)
        self._state = results[shown:]
        self.base_step += self.interface.granule
        return tuple(self._get(y) for y in results[:shown])

    def _granules(self, inputs: Sequence[Any]) -> int:
        granule = self.interface.granule
        if not inputs:
            return 1
        covered = self.interface.inputs[0].dt * (inputs[0].shape[0] if inputs[0].ndim else 0)
        if covered == 0 or covered % granule:
            raise LdsnnError(f"expected a multiple of {granule} base steps (the granule), found {covered}")
        return int(covered / granule)

    # ---- state

    @property
    def state(self) -> dict[str, dict[str, A]]:
        """Node to variable to value ``[N, *shape]`` (a delay's buffer ``[steps, N, *shape]``); empty before the first
        step.

        Setting it starts the count of base steps anew; to go on in the middle of a run, set ``base_step`` after it.
        """
        found: dict[str, dict[str, A]] = {}
        for held, value in zip(self.interface.states, self._state, strict=bool(self._state)):
            found.setdefault(held.node, {})[held.variable] = self._own(held.unpack(self._get(value)), held.dtype)
        return found

    @state.setter
    def state(self, values: Mapping[str, Mapping[str, A]]) -> None:
        if not values:
            self._state = []
            return
        states = {(h.node, h.variable): h for h in self.interface.states}
        given: dict[tuple[str, str], Any] = {
            (node, k): v for node, variables in values.items() for k, v in variables.items()
        }
        problems = [Problem("no such state", where=n, attribute=k) for n, k in sorted(given.keys() - states)]
        problems += [Problem("this state is missing", where=n, attribute=k) for n, k in sorted(states - given.keys())]
        known = {key: h for key, h in states.items() if key in given}
        batches = {given[key].shape[h.axis] for key, h in known.items() if given[key].ndim > h.axis}
        batch = batches.pop() if len(batches) == 1 else 1
        for (node, variable), held in known.items():
            found, wanted = list(given[node, variable].shape), list(held.shown(batch))
            if found != wanted:
                problems.append(Problem(f"expected shape {wanted}, found {found}", where=node, attribute=variable))
        if problems:
            raise LdsnnError(problems)
        self.reset(batch)
        self._state = [self._packed(held, given[key]) for key, held in states.items()]

    def _packed(self, held: Held, value: A) -> Any:
        return self._put(self._own(held.pack(value), held.dtype))

    # ---- checks

    def _check(self, inputs: Sequence[Any], steps: Sequence[int], batch: int | None) -> int:
        """Shapes and the batch that all inputs share; that batch."""
        ports = self.interface.inputs
        for port, x, count in zip(ports, inputs, steps, strict=True):
            expected = [count, "N" if batch is None else batch, *port.shape]
            fits = x.ndim == len(expected) and all(e in ("N", d) for e, d in zip(expected, x.shape, strict=True))
            if not fits or 0 in x.shape:
                text = f"expected data of shape [{', '.join(map(str, expected))}], found {list(x.shape)}"
                raise LdsnnError(Problem(text, where=port.where))
        sizes = {x.shape[1] for x in inputs}
        if len(sizes) > 1:
            found = ", ".join(f"{p.where}: {x.shape[1]}" for p, x in zip(ports, inputs, strict=True))
            raise LdsnnError(f"inputs differ in batch: {found}")
        return int(sizes.pop()) if sizes else batch or 1
