"""Compiles spiking neural networks with a timestep count per layer: PyTorch or NIR in, tuned code out."""

__version__ = "0.1.0"
