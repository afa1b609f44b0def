"""The built-in neuron templates, one file each."""

from ldsnn_compiler.ir.neurons import alif, alpha, cuba_lif, if_, izhikevich, leaky, leaky_prompt, li, lif, relu

__all__ = ["alif", "alpha", "cuba_lif", "if_", "izhikevich", "leaky", "leaky_prompt", "li", "lif", "relu"]
