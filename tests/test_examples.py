"""Every example runs, from the command line as its docstring says, and ends well."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

EXPECTED = {
    "compile_model": "the loaded bundle answers the same: True",
    "inspect_dumps": "read back:",
    "finetune": "fine-tuning gained back accuracy: True",
    "custom_pass": "weights kept: [[0.5, 0.0, 0.0]]",
    "custom_neuron": "compiled code agrees: True",
    "custom_op": "compiled code agrees: True",
    "custom_board": "compiled for old-laptop with 8 lanes of float32",
}


@pytest.mark.spikingjelly
@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str) -> None:
    script = ROOT / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert EXPECTED[name] in done.stdout


def test_no_example_is_forgotten() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.spikingjelly
def test_the_readme_example(tmp_path: Path) -> None:
    """As it stands in README.md, from a folder of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    check = "assert (scores.argmax(1) == y).float().mean() > 0.97\nassert ld.load('digits.ldsnn')(x).equal(scores)\n"
    command = [sys.executable, "-c", code + check]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
