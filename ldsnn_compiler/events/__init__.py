"""Events ``(t, x, y, p)`` of event cameras as frames, one for each timestep.

An event of time t belongs to step ``floor((t - start) / dt)``. Times are whole nanoseconds (timestamps that are
floating point numbers are rounded to the nearest), so binning is exact. A frame holds, for each polarity and pixel, the
number of events of its step (``count``), or 1 where there was any (``presence``).

A recording is a structured array with the fields t, x, y, p, as tonic gives; an array or tensor ``[E, 4]`` of these
columns in this order; or a mapping of their names to arrays. A list is a batch of recordings, of any lengths. What the
network's input looks like says what is read: ``[P, H, W]`` frames need all four, ``[1, H, W]`` and ``[H, W]`` add up
both polarities, ``[W]`` reads t and x only. A polarity of -1 is channel 0.
"""

from ldsnn_compiler.events.binning import Binning
from ldsnn_compiler.events.framing import frames
from ldsnn_compiler.events.stream import EventStream

__all__ = ["Binning", "EventStream", "frames"]
