"""Boards are data: what is built in, what plug-ins may add, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.targets import Board, board, boards, link, register_board
from ldsnn_compiler.targets.boards import native, read_boards, running_features


def test_the_built_in_boards_are_there() -> None:
    assert {"x86-64-v3", "x86-64-v4", "skylake-avx512", "cascadelake", "znver4", "native"} <= boards().keys()
    assert {"aarch64", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin"} <= boards().keys()
    assert all(each.name == name for name, each in boards().items())


def test_capabilities_are_asked_not_names() -> None:
    assert board("x86-64-v3").lanes() == 8
    assert board("znver4").lanes() == 16
    assert not board("x86-64-v3").has("avx512f")
    assert board("cascadelake").has("avx512vnni") and not board("skylake-avx512").has("avx512vnni")
    assert board("raspberry-pi-5").has("dotprod") and not board("raspberry-pi-4").has("dotprod")
    assert {board(name).lanes() for name in ("aarch64", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin")} == {4}


def test_native_has_what_the_machine_shows() -> None:
    machine = native()
    assert machine.missing() == ()
    assert set(machine.features) <= running_features()
    assert machine.cores >= 1 and machine.l2_kib > 0


def test_code_uses_no_feature_that_a_board_leaves_out() -> None:
    lacks = {"raspberry-pi-4": ("aes", "sha2")}  # which the processor has and that board's maker left out
    assert all(each.unused() == lacks.get(name, ()) for name, each in boards().items() if name != "native")
    less = replace(board("znver4"), features=("avx", "avx2", "fma"))
    assert {"avx512f", "bmi2"} <= set(less.unused()) and "avx2" not in less.unused()
    assert "-avx512f" in [str(a) for a in less.target(1).attrs["mattr"]]
    assert {"dotprod", "lse"} <= set(replace(board("raspberry-pi-5"), features=("crc",)).unused())
    assert Board("phone", "riscv64-linux-gnu", "generic-rv64").unused() == ()


def test_a_board_passes_through_and_survives_json() -> None:
    mine = replace(board("znver4"), name="mine", cores=8)
    assert board(mine) is mine
    assert Board.of_json(mine.to_json()) == mine


def test_an_unknown_board_is_named() -> None:
    with pytest.raises(LdsnnError, match=r"unknown target .potato., known are .*znver4"):
        board("potato")


def test_a_name_taken_is_an_error() -> None:
    with pytest.raises(LdsnnError, match="'znver4' is registered already"):
        register_board(replace(board("znver4"), cores=99))
    with pytest.raises(LdsnnError, match="'native' is registered already"):
        register_board(Board("native", "x86_64", "znver4"))


def test_registering_the_same_board_again_is_harmless() -> None:
    assert register_board(board("znver4")) == board("znver4")


def test_code_for_features_this_machine_lacks_is_known_to_be_unfit() -> None:
    other = replace(native(), features=(*native().features, "avx10.9"))
    assert other.missing() == ("avx10.9",)
    assert replace(native(), triple="sparc-sun-solaris").missing() == ("sparc",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "boards.toml"),
        ("[a]\nspeed = 3", "board 'a' has no setting speed"),
        ('[a]\ncpu = "x"', "board 'a'.*triple"),
        ('[a]\ncpu = "x"\ntriple = "y"\ncost = { rows = 1 }', "board 'a'.*rows"),
        ('[a]\ncpu = "x"\ntriple = "y"\ncores = 0', "board 'a': .cores: a whole number from 1, not 0"),
        ('[a]\ncpu = "x"\ntriple = "y"\nvector_bits = 192', "board 'a': .vector_bits: one of .*, not 192"),
    ],
)
def test_mistakes_in_a_board_file_name_the_board(text: str, message: str) -> None:
    with pytest.raises(LdsnnError, match=message):
        read_boards(text)


def test_without_a_cross_compiler_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link.shutil, "which", lambda name: None)
    monkeypatch.setattr(link, "find_spec", lambda name: None)
    with pytest.raises(LdsnnError, match=r"needs a cross compiler for aarch64 .*gcc-aarch64-linux-gnu, or pip install"):
        link.cross_compiler(board("raspberry-pi-4"))
    monkeypatch.setattr(link, "find_spec", lambda name: object())
    assert link.cross_compiler(board("raspberry-pi-4"))[1:] == ("-m", "ziglang", "cc", "-target", "aarch64-linux-gnu")
    assert replace(board("aarch64"), triple="x86_64-linux-gnu").is_foreign is False
