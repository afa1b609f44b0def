"""Set the emulated machine up: ``PYTHONPATH=tests python -m emulation``."""

from __future__ import annotations

import sys

from emulation.setup import set_up

try:
    set_up()
except RuntimeError as error:
    sys.exit(str(error))
