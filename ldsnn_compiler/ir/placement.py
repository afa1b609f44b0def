"""What the back end has decided for a node: its kernel, the form of its results, its region."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = re.compile(r"[A-Za-z_][\w.-]*")
KERNELS = ("event", "dense", "plain")
FORMS = ("dense", "bits", "planes")
ORDERS = ("inside", "outside")


@dataclass(frozen=True)
class Placement:
    """``kernel``: ``event`` walks spikes, ``dense`` is a scheduled loop nest, ``plain`` the op's tensor expression.

    ``form``: how the first result travels: ``dense`` ``[N, T, P, C]`` float32, ``bits`` 64-bit words of binary spikes,
    ``planes`` bit planes of counts. ``region``: nodes of equal name become one function;
    ``order`` of time in it: ``inside`` (membrane in registers over all T) or ``outside`` (all nodes step together).
    """

    kernel: str = "plain"
    form: str = "dense"
    region: str = ""
    order: str = "inside"

    def __post_init__(self) -> None:
        for value, known in ((self.kernel, KERNELS), (self.form, FORMS), (self.order, ORDERS)):
            if value not in known:
                raise ValueError(f"a placement needs one of {', '.join(known)}, not {value!r}")

    def __str__(self) -> str:
        region = self.region if _WORD.fullmatch(self.region) else f'"{self.region}"'  # layers may be called 0 and 1
        return f"place({self.kernel}, {self.form}, {self.order}, {region if self.region else '-'})"
