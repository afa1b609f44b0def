"""Conformance: random small networks of a library, imported, interpreted and compiled, against the library's own run.

``PYTHONPATH=tests python -m conformance --networks 1000`` runs every library, each in an environment where it can be
imported, and writes the table of ``docs/conformance.md``; ``tests/test_conformance.py`` runs a few networks of each.

Two things are held against the library, for every variant of every neuron:

exact    weights and inputs are multiples of 1/16, so that every weighted sum is exact in any order. Outputs of every
         timestep and the whole state at the end are equal, bit for bit: interpreted, compiled, and compiled in steps.
float    weights and inputs are ordinary float32 numbers. Layer by layer, each fed what the library's layers before it
         emitted, few decisions differ, and where one does, the membrane is next to the threshold.

To add a library, write a file ``with_<library>.py`` that defines ``LIBRARY``, a
:class:`~conformance.library.Library`, and name it in :data:`~conformance.library.LIBRARIES`. What it consists of:

``variants``   the table: name -> :class:`~conformance.library.Variant`. A variant says what the neuron and its reset
               are called in the documentation, and has a function ``make(draw)`` that draws the neuron's settings and
               returns ``build(shape)``, which makes one neuron of these settings for maps of that shape (without time
               and batch). Settings need not be dyadic.
``chain``      layers in order -> the model
``reference``  the library's own run of the model on ``[T, N, ...]``, from rest
``state``      a neuron module's state after that run, under the names that the graph gives it

and, where the defaults do not fit, ``synapse`` (how the library makes its linear and convolutional layers), ``weights``
(the tensors that are drawn) and ``graph`` (how the model is imported).
"""
