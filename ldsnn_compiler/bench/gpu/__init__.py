"""A benchmark on a GPU in two halves: ``prepare`` compiles where all of TVM is, ``run`` measures where the GPU is.

.. code-block:: text

    python -m ldsnn_compiler.bench.gpu prepare FOLDER --target h100    no GPU needed
    python -m ldsnn_compiler.bench.gpu run FOLDER -o results/cuda.json  PyTorch and TVM's run time are enough

The benchmark's own networks have dyadic weights, so that every row must give the same spikes whatever the order of its
sums. A network of the user's, with schedules that were searched for it (``--schedules``), is compared class by class.
"""
