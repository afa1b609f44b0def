"""Counted instructions: against a count by hand, against single steps, and the output against another emulator's."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

pytestmark = [pytest.mark.unicorn, pytest.mark.arm_emulation]

SOURCE = r"""
#include <arm_neon.h>
#include <stdio.h>
__attribute__((noinline)) long looped(long n) {
  long sum = 0;
  __asm__ volatile("1: add %0, %0, #3\n subs %1, %1, #1\n b.ne 1b\n" : "+r"(sum), "+r"(n) : : "cc");
  return sum;
}
__attribute__((noinline)) int dots(void) {
#ifdef __ARM_FEATURE_DOTPROD
  return vaddvq_s32(vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(3), vdupq_n_s8(2)));
#else
  return 96;
#endif
}
int main(int argc, char **argv) {
  char line[80] = "";
  FILE *file = fopen(argv[1], "rb");
  if (file) printf("%s and no more: %d\n", fgets(line, sizeof line, file), fgetc(file));
  printf("%ld %d %s %g\n", looped(1000), dots(), argv[1], argc / 4.0);
  return 7;
}
"""


@pytest.fixture(scope="module")
def armcount() -> ModuleType:
    sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))
    try:
        import armcount
    finally:
        sys.path.pop(0)
    return armcount


def build(folder: Path, cpu: str) -> Path:
    """The program above for a core."""
    source, program = folder / "net.c", folder / cpu
    source.write_text(SOURCE)
    command = ["aarch64-linux-gnu-gcc", "-O2", "-static", f"-mcpu={cpu}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("counted"), "cortex-a72")


def test_a_loop_counted_by_hand(armcount: ModuleType, program: Path) -> None:
    found = armcount.count(program, ["word"], core="cortex-a72")
    before_and_after = found.instructions["looped"] - 3 * 1000
    assert 1 <= before_and_after <= 5
    assert found.total == sum(found.instructions.values()) > 3000


def test_it_prints_and_ends_as_elsewhere(armcount: ModuleType, program: Path) -> None:
    found = armcount.count(program, ["word"])
    other = subprocess.run(["qemu-aarch64-static", str(program), "word"], capture_output=True, text=True)
    assert (found.printed.decode(), found.status) == (other.stdout, other.returncode) == ("3000 96 word 0.5\n", 7)


def test_it_reads_the_files_that_its_arguments_name(armcount: ModuleType, program: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a line")
    assert armcount.count(program, [str(tmp_path / "file")]).printed.startswith(b"a line and no more: -1\n3000")


def test_marked_functions_divide_the_run(armcount: ModuleType, program: Path) -> None:
    found = armcount.count(program, ["word"], marked=["looped", "dots"])
    assert [name for name, _ in found.parts] in (["looped", "dots"], ["dots", "looped"])
    assert dict(found.parts)["looped"] >= found.instructions["looped"]
    assert armcount.count(program, ["word"], marked=["no such function"]).parts == []


def test_blocks_and_single_steps_count_the_same(armcount: ModuleType, program: Path) -> None:
    blocks, steps = (armcount.count(program, ["word"], singly=singly) for singly in (False, True))
    assert blocks.instructions == steps.instructions


def test_another_emulator_counts_the_same(armcount: ModuleType, program: Path, tmp_path: Path) -> None:
    """QEMU's log of single steps ends each line with the function's name; its start-up code finds another machine."""
    log = tmp_path / "log"
    command = ["qemu-aarch64-static", "-singlestep", "-d", "exec,nochain", "-D", str(log), str(program), "word"]
    subprocess.run(command, capture_output=True)
    steps = Counter(line.rpartition(" ")[2] for line in log.read_text().splitlines() if line.startswith("Trace"))
    found = armcount.count(program, ["word"]).instructions
    assert {name: steps[name] for name in ("looped", "dots", "main")} == {
        name: found[name] for name in ("looped", "dots", "main")
    }


def test_a_core_faults_on_what_it_lacks(armcount: ModuleType, tmp_path: Path) -> None:
    program = build(tmp_path, "cortex-a76")
    assert armcount.count(program, ["word"]).printed.startswith(b"3000 96")
    with pytest.raises(RuntimeError, match=r"in dots: .*lacks"):
        armcount.count(program, ["word"], core="cortex-a72")


def test_other_files_are_refused(armcount: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not a statically linked program"):
        armcount.count(Path(sys.executable).resolve())
