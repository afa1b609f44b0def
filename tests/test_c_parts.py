"""The parts of C bundles on their own: the memory planner, the weights file, object files, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.targets import board
from ldsnn_compiler.targets.c.elf import read_object
from ldsnn_compiler.targets.c.memory import ALIGNMENT, Lifetime, aligned, arena
from ldsnn_compiler.targets.c.objects import compile_functions
from ldsnn_compiler.targets.c.weights import MAGIC, Weights, exactly, repeated_row
from ldsnn_compiler.targets.plan import BATCH, Buffer

lives = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 9), st.integers(0, 4)), max_size=12)


@settings(deadline=None, derandomize=True, database=None)
@given(lives)
def test_buffers_that_meet_never_share_bytes(drawn: list[tuple[int, int, int]]) -> None:
    buffers = [Lifetime(f"b{i}", size, first, first + more) for i, (size, first, more) in enumerate(drawn)]
    found = arena(buffers)
    for i, a in enumerate(buffers):
        start = found.offsets[a.name]
        assert start % ALIGNMENT == 0 and start + a.size <= found.size
        for b in buffers[i + 1 :]:
            other = found.offsets[b.name]
            assert not a.meets(b) or start + a.size <= other or other + b.size <= start
    at_once = [sum(aligned(b.size) for b in buffers if b.first <= step <= b.last) for step in range(14)]
    assert max(at_once) <= found.size <= sum(aligned(b.size) for b in buffers)


def test_a_chain_needs_two_buffers_at_a_time() -> None:
    chain = [Lifetime(f"b{i}", 100, i, i + 1) for i in range(10)]
    assert arena(chain).size == 2 * aligned(100)


def test_buffers_that_live_apart_share_everything() -> None:
    found = arena([Lifetime("a", 64, 0, 0), Lifetime("b", 1000, 1, 2), Lifetime("c", 10, 3, 3)])
    assert set(found.offsets.values()) == {0} and found.size == 1024


def test_the_weights_file_is_a_header_and_aligned_arrays() -> None:
    weights = Weights()
    first, second = np.arange(5, dtype="int8"), np.ones((2, 3), "float32")
    assert weights.add("a", lambda: first) == 64 and weights.add("b", lambda: second) == 128
    assert weights.add("a", lambda: second) == 64, "known by its name"
    content = weights.content(b"identity")
    assert content[:16] == MAGIC + b"identity" and len(content) == weights.size == 192
    assert content[64:69] == first.tobytes() and content[128:152] == second.tobytes()


@pytest.mark.parametrize("value", [torch.tensor([1.5, 2.0]), torch.zeros(3), torch.tensor([300.0, 1.0])])
def test_arguments_that_do_not_fit_their_buffer_are_refused(value: torch.Tensor) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(LdsnnError, match=r"w: expected int8\[2\]"):
        exactly(value, Buffer((2,), "int8"), "w")


def test_arguments_keep_their_numbers() -> None:
    assert exactly(torch.tensor([-3.0, 7.0]), Buffer((2,), "int8"), "w").tolist() == [-3, 7]
    assert exactly(torch.zeros(4, 2), Buffer((BATCH, 2)), "v", 4).shape == (4, 2)


def test_initial_states_that_repeat_are_kept_once() -> None:
    row = np.array([1, 2, 3], np.int32)
    assert repeated_row(np.broadcast_to(row, (1, 4, 3))).tolist() == [1, 2, 3]
    other = np.stack([row, row + 1])
    assert repeated_row(other).shape == (2, 3)
    assert repeated_row(np.zeros((2, 1), np.float32)).tolist() == [0]


def test_only_objects_of_64_bit_elf_are_read() -> None:
    with pytest.raises(LdsnnError, match="not 64-bit little-endian ELF"):
        read_object(b"\xcf\xfa\xed\xfe" + bytes(60))


def test_functions_that_need_a_run_time_are_refused() -> None:
    """A call of something that is in neither libc nor libm."""
    from tvm.script import from_source

    function = from_source(
        '@T.prim_func(s_tir=True)\ndef f(a: T.Buffer((4,), "float32")):\n'
        '    T.evaluate(T.call_extern("int32", "open_the_door", T.int32(1)))\n    a[0] = T.float32(0)\n'
    )
    with pytest.raises(LdsnnError, match="open_the_door: is needed from outside, and is in neither libc nor libm"):
        compile_functions({"net_kernel_f": function}, board("native"))
