"""The back end for NVIDIA GPUs: kernels in TIR, compiled to one fat binary for all boards, built without a GPU.

``kernels`` holds the event-driven and the dense region; ``bind`` gives every other function its threads; ``device_code``
makes TIR that both kinds of machine understand into what a GPU runs, ``emulate`` into what a CPU runs; ``compiler`` and
``embed`` turn CUDA source into binaries inside the library; ``resources`` reads back what they need of a GPU; ``driver``
asks the machine for its GPU.
"""
