"""scikit-learn's 8x8 handwritten digits, split once and for all into train, calibration and report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldsnn_compiler.errors import LdsnnError, Problem

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Split = tuple[Images, Labels]

# The n-th image of a class goes to _CYCLE[n % 6]: one third report, one sixth calibration, one half training.
# Counting within each class stratifies the split without a random generator whose stream could change.
_CYCLE = ("report", "report", "calibration", "train", "train", "train")


def digits_splits() -> dict[str, Split]:
    """The three disjoint splits ``train`` (891), ``calibration`` (300) and ``report`` (606) as ``(x, y)``.

    ``x`` is float32 ``[N, 1, 8, 8]`` in [0, 1], a multiple of 1/16 and so exact in any binary format; ``y`` is
    int64 ``[N]`` in 0..9. Images keep the order of the data set.

    Raises:
        LdsnnError: scikit-learn, which carries the images, is not installed.
    """
    images, labels = _load()
    part = np.array(_CYCLE)[_rank_in_class(labels) % len(_CYCLE)]
    return {name: (images[part == name], labels[part == name]) for name in ("train", "calibration", "report")}


def digits_data() -> dict[str, Split]:
    """``{"calibration": (x, y), "report": (x, y)}``: what a search may see, and what figures are reported on.

    Neither holds an image that the committed weights were trained on. Shapes as in :func:`digits_splits`.
    """
    splits = digits_splits()
    return {name: splits[name] for name in ("calibration", "report")}


def _load() -> Split:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        hint = "pip install 'ldsnn-compiler[demo]'"
        raise LdsnnError(Problem("the digits come with scikit-learn, which is not installed", hint=hint)) from error
    bunch = load_digits()
    images = (np.asarray(bunch.images) / 16).astype(np.float32)[:, None]
    return images, np.asarray(bunch.target, dtype=np.int64)


def _rank_in_class(labels: Labels) -> Labels:
    """For each image, how many earlier images have its label."""
    ranks = np.empty_like(labels)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.arange(len(members))
    return ranks
