"""Benchmarks against the libraries people use, in one process, with the same threads, spikes compared."""
