"""The second phase of a block, neurons, and the third, packing what they emit into words."""

from __future__ import annotations

from math import ceil

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.ir.program import Expr as ProgramExpr
from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.fixed import FixedEmitter
from ldsnn_compiler.targets.cpu.kernels.neuron import Emitter, Env, Value
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, words
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Expr
from ldsnn_compiler.targets.cuda.kernels.region import Block, registers


def emit(block: Block) -> None:
    """A thread per position and channel of the tile takes its neuron through all timesteps, or writes its currents."""
    spec = block.spec
    scan = _Scan(block, spec.neuron) if spec.neuron is not None else None
    with block.items(block.launch.tile * spec.block) as item:
        number, own = tir.let(tirx.floordiv(item, spec.block)), tir.let(tirx.floormod(item, spec.block))
        channel = tir.let(block.first_channel + own)
        real = tir.both(spec.channels % spec.block == 0 or channel < spec.channels, block.exists(number))
        with tir.when(real):
            sample, pixel = block.position(number)
            at = _Neuron(block, number, own, sample, pixel, channel)
            if scan is not None:
                scan.emit(at)
            else:
                with T.serial(spec.timesteps) as step:
                    tir.store(block.buffers["y"], at.drive(step), sample, step, pixel, channel)


class _Neuron:
    """One neuron of the tile."""

    def __init__(self, block: Block, number: Expr, own: Expr, sample: Expr, pixel: Expr, channel: Expr) -> None:
        self.block, self.number, self.own = block, number, own
        self.sample, self.pixel, self.channel = sample, pixel, channel

    def drive(self, step: Expr) -> Expr:
        """``x``: the sum of the sources' currents, and the bias."""
        spec, total = self.block.spec, None
        for rate, current in self.block.currents.items():
            at = self.number * rate + tirx.floordiv(step, spec.timesteps // rate)
            for split in range(self.block.launch.splits):
                value = current[split, at, self.own]
                total = value if total is None else total + value
        if spec.bias:
            bias = self.block.buffers["bias"][self.channel]
            total = bias if total is None else total + bias
        return tir.const(0, 1, spec.number) if total is None else total


class _Scan:
    def __init__(self, block: Block, neuron: Neuron) -> None:
        self.block, self.neuron, self.program = block, neuron, neuron.program
        self.number = block.spec.number
        self.emitter = Emitter(1) if self.number == "float32" else FixedEmitter(1, block.spec.products)
        self.state: dict[str, Buffer] = {name: registers(1, self.number) for name, _ in self.program.state}
        self.x, self.total = registers(1, self.number), registers(1, self.number)

    def emit(self, at: _Neuron) -> None:
        """All timesteps of one neuron."""
        buffers, parameters = self.block.buffers, self._parameters(at)
        place = (at.sample, at.pixel, at.channel)
        for name, initial in self.program.state:
            start = buffers[f"{name}_in"][place] if self.block.spec.state_io else self._number(initial, parameters)
            tir.store(self.state[name], start, 0)
        with T.serial(self.block.spec.timesteps) as step:
            self._step(at, step, parameters)
        if self.block.spec.state_io:
            for name, held in self.state.items():
                tir.store(buffers[f"{name}_out"], held[0], *place)

    def _number(self, expr: ProgramExpr, env: Env) -> Expr:
        return self.emitter.number(self.emitter.emit(expr, env))

    def _parameters(self, at: _Neuron) -> Env:
        spec, env, places = self.block.spec, Env(), dict(self.block.spec.ratios)
        for name, number in self.neuron.params.items():
            if name in spec.per_channel:
                env[name] = self.emitter.parameter(self.block.buffers[name][at.channel], places.get(name, 0))
            elif name in spec.per_neuron:
                env[name] = self.emitter.parameter(self.block.buffers[name][at.pixel, at.channel], places.get(name, 0))
            else:
                env[name] = self.emitter.constant(float(number))  # type: ignore[arg-type]
        return env

    def _step(self, at: _Neuron, step: Expr, parameters: Env) -> None:
        tir.store(self.x, at.drive(step), 0)
        tir.store(self.total, tir.const(0, 1, self.number), 0)
        with T.serial(self.neuron.substeps):
            emitted = self._substep(parameters)
            tir.store(self.total, self.total[0] + emitted, 0)
        self._write(at, step, self.total[0])

    def _substep(self, parameters: Env) -> Expr:
        env: Env = {**parameters, "x": Value(self.x[0])}
        env.update({name: Value(tir.let(held[0])) for name, held in self.state.items()})
        self.emitter.run(self.program.steps, env)
        for name, held in self.state.items():
            tir.store(held, self.emitter.number(env[name]), 0)
        return self.emitter.number(env["n"] if self.neuron.signal.is_event else env[self.program.output])

    def _write(self, at: _Neuron, step: Expr, emitted: Expr) -> None:
        block = self.block
        place = (at.sample, step, at.pixel, at.channel)
        if block.spec.output == "bits":
            slot = at.number * block.spec.timesteps + step
            tir.store(block.counts, tirx.Cast("uint8", tirx.Cast("int32", emitted)), slot, at.own)
        else:
            scale = self.neuron.emitted_unit
            value = emitted if scale == 1.0 else emitted * tir.const(scale, 1, self.number)
            tir.store(block.buffers["y"], tir.cast(value, block.spec.emitted, 1), *place)
        if block.spec.membrane:
            tir.store(block.buffers["membrane"], self.state[self.program.membrane][0], *place)


def pack(block: Block) -> None:
    """A thread per word gathers its channels' counts, one bit plane each."""
    spec, steps = block.spec, block.spec.timesteps
    per_block, bits = ceil(spec.block / WORD), min(WORD, spec.block)
    word = registers(1, "uint64")
    with block.items(block.launch.tile * steps * spec.planes * per_block) as item:
        rest, own = tirx.floordiv(item, per_block), tir.let(tirx.floormod(item, per_block))
        plane, slot = tir.let(tirx.floormod(rest, spec.planes)), tir.let(tirx.floordiv(rest, spec.planes))
        number, step = tir.let(tirx.floordiv(slot, steps)), tir.let(tirx.floormod(slot, steps))
        target = tir.let(block.channels * (spec.block // WORD) + own) if spec.blocks > 1 else own
        with tir.when(tir.both(target < words(spec.channels), block.exists(number))):
            tir.store(word, tir.u64(0), 0)
            with T.serial(bits) as bit:
                channel = own * WORD + bit
                with tir.when(_is_channel(block, own, bit)):
                    held = tirx.Cast("uint64", block.counts[slot, channel])
                    digit = (held >> tirx.Cast("uint64", plane)) & tir.u64(1)
                    tir.store(word, word[0] | (digit << tirx.Cast("uint64", bit)), 0)
            sample, pixel = block.position(number)
            tir.store(block.buffers["y"], word[0], sample, step, plane, pixel, target)


def _is_channel(block: Block, own: Expr, bit: Expr) -> Expr:
    """Whether a bit of a word stands for a channel; the rest of a last word is 0."""
    spec = block.spec
    if spec.channels % spec.block == 0 and spec.block % WORD == 0:
        return True
    return block.first_channel + own * WORD + bit < spec.channels
