"""Tuning: each region's loop structure, searched by timing it on the board.

:func:`~ldsnn_compiler.tuning.tune.tune` searches and fills the database; :func:`ldsnn_compiler.compile` reads it.
"""
