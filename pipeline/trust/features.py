"""What the trust in a track is computed from: a few figures that a user has at run time.

They were chosen by cross-validation over the training sequences. The number of boxes, the least
score, quality, overlap with others, and how evenly a track moves and grows added nothing there.
"""

from __future__ import annotations

import numpy as np

from pipeline.trust.sums import Array, TrackSums

NAMES = ("score", "seen", "height", "edge")
"""Names of the features, in the order of the columns of `features`."""


def features(sums: TrackSums) -> Array:
    """Features of each track, (T, F) float64, in the order of `sums.ids`.

    score: mean score.
    seen: share of the frames from its first to its last box in which it has one.
    height: logarithm of its mean height as a share of the picture's.
    edge: share of its boxes that touch an edge of the picture.
    """
    of = sums.records
    boxes = of["boxes"].astype(np.float64)
    columns = {
        "score": of["score"] / boxes,
        "seen": boxes / (of["last_place"] - of["first_place"] + 1),
        "height": np.log(of["height"] / boxes / sums.height),
        "edge": of["edge"] / boxes,
    }
    return np.stack([columns[name] for name in NAMES], axis=1)
