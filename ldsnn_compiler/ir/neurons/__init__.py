"""The built-in neuron templates, one file each."""

from ldsnn_compiler.ir.neurons import (
    alif,
    alif_filtered,
    alpha,
    cuba_lif,
    if_,
    izhikevich,
    leaky,
    leaky_prompt,
    li,
    lif,
    lif_gain,
    relu,
)

__all__ = [
    "alif",
    "alif_filtered",
    "alpha",
    "cuba_lif",
    "if_",
    "izhikevich",
    "leaky",
    "leaky_prompt",
    "li",
    "lif",
    "lif_gain",
    "relu",
]
