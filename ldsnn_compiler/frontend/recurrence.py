"""Recurrent cells and containers, for the importer of any library.

A cycle runs through ``delay`` ops only, so a recurrent cell is a neuron whose spikes of one step before come back
through a synapse::

    before = delay(cell)                           0 in the first step
    back   = linear(before) | conv2d(before) | ...
    cell   = neuron(x, back)                       or neuron(x + back)

:func:`recurrent` builds that around one neuron; snnTorch's ``RLeaky``, say, is::

    back = lambda spikes: ctx.call(m.recurrent, f"{ctx.site.module}.recurrent", spikes)
    node = recurrent(ctx, x, neuron("leaky", feedback=True, ...), back)

:func:`looped` feeds back whatever a body of any layers gives, as containers do. SpikingJelly's
``LinearRecurrentContainer`` is ``looped(ctx, x, (m.sub_module_out_features,), body)`` with a body that concatenates
``x`` and what came back, and calls the layers.

Where the sum of both currents is rounded decides about bits. A template with the option ``feedback`` (``leaky``,
``cuba_lif``, ...) takes the second current as an operand of its own and adds it where its library does,
``(beta * v + x) + back``. For every other neuron ``x + back`` is one ``add`` before it.
"""

from __future__ import annotations

from collections.abc import Callable

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.traced import BATCH, SEQUENCE, Traced
from ldsnn_compiler.ir.graph import Node
from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.ir.types import REAL

Synapse = Callable[[Traced], Traced]
"""From the spikes of one step before to the current they cause; both ``[N, ...]`` of every timestep."""


def looped(ctx: Context, x: Traced, shape: tuple[int, ...], body: Synapse) -> Traced:
    """``y`` with ``y[t] = body(y[t - 1])``, ``y[-1] = 0``, of that shape and with the layout and timesteps of ``x``.

    ``x`` is ``[T, N, ...]`` or the view of one timestep; the body sees, and gives, the view of one timestep, and reads
    ``x`` and whatever else it needs as :meth:`~ldsnn_compiler.frontend.context.Context.each_step` shows it.
    """
    stepping = ctx.each_step(ctx.expect(x, SEQUENCE, (BATCH,)))
    stream = x.value.type.with_(shape=shape, dtype="float32", signal=REAL)
    delay = ctx.emit("delay", part="before", type=stream)
    y = ctx.expect(body(stepping.like(delay.result)), (BATCH,))
    if y.value.type.shape != shape:
        raise ctx.refuse(f"feeds back {y}, where it takes {list(shape)}")
    ctx.graph.set_attrs(delay, type=y.value.type)
    ctx.graph.set_operand(delay, 0, y.value)
    return y if x.stepping else ctx.collect(y)


def recurrent(ctx: Context, x: Traced, kind: Neuron, synapse: Synapse, *, membrane: bool = True) -> Node:
    """The ``neuron`` node of a recurrent cell: driven by ``x`` and by its own spikes of one step before.

    Its results are seen as ``x`` is: ``x.like(node.result)``, and ``x.like(node.results[1])`` for the membrane.
    """
    current, cells = ctx.each_step(x), list[Node]()

    def body(spikes: Traced) -> Traced:
        back = ctx.expect(synapse(spikes), (BATCH,))
        operands = [current.value, back.value]
        if "feedback" not in kind.program.inputs:
            operands = [ctx.emit("add", *operands, part="current").result]
        cells.append(ctx.emit("neuron", *operands, neuron=kind, membrane=membrane))
        return current.like(cells[0].result)

    looped(ctx, x, x.value.type.shape, body)
    return cells[0]
