"""SpikingJelly: its ``layer.*`` wrappers and containers, and the table of what can be imported.

Versions 2 and 0.0.0.0.14; the neurons are in :mod:`ldsnn_compiler.frontend.spikingjelly_neurons`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from spikingjelly.activation_based import base, functional, layer
from spikingjelly.activation_based import neuron as sj
from torch import nn

from ldsnn_compiler.frontend import layers, spikingjelly_neurons
from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.recurrence import looped
from ldsnn_compiler.frontend.registry import Check, FrontEnd, FunctionImporter, ModuleImporter, ModuleRef
from ldsnn_compiler.frontend.traced import BATCH, FOLDED, SEQUENCE, Traced

# ---- stateless wrappers


def wrapped(importer: ModuleImporter) -> ModuleImporter:
    """The importer of a ``layer.*`` wrapper: in multi-step mode it sees ``[T, N, ...]`` step by step."""

    @wraps(importer)
    def run(m: Any, ctx: Context, x: Any) -> Traced:
        leads = (SEQUENCE,) if m.step_mode == "m" else ((BATCH,), (FOLDED,))
        return importer(m, ctx, x, leads=leads)  # type: ignore[no-any-return]

    return run


def import_linear(m: Any, ctx: Context, x: Any) -> Traced:
    """``layer.Linear`` acts on the last axis in either mode."""
    return layers.linear(m, ctx, x)


def import_flatten(m: Any, ctx: Context, x: Any) -> Traced:
    """``layer.Flatten``: its dimensions count from the batch axis in multi-step mode as well."""
    if m.step_mode == "s":
        return layers.flatten(m, ctx, x)  # type: ignore[no-any-return]
    x = ctx.expect(x, SEQUENCE)
    flat = layers.flatten(m, ctx, x.with_axes((BATCH, *x.axes[2:])))
    return flat.with_axes((*SEQUENCE, *flat.axes[1:]))  # type: ignore[no-any-return]


def import_voting(m: Any, ctx: Context, x: Any) -> Traced:
    """``VotingLayer``: the mean of each ``voting_size`` neighbouring outputs."""
    x = ctx.expect(x, *((SEQUENCE,) if m.step_mode == "m" else ((BATCH,), (FOLDED,))), ndim=(1,))
    size, (count,) = (m.voting_size,), x.value.type.shape
    lifted = ctx.layer("reshape", x, part="channel", shape=(1, count))
    pooled = ctx.layer("avg_pool", lifted, kernel=size, stride=size, padding=(0,))
    return ctx.layer("flatten", pooled, part="flatten")


# ---- containers


def _children(m: nn.Sequential, ctx: Context, x: Any) -> Any:
    base_path = ctx.site.module
    for name, child in m.named_children():
        x = ctx.call(child, f"{base_path}.{name}" if base_path else name, x)
    return x


def import_seq_to_ann(m: Any, ctx: Context, x: Any) -> Any:
    """``SeqToANNContainer``: its layers see ``[T*N, ...]``."""
    x = ctx.expect(x, SEQUENCE)
    return unfolded(_children(m, ctx, x.with_axes((FOLDED, *x.axes[2:]))))


def unfolded(y: Any) -> Any:
    """``[T*N, ...]`` as ``[T, N, ...]``."""
    return y.with_axes((*SEQUENCE, *y.axes[1:])) if isinstance(y, Traced) else y


def import_multi_step(m: Any, ctx: Context, x: Any) -> Any:
    """``MultiStepContainer``: its modules see one timestep after another."""
    y = _children(m, ctx, ctx.each_step(ctx.expect(x, SEQUENCE)))
    return ctx.collect(y) if isinstance(y, Traced) else y


def import_step_mode(m: Any, ctx: Context, x: Any) -> Any:
    """``StepModeContainer``."""
    if m.step_mode == "s":
        return _children(m, ctx, x)
    return (import_multi_step if m.stateful else import_seq_to_ann)(m, ctx, x)


def _looped(m: Any, ctx: Context, x: Any, features: int | None, meet: Callable[[Traced, Traced], Any]) -> Any:
    """``y[t] = sub_module(meet(x[t], y[t - 1]))``, ``y[-1] = 0``."""
    x = ctx.expect(x, SEQUENCE) if m.step_mode == "m" else ctx.expect(x, (BATCH,))
    shape = x.value.type.shape if features is None else (*x.value.type.shape[:-1], features)
    return looped(ctx, x, shape, lambda y: _inner(ctx, m.sub_module, "sub_module", meet(ctx.each_step(x), y)))


def _inner(ctx: Context, module: nn.Module, name: str, *operands: Any) -> Any:
    """The call of a module's own submodule."""
    return ctx.call(module, f"{ctx.site.module}.{name}" if ctx.site.module else name, *operands)


def import_linear_recurrent(m: Any, ctx: Context, x: Any) -> Any:
    """``LinearRecurrentContainer``: ``y[t] = sub_module(rc([x[t], y[t - 1]]))``, joined along the last axis."""

    def meet(x: Traced, y: Traced) -> Any:
        axis = len(x.value.type.shape) - 1
        return _inner(ctx, m.rc, "rc", x.like(ctx.emit("concat", x.value, y.value, part="both", axis=axis).result))

    return _looped(m, ctx, x, m.sub_module_out_features, meet)


class _Function(nn.Module):
    """A function as a module, so that its body is traced as a forward is."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, y: Any, x: Any) -> Any:
        return self.function(y, x)


def import_element_wise_recurrent(m: Any, ctx: Context, x: Any) -> Any:
    """``ElementWiseRecurrentContainer``: ``y[t] = sub_module(f(y[t - 1], x[t]))``."""
    function = _Function(m.element_wise_function)
    return _looped(m, ctx, x, None, lambda x, y: _inner(ctx, function, "element_wise_function", y, x))


# ---- functional


def import_seq_to_ann_forward(ctx: Context, x_seq: Any, stateless_module: Any) -> Any:
    """``functional.seq_to_ann_forward(x_seq, modules)``."""
    x = ctx.expect(x_seq, SEQUENCE)
    return unfolded(_chain(ctx, stateless_module, x.with_axes((FOLDED, *x.axes[2:]))))


def import_multi_step_forward(ctx: Context, x_seq: Any, single_step_module: Any) -> Any:
    """``functional.multi_step_forward(x_seq, modules)``."""
    y = _chain(ctx, single_step_module, ctx.each_step(ctx.expect(x_seq, SEQUENCE)))
    return ctx.collect(y) if isinstance(y, Traced) else y


def _chain(ctx: Context, modules: Any, x: Any) -> Any:
    for ref in modules if isinstance(modules, tuple | list) else (modules,):
        if not isinstance(ref, ModuleRef):
            raise ctx.refuse(f"is given {type(ref).__name__}, not a module", hint="pass modules of the model")
        x = ctx.call(ref.module, ref.path, x)
    return x


MODULES: Mapping[type, ModuleImporter] = {
    **spikingjelly_neurons.NEURONS,
    layer.Conv1d: wrapped(layers.conv),
    layer.Conv2d: wrapped(layers.conv),
    layer.BatchNorm1d: wrapped(layers.batch_norm),
    layer.BatchNorm2d: wrapped(layers.batch_norm),
    layer.AvgPool1d: wrapped(layers.avg_pool),
    layer.AvgPool2d: wrapped(layers.avg_pool),
    layer.MaxPool1d: wrapped(layers.max_pool),
    layer.MaxPool2d: wrapped(layers.max_pool),
    layer.AdaptiveAvgPool1d: wrapped(layers.adaptive_avg_pool),
    layer.AdaptiveAvgPool2d: wrapped(layers.adaptive_avg_pool),
    layer.Linear: import_linear,
    layer.Flatten: import_flatten,
    layer.Dropout: layers.dropout,
    layer.Dropout2d: layers.dropout,
    layer.VotingLayer: import_voting,
    layer.SeqToANNContainer: import_seq_to_ann,
    layer.MultiStepContainer: import_multi_step,
    layer.StepModeContainer: import_step_mode,
    layer.LinearRecurrentContainer: import_linear_recurrent,
    layer.ElementWiseRecurrentContainer: import_element_wise_recurrent,
}


CHECKS: Mapping[type, Check] = {
    **spikingjelly_neurons.CHECKS,
    layer.Conv1d: layers.check_conv,
    layer.Conv2d: layers.check_conv,
    layer.BatchNorm1d: layers.check_batch_norm,
    layer.BatchNorm2d: layers.check_batch_norm,
    layer.MaxPool1d: layers.check_max_pool,
    layer.MaxPool2d: layers.check_max_pool,
}

FUNCTIONS: Mapping[Callable[..., Any], FunctionImporter] = {
    functional.seq_to_ann_forward: import_seq_to_ann_forward,
    functional.multi_step_forward: import_multi_step_forward,
    **spikingjelly_neurons.MARKERS,
}

_PER_TIMESTEP = (
    "it has parameters for each timestep, so its number of timesteps cannot change; use LIFNode or ParametricLIFNode"
)
_NORM_PER_TIMESTEP = "it has parameters for each timestep, so its number of timesteps cannot change; use BatchNorm"
_REFUSED_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("GatedLIFNode", "PSN", "MaskedPSN", "SlidingPSN"), _PER_TIMESTEP),
    **{
        f"{kind}{d}d": _NORM_PER_TIMESTEP
        for kind in ("TemporalEffectiveBatchNorm", "BatchNormThroughTime")
        for d in (1, 2, 3)
    },
    **{f"NeuNorm{d}": "use BatchNorm" for d in ("", "2d")},
    **dict.fromkeys(
        ("TLastSeqToANNContainer", "TLastMultiStepContainer"),
        "put time first, [T, N, ...], and use the container without TLast",
    ),
    "LIAFNode": "it emits the membrane, not spikes; use LIFNode",
    "KLIFNode": "use LIFNode or ParametricLIFNode",
    "SynapseFilter": "use a CUBALIFNode, which filters its input current",
    "DropConnectLinear": "use layer.Linear",
    "Conv3d": "only one- and two-dimensional convolutions",
    "GroupNorm": "its statistics depend on the input; use BatchNorm",
    "MultiStepDropout": "use layer.Dropout",
}
REFUSED: Mapping[Any, str] = {
    getattr(space, name): hint for name, hint in _REFUSED_NAMES.items() for space in (sj, layer) if hasattr(space, name)
}

_METHODS_KEPT = (
    "forward",
    "single_step_forward",
    "multi_step_forward",
    "single_step_functional_forward",
    "multi_step_functional_forward",
)


def front_end() -> FrontEnd:
    """SpikingJelly's classes."""
    return FrontEnd(
        "spikingjelly",
        modules=MODULES,
        checks=CHECKS,
        functions=FUNCTIONS,
        refused=REFUSED,
        methods_kept=_METHODS_KEPT,
        leaves=(base.MemoryModule, base.StepModule),
        unknown="use IFNode, LIFNode or ParametricLIFNode and the ordinary layers",
        state=spikingjelly_neurons.STATE,
        wrapped=((functional, "seq_to_ann_forward"), (functional, "multi_step_forward")),
    )
