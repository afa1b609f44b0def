"""The neuron phase of a task: pixel by pixel, membrane in registers over all timesteps, results packed and written."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.fixed import FixedEmitter
from ldsnn_compiler.targets.cpu.kernels.neuron import Emitter, Env, Value
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, words
from ldsnn_compiler.targets.cpu.kernels.task import Task
from ldsnn_compiler.targets.cpu.kernels.tir import Expr


def emit(task: Task) -> None:
    """Scan the task's currents with its neuron, or write them out as they are."""
    if task.spec.neuron is None:
        _write_currents(task)
    else:
        _Scan(task, task.spec.neuron).emit()


def _input(task: Task, step: Expr, pixel: Expr, vector: int) -> Expr:
    """``x``: the sum of the sources' currents, of all parts, and the bias."""
    total, span = None, task.span(vector)
    for steps, current in task.currents.items():
        at = step if steps == task.spec.timesteps else tirx.floordiv(step, task.spec.timesteps // steps)
        for part in range(task.spec.parts):
            value = task.cast(current[part * steps + at, pixel, span], task.spec.number)
            total = value if total is None else total + value
    if task.spec.bias:
        bias = task.channels.load(task.buffers["bias"], (), vector * task.lanes)
        total = bias if total is None else total + bias
    return tir.let(tir.const(0, task.lanes, task.spec.number) if total is None else total)


def _write_currents(task: Task) -> None:
    with task.pixels() as (y, x, pixel), T.serial(task.spec.timesteps) as step:
        for v in task.vectors:
            prefix = (task.batch, step, task.pixel_number(y, x))
            task.channels.save(task.buffers["y"], prefix, v * task.lanes, _input(task, step, pixel, v))


class _Scan:
    def __init__(self, task: Task, neuron: Neuron) -> None:
        self.task, self.neuron, self.program = task, neuron, neuron.program
        self.number = task.spec.number
        is_real = self.number == "float32"
        whole = FixedEmitter(task.lanes, task.spec.products, task.spec.quotients)
        self.emitter = Emitter(task.lanes) if is_real else whole
        registers, planes = (task.spec.vectors, task.lanes), task.spec.planes if task.spec.output == "bits" else 0
        self.state = {name: tir.scratch(registers, self.number) for name, _ in self.program.state}
        self.rests = [tir.scratch(registers, self.number) for _ in range(planes)]
        self.total = tir.scratch(registers, self.number) if neuron.substeps > 1 else None

    def emit(self) -> None:
        """All pixels of the tile."""
        with self.task.pixels() as (y, x, pixel):
            at = tir.let(self.task.pixel_number(y, x))
            for v in self.task.vectors:
                self._start(v, at)
            with T.serial(self.task.spec.timesteps) as step:
                emitted = [self._step(v, step, pixel, at) for v in self.task.vectors]
                if self.task.spec.output == "bits":
                    self._write_bits(emitted, step, at)
            if self.task.spec.state_io:
                self._finish(at)

    def _parameters(self, vector: int, at: Expr) -> Env:
        task, offset, places = self.task, vector * self.task.lanes, dict(self.task.spec.ratios)
        env: Env = {}
        for name, number in self.neuron.params.items():
            if name in task.spec.per_channel or name in task.spec.per_neuron:
                prefix = (at,) if name in task.spec.per_neuron else ()
                values = task.channels.load(task.buffers[name], prefix, offset)
                env[name] = self.emitter.parameter(values, places.get(name, 0))
            else:
                env[name] = self.emitter.constant(float(number))  # type: ignore[arg-type]
        return env

    def _register(self, name: str, vector: int) -> Expr:
        return self.state[name][vector, tir.ramp(0, self.task.lanes)]

    def _keep(self, name: str, vector: int, value: Expr) -> None:
        tir.store(self.state[name], value, vector, tir.ramp(0, self.task.lanes))

    def _start(self, vector: int, at: Expr) -> None:
        task = self.task
        env = self._parameters(vector, at)
        for name, initial in self.program.state:
            if task.spec.state_io:
                value = task.channels.load(task.buffers[f"{name}_in"], (task.batch, at), vector * task.lanes)
            else:
                value = self.emitter.number(self.emitter.emit(initial, env))
            self._keep(name, vector, value)

    def _finish(self, at: Expr) -> None:
        task = self.task
        for v in task.vectors:
            for name in self.state:
                task.channels.save(
                    task.buffers[f"{name}_out"], (task.batch, at), v * task.lanes, self._register(name, v)
                )

    def _step(self, vector: int, step: Expr, pixel: Expr, at: Expr) -> Value:
        """One vector of neurons through one timestep; gives what it emits: the count for events."""
        x = Value(_input(self.task, step, pixel, vector))
        parameters = self._parameters(vector, at)
        if self.total is None:
            emitted = self._substep(vector, x, parameters)
        else:
            whole = tir.ramp(0, self.task.lanes)
            tir.store(self.total, tir.const(0, self.task.lanes, self.number), vector, whole)
            with T.serial(self.neuron.substeps):
                part = self.emitter.number(self._substep(vector, x, parameters))
                tir.store(self.total, self.total[vector, whole] + part, vector, whole)
            emitted = Value(tir.let(self.total[vector, whole]))
        self._write_dense(vector, step, at, emitted)
        return emitted

    def _substep(self, vector: int, x: Value, parameters: Mapping[str, Value]) -> Value:
        env: Env = {**parameters, "x": x}
        env.update({name: Value(tir.let(self._register(name, vector))) for name in self.state})
        self.emitter.run(self.program.steps, env)
        for name in self.state:
            self._keep(name, vector, self.emitter.number(env[name]))
        return env["n"] if self.neuron.signal.is_event else env[self.program.output]

    def _write_dense(self, vector: int, step: Expr, at: Expr, emitted: Value) -> None:
        task = self.task
        prefix, offset = (task.batch, step, at), vector * task.lanes
        if task.spec.output == "dense":
            scale = self.neuron.emitted_unit
            value = self.emitter.number(emitted)
            value = value if scale == 1.0 else value * tir.const(scale, task.lanes, self.number)
            task.channels.save(task.buffers["y"], prefix, offset, value)
        if task.spec.membrane:
            task.channels.save(task.buffers["membrane"], prefix, offset, self._register(self.program.membrane, vector))

    def _write_bits(self, emitted: list[Value], step: Expr, at: Expr) -> None:
        task, lanes, planes = self.task, self.task.lanes, self.task.spec.planes
        per_word = WORD // lanes
        first = task.block * (task.spec.block // WORD) if task.spec.blocks > 1 else 0
        whole = task.spec.blocks * task.spec.block <= WORD * words(task.spec.channels)
        by_vector = [self._planes(value, v, planes) for v, value in enumerate(emitted)]
        for plane in range(planes):
            masks = [of_vector[plane] for of_vector in by_vector]
            for w in range(0, len(masks), per_word):
                word = self._word(masks[w : w + per_word])
                number = first + w // per_word
                with tir.when(True if whole else number < words(task.spec.channels)):
                    tir.store(task.buffers["y"], self._existing(word, number), task.batch, step, plane, at, number)

    def _word(self, masks: list[Expr]) -> Expr:
        word = tir.mask_word(masks[0], self.task.lanes)
        for i, mask in enumerate(masks[1:], 1):
            word = word | (tir.mask_word(mask, self.task.lanes) << tir.u64(i * self.task.lanes))
        return word

    def _planes(self, emitted: Value, vector: int, planes: int) -> list[Expr]:
        """Masks of the binary digits of a count, lowest first.

        Comparisons all the way: LLVM 22 miscompiles words gathered from AVX-512 masks of truncated integers.
        """
        if planes == 1:
            return [self.emitter.mask(emitted)]
        lanes = self.task.lanes
        whole, rest, masks = tir.ramp(0, lanes), self.emitter.number(emitted), []
        for plane, slots in zip(reversed(range(planes)), self.rests, strict=True):
            # through memory that becomes registers: TVM would inline a chain of bindings into itself
            tir.store(slots, rest, vector, whole)
            weight = tir.const(2**plane, lanes, self.number)
            masks.append(tirx.GE(slots[vector, whole], weight))
            rest = slots[vector, whole] - tirx.Select(masks[-1], weight, tir.const(0, lanes, self.number))
        return masks[::-1]

    def _existing(self, word: Expr, number: Expr) -> Expr:
        """Clear the bits past the last channel: the neurons there are padding."""
        used = self.task.spec.channels % WORD
        if not used:
            return word
        mask = tir.u64((1 << used) - 1)
        last = words(self.task.spec.channels) - 1
        if isinstance(number, int):
            return word & mask if number == last else word
        return tirx.Select(number == last, word & mask, word)
