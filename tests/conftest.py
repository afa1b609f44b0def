"""Capability markers: a test that needs something this machine lacks is skipped, by name and with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from emulation import machine as emulation

from ldsnn_compiler.targets.cuda import compiler, embed

ROOT = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """The folder ``LDSNN_DATA`` names, or ``shared/data`` beside the checkout."""
    return Path(os.environ.get("LDSNN_DATA", ROOT.parent / "shared" / "data"))


def _missing_cuda() -> str:
    return "" if torch.cuda.is_available() else "no CUDA device"


def _missing_cuda_compiler() -> str:
    lacking = compiler.missing()
    return lacking or ("" if compiler.package_library(embed.RUNTIME) else "nvidia-cuda-runtime is not installed")


def _missing_chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    return "" if any(shutil.which(name) for name in names) else f"none on PATH: {', '.join(names)}"


def _missing_cmake() -> str:
    return "" if shutil.which("cmake") else "not on PATH: cmake"


def _missing_shared_data() -> str:
    return "" if data_folder().is_dir() else "no data folder: set LDSNN_DATA"


def _missing_package(*names: str) -> Callable[[], str]:
    return lambda: ", ".join(f"{name} is not installed" for name in names if not find_spec(name))


MISSING: dict[str, Callable[[], str]] = {
    "cuda": _missing_cuda,
    "cuda_compiler": _missing_cuda_compiler,
    "arm_emulation": emulation.missing,
    "shared_data": _missing_shared_data,
    "spikingjelly": _missing_package("spikingjelly"),
    "snntorch": _missing_package("snntorch"),
    "sinabs": _missing_package("sinabs"),
    "norse": _missing_package("norse"),
    "nir": _missing_package("nir"),
    "onnxruntime": _missing_package("onnxruntime", "onnx", "onnxscript"),
    "unicorn": _missing_package("unicorn", "elftools"),
    "chromium": _missing_chromium,
    "cmake": _missing_cmake,
}
"""Marker to a function that says what is missing for it, or "" when nothing is."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` rewrites the expected files under ``tests/golden`` with what the code now gives."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected files under tests/golden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what a capability marker says cannot run here."""
    reasons = {marker: missing() for marker, missing in MISSING.items()}
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets; use it only together with the ``shared_data`` marker."""
    return data_folder()
