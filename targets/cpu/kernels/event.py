"""Event-driven convolution: walk the set bits of the input and add one row of weights per event.

Linear layers are 1x1 convolutions on a 1x1 map. A graded event adds its row times its count, which costs the same as
one addition; the product with a count is exact whenever the sum of as many single additions would be.

Whole numbers are summed in the currents' type, each kernel position in the current of its part, or in int16 over some
words of the input and then added to int32 currents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.numbers import BYTES
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, RegionSpec, Source, input_range, words
from ldsnn_compiler.targets.cpu.kernels.task import Task, reached, steps, summed, window
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Expr

#: bytes in a cache line
LINE = 64


class EventConv:
    """Adds one source's current to the task's; ``is_first``: the current holds nothing yet."""

    def __init__(self, task: Task, source: Source, bits: Buffer, weights: Buffer, is_first: bool) -> None:
        self.task, self.source, self.bits, self.weights, self.is_first = task, source, bits, weights, is_first
        self.number, _ = task.spec.sums(source)
        self.sums = tir.scratch((task.spec.vectors, task.lanes), self.number)
        self.word = tir.scratch((1,), "uint64")

    def emit(self) -> None:
        if self.task.spec.tuning.order == "pixel":
            self._pixel_by_pixel()
        else:
            self._weights_by_weights()

    def _pixel_by_pixel(self) -> None:
        """Accumulators stay in registers from the first to the last event of a pixel and timestep."""
        task, source = self.task, self.source
        if self.is_first and source.partial:
            zero_current(task, source)
        with task.pixels() as (y, x, pixel):
            (ky0, ky1), (kx0, kx1) = window(source, 0, y), window(source, 1, x)
            with T.serial(steps(task.spec, source)) as step, self._summing((step, pixel), not source.cuts):
                parts = summed(task.spec, source)
                with T.serial(parts) as part, T.serial(ky0, ky1) as ky, T.serial(kx0, kx1) as kx:
                    at, tap = tir.let(self._input_pixel(y, x, ky, kx)), ky * source.kernel[1] + kx
                    with self._summing((step, pixel), bool(source.cuts), tap):
                        self._walk_parts((step, pixel), step * parts + part, at, tap)

    @contextmanager
    def _summing(self, place: tuple[Expr, Expr], here: bool, tap: Expr = 0) -> Iterator[None]:
        """The current in the accumulators, if it is ``here`` that it comes and goes; sums of words go to it at once."""
        if self.source.partial or not here:
            yield
            return
        step, pixel = place
        row = tir.let(self.task.row(self.source, step, tap))
        starts = self.is_first and self.task.spec.tuning.order == "pixel"
        self._load(None if starts else (row, pixel))
        yield
        self._save(row, pixel)

    def _walk_parts(
        self, place: tuple[Expr, Expr], time: Expr, at: Expr, tap: Expr, part: tuple[Expr, int] | None = None
    ) -> None:
        """Events of one input pixel at one time; some words at a time on their own, if the source asks for that."""
        if not self.source.partial:
            self._walk(time, at, tap, part)
            return
        begin, count = part or (0, self._word_count)
        size = min(count, self.source.partial)
        with T.serial(-(-count // size)) as number:
            self._load(None)
            self._walk(time, at, tap, (begin + number * size, size))
            self._widen(place)

    def _widen(self, place: tuple[Expr, Expr]) -> None:
        """Add the sums of some words to the current."""
        current = self.task.current(self.source)
        for v in self.task.vectors:
            index = (*place, self.task.span(v))
            part = self.task.cast(self.sums[v, tir.ramp(0, self.task.lanes)], self.task.spec.accumulator)
            tir.store(current, current[index] + part, *index)

    def _weights_by_weights(self) -> None:
        """Each slab of weights is used by all pixels and timesteps of the tile before the next is touched."""
        task, source = self.task, self.source
        if self.is_first:
            zero_current(task, source)
        slab = task.spec.tuning.words if task.spec.tuning.order == "word" else self._word_count
        slab = min(slab, source.partial or slab)
        (height, width), (rows, columns) = task.spec.space, task.spec.tuning.tile
        with (
            T.serial(source.kernel[0]) as ky,
            T.serial(source.kernel[1]) as kx,
            T.serial(-(-self._word_count // slab)) as s,
        ):
            (y_first, y_end), (x_first, x_end) = (
                reached(source, 0, ky, task.y0, rows, height),
                reached(source, 1, kx, task.x0, columns, width),
            )
            with T.serial(y_first, y_end) as y, T.serial(x_first, x_end) as x:
                at, pixel = tir.let(self._input_pixel(y, x, ky, kx)), (y - task.y0) * columns + (x - task.x0)
                with T.serial(steps(task.spec, source)) as step:
                    if task.spec.tuning.prefetch:
                        visits = (y_end - y_first) * (x_end - x_first) * steps(task.spec, source)
                        visit = ((y - y_first) * (x_end - x_first) + (x - x_first)) * steps(task.spec, source) + step
                        self._prefetch(ky * source.kernel[1] + kx, s * slab, slab, visit, visits)
                    several, tap = summed(task.spec, source), ky * source.kernel[1] + kx
                    with (
                        self._if_any(step, at, s, slab),
                        self._summing((step, pixel), True, tap),
                        T.serial(several) as part,
                    ):
                        self._walk_parts((step, pixel), step * several + part, at, tap, (s * slab, slab))

    def _prefetch(self, tap: Expr, number: Expr, slab: int, visit: Expr, visits: Expr) -> None:
        """This visit's share of the slab ``prefetch`` slabs ahead; weights lie in the order in which slabs are used."""
        spec = self.task.spec
        line_numbers = LINE // BYTES[self.source.weights]
        ahead, lines = slab * spec.tuning.prefetch, min(slab, self._word_count) * WORD * spec.block // line_numbers
        share = tir.let(tirx.floordiv(lines + visits - 1, visits))
        with T.serial(share) as i:
            line = visit * share + i
            row, column = (number + ahead) * WORD + line * line_numbers // spec.block, line * line_numbers % spec.block
            tir.prefetch(self.weights, self.task.block, tap, row, column)

    def _if_any(self, time: Expr, at: Expr, number: Expr, slab: int) -> AbstractContextManager[None]:
        """Leave the accumulators alone where the only word is empty, as at low densities most are."""
        if slab > 1 or summed(self.task.spec, self.source) > 1:
            return nullcontext()
        first = first_block_word(self.task.spec, self.source, self.task.block)
        word = _union([self._load_word(time, k, at, first, number) for k in range(self.source.planes)])
        return tir.when(word != tir.u64(0))

    @property
    def _word_count(self) -> int:
        return words(input_range(self.task.spec, self.source, 0)[1])

    def _input_pixel(self, y: Expr, x: Expr, ky: Expr, kx: Expr) -> Expr:
        s = self.source
        row = y * s.stride[0] - s.padding[0] + ky * s.dilation[0]
        column = x * s.stride[1] - s.padding[1] + kx * s.dilation[1]
        return row * s.space[1] + column

    def _load(self, at: tuple[Expr, Expr] | None) -> None:
        task, current = self.task, self.task.current(self.source)
        for v in task.vectors:
            value = tir.const(0, task.lanes, self.number) if at is None else current[(*at, task.span(v))]
            tir.store(self.sums, value, v, tir.ramp(0, task.lanes))

    def _save(self, step: Expr, pixel: Expr) -> None:
        task = self.task
        for v in task.vectors:
            tir.store(task.current(self.source), self.sums[v, tir.ramp(0, task.lanes)], step, pixel, task.span(v))

    def _walk(self, time: Expr, at: Expr, tap: Expr, part: tuple[Expr, int] | None) -> None:
        """All events of one input pixel at one time, in all words or in ``part`` = (first word, number) of them."""
        task, source = self.task, self.source
        first = first_block_word(task.spec, source, task.block)
        begin, count = part if part else (0, self._word_count)
        whole = self._word_count % count == 0
        with T.serial(count) as w:
            number = tir.let(begin + w) if part else w
            with tir.when(True if whole else number < self._word_count):
                planes = [tir.let(self._load_word(time, k, at, first, number)) for k in range(source.planes)]
                self._add_counted(planes, tap, number)

    def _add_counted(self, planes: list[Expr], tap: Expr, number: Expr) -> None:
        """Of whole numbers, where the order of sums does not matter, first counts of 1: they need no product."""
        if len(planes) == 1:
            self._add_rows(planes[0], [], tap, number)
            return
        if self.number == "float32":
            self._add_rows(_union(planes), planes, tap, number)
            return
        several = tir.let(_union(planes[1:]))
        self._add_rows(planes[0] & tirx.bitwise_not(several), [], tap, number)
        self._add_rows(several, planes, tap, number)

    def _add_rows(self, events: Expr, planes: list[Expr], tap: Expr, number: Expr) -> None:
        """The row of every set bit, times its count in ``planes``, if there are any."""
        tir.store(self.word, events, 0)
        with T.While(self.word[0] != tir.u64(0)):
            self._add_row(planes, tap, number)
            tir.store(self.word, self.word[0] & (self.word[0] - tir.u64(1)), 0)

    def _load_word(self, time: Expr, plane: int, at: Expr, first: Expr, number: Expr) -> Expr:
        word = self.bits[self.task.batch, time, plane, at, first + number]
        if self.source.groups == 1:
            return word
        # a block's range may reach past the last word, where its weights are 0
        return tirx.if_then_else(first + number < words(self.source.channels), word, tir.u64(0))

    def _add_row(self, planes: list[Expr], tap: Expr, number: Expr) -> None:
        task, lanes = self.task, self.task.lanes
        bit = tir.let(tir.trailing_zeros(self.word[0]))
        row = tir.let(number * WORD + bit)
        count = None
        if planes:
            count = tir.let(tir.broadcast(tir.cast(_count(planes, bit), self.number, 1), lanes))
        for v in task.vectors:
            weights = task.cast(self.weights[task.block, tap, row, task.span(v)], self.number)
            sums = self.sums[v, tir.ramp(0, lanes)]
            tir.store(self.sums, sums + (weights if count is None else weights * count), v, tir.ramp(0, lanes))


def _union(planes: list[Expr]) -> Expr:
    """Channels with any event."""
    union = planes[0]
    for plane in planes[1:]:
        union = union | plane
    return union


def _count(planes: list[Expr], bit: Expr) -> Expr:
    total = tirx.const(0, "uint64")
    for k, plane in enumerate(planes):
        total = total | (((plane >> tirx.Cast("uint64", bit)) & tir.u64(1)) << tir.u64(k))
    return tirx.Cast("int32", total)


def first_block_word(spec: RegionSpec, source: Source, block: Expr) -> Expr:
    """:func:`~.spec.first_word` for a block that is known at run time."""
    if source.groups == 1 or spec.blocks == 1:
        return 0
    if spec.is_depthwise(source):
        return block * (spec.block // WORD)
    per_group_out, per_group_in = spec.channels // source.groups, source.channels // source.groups
    return tir.let(block * spec.block // per_group_out * per_group_in // WORD)


def zero_current(task: Task, source: Source) -> None:
    """Start a current at 0, all parts of it."""
    rows, columns = task.spec.tuning.tile
    with T.serial(task.spec.parts * steps(task.spec, source)) as step, T.serial(rows * columns) as pixel:
        for v in task.vectors:
            tir.store(task.current(source), tir.const(0, task.lanes, task.spec.accumulator), step, pixel, task.span(v))
