"""What is kept between runs, per user: the folder for it, and short names of long keys."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def folder() -> Path:
    """``LDSNN_CACHE``, or the user's cache folder; it need not exist yet."""
    return Path(os.environ.get("LDSNN_CACHE", Path.home() / ".cache" / "ldsnn"))


def digest(text: str) -> str:
    """24 hexadecimal digits that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
