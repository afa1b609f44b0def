"""The board ``example-soc``, registered on import."""

from ldsnn_compiler.targets import Board, register_board

BOARD = register_board(
    Board(
        "example-soc",
        triple="aarch64-unknown-linux-gnu",
        cpu="cortex-a55",
        features=("neon",),
        cores=4,
        doc="a board that a plug-in brings",
    )
)
