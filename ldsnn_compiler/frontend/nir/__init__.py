"""The Neuromorphic Intermediate Representation (NIR; Pedersen et al., Nature Communications 15, 2024): files in and
out.

Where NIR leaves room, and its readers differ, this is what happens here:

time
    NIR is continuous. A timestep is ``dt`` long, in the file's unit. Equations are solved exactly for input that is
    held during it (``zoh``), or by one Euler step. The single-neuron file of the NIR paper then spikes at steps 460,
    510, 710 and 760 either way, as in Norse and snnTorch; Sinabs and Rockpool have 450 and 500, Spyx is a step later.
current and membrane of CubaLIF, CubaLI
    ``zoh`` solves both together. ``euler`` steps the current first, and the membrane with the new one, as snnTorch
    does.
reset
    On strict ``>``, to v_reset, at once. A soft reset, which NIR has no form for, is written into the metadata.
start
    Membranes and currents start at 0, also where a neuron leaks to another level (Norse starts there).
recurrence
    Of a cycle one edge waits a timestep, the one that carries the neuron's spikes: the bias of the synapse behind it
    acts from the first step on (:mod:`~ldsnn_compiler.frontend.nir.cycles`).
IF neurons
    Add up ``dt R x`` a timestep: dt = 1 for networks that were trained on frames.
"""

from ldsnn_compiler.frontend.nir.reader import Imported, import_nir, read_nir
from ldsnn_compiler.frontend.nir.writer import Exported, export_nir, write_nir

__all__ = ["Exported", "Imported", "export_nir", "import_nir", "read_nir", "write_nir"]
