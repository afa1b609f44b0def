"""TVM's aarch64 run time under emulation: Debian's arm64 Python and the aarch64 wheels, run by ``qemu-aarch64-static``.

``PYTHONPATH=tests python -m emulation`` sets it up in the folder that ``LDSNN_AARCH64`` names (default
``~/.cache/ldsnn/aarch64``, about 450 MB) and can be run again at any time: what is there already is kept, what an
interrupted run left half done is done anew. Nothing is installed, no container or foreign root is entered: packages are
unpacked side by side, and the emulator looks for libraries there first.

.. code-block:: text

    system/     the unpacked packages
    site/       the wheels, in the versions that this Python has
    python      a script: Python under emulation; its subprocesses enter the emulator again
    ready       a file, written last

:mod:`emulation.machine` runs things on it.
"""
