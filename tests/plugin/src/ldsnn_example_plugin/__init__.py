"""A plug-in for ldsnn-compiler: the pass ``prune-weights`` and the board ``example-soc``."""
