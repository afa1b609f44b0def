"""The back end for NVIDIA GPUs: kernels in TIR, compiled to one fat binary for all boards, built without a GPU.

``kernels`` holds the region, event-driven and dense; ``bind`` gives every other function its threads; ``intrinsics``
says in CUDA what TIR borrows from LLVM, and ``emulate`` runs the same TIR on a CPU; ``compiler`` and ``embed`` turn
CUDA source into binaries inside the library; ``resources`` reads back what they need of a GPU; ``gpu`` describes GPUs,
and asks the driver for the one of this machine.
"""
