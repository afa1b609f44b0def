"""Choosing timesteps, levels and method for every neuron layer: see :func:`ldsnn_compiler.search.optimize.optimize`."""
