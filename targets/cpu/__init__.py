"""Code for CPUs: plain kernels for every op, and the event-driven and dense kernels of fused regions."""
