"""Setting up the emulated machine, part by part; every part is there whole or not at all."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emulation.machine import EMULATOR, READY, ROOT, folder, python

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
#: apt brings along what these need
PACKAGES = (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6", "libgomp1")
#: what bundles need to run, and (cloudpickle, psutil) TVM's RPC server
WHEELS = ("apache-tvm", "apache-tvm-ffi", "cloudpickle", "ml_dtypes", "numpy", "psutil", "safetensors",
          "typing_extensions")  # fmt: skip
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")

_WRAPPER = """#!/bin/sh
# Python of another machine. It takes this script for itself, so that its subprocesses come through here as well.
here={folder}
exec {emulator} -L "$here/system" -E PYTHONHOME="$here/system/usr" \\
    -E PYTHONPATH="$here/site${{EMULATED_PYTHONPATH:+:$EMULATED_PYTHONPATH}}" -0 "$0" \\
    "$here/system/usr/bin/{python}" "$@"
"""
_CHECK = (
    "import platform, sys, numpy, psutil, tvm; assert tvm.runtime.tensor(numpy.ones(3)).numpy().sum() == 3.0; "
    "print(platform.machine(), sys.executable, tvm.__version__)"
)


def set_up(tell: Callable[[str], None] = print) -> None:
    """Make the emulated machine, or what is missing of it; :class:`RuntimeError` says what went wrong."""
    home = folder()
    if shutil.which(EMULATOR) is None:
        raise RuntimeError(f"{EMULATOR} is not on PATH: install Debian's qemu-user-static")
    home.mkdir(parents=True, exist_ok=True)
    parts: dict[str, tuple[Any, Callable[[Path], None]]] = {
        "system": (list(PACKAGES), _system),
        "site": (_pinned(WHEELS), _site),
    }
    made = [_part(home / name, content, make, tell) for name, (content, make) in parts.items()]
    _write_wrapper(home)
    if not any(made) and (home / READY).is_file():
        return tell(f"ready: {home}")
    found = python(["-c", _CHECK])
    if found.returncode or not found.stdout.startswith(f"aarch64 {home / 'python'} "):
        raise RuntimeError(f"Python does not run under emulation:\n{found.stdout}{found.stderr}")
    (home / READY).touch()
    tell(f"ready: {found.stdout.strip()}")


def _part(path: Path, content: Any, make: Callable[[Path], None], tell: Callable[[str], None]) -> bool:
    """Make one folder, unless it is there with that content; an unfinished one never bears its name."""
    label = path.with_suffix(".json")
    if path.is_dir() and label.is_file() and json.loads(label.read_text()) == content:
        return False
    tell(f"setting up {path}")
    for stale in (path.with_name(READY), label):
        stale.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        made.mkdir()
        make(made)
        made.rename(path)
    label.write_text(json.dumps(content) + "\n")
    return True


def _system(into: Path) -> None:
    """arm64 packages, by an apt that knows nothing of this machine but where it gets packages from."""
    scratch = into.parent
    for name in ("lists/partial", "archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "",
        "APT::Update::Post-Invoke::": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "1",
        "Dir::State": str(scratch),
        "Dir::State::status": str(scratch / "status"),
        "Dir::Cache": str(scratch),
    }
    apt = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in options.items())]
    _run(*apt, "update")
    _run(*apt, "install", "--yes", "--download-only", *PACKAGES)
    for package in sorted((scratch / "archives").glob("*.deb")):
        _run("dpkg", "--extract", str(package), str(into))
    # bytecode is the same on all machines, and compiling under emulation takes seconds
    _run(sys.executable, "-m", "compileall", "-q", str(into / "usr" / "lib" / PYTHON))


def _site(into: Path) -> None:
    """The wheels, for this version of Python, in the versions that the tests run with."""
    chosen = [f"--platform={name}" for name in PLATFORMS]
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:",
         f"--python-version={PYTHON.removeprefix('python')}", *chosen, f"--target={into}",
         *_pinned(WHEELS))  # fmt: skip


def _pinned(names: Sequence[str]) -> list[str]:
    """Requirements with the versions of ``constraints.txt``, where it has one."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.partition("==")[0]: line for line in lines if "==" in line}
    return [pins.get(name, name) for name in names]


def _write_wrapper(home: Path) -> None:
    text = _WRAPPER.format(folder=shlex.quote(str(home)), emulator=EMULATOR, python=PYTHON)
    (home / "python").write_text(text)
    (home / "python").chmod(0o755)


def _run(*command: str) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{shlex.join(command[:2])} ... failed:\n{found.stdout[-2000:]}{found.stderr[-2000:]}")
