"""Versions of the libraries whose time benchmarks take."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Of everything whose time is taken."""
    found = {}
    for name in ("torch", "apache-tvm", "spikingjelly", "snntorch", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
