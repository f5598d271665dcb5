"""Fit the model of trust to tracks: a regularised logistic regression on standardised features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.benchmark.metrics import Array
from pipeline.benchmark.trust.samples import Samples
from pipeline.trust.features import NAMES
from pipeline.trust.model import TrustError, TrustModel

_STRENGTH = 0.3  # inverse of the regularisation; chosen by cross-validation
_RANGE = (2.0, 98.0)  # percentiles to which features are clipped


def fit(
    found: Samples, weights_sha256: str, thresholds: Mapping[str, float], fitted: Mapping[str, Any]
) -> TrustModel:
    """Fit the model.

    Args:
        found: Tracks, right ones and wrong ones.
        weights_sha256: Hash of the student that made them.
        thresholds: With which they were made.
        fitted: What it is fitted to, for people.

    Raises:
        TrustError: All tracks are right, or all are wrong.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(found.right)) < 2:
        raise TrustError(
            f"of {len(found)} tracks {int(found.right.sum())} are right; trust can be fitted only "
            "where some are and some are not: give other sequences, or kinds of degradation"
        )
    low, high = np.percentile(found.features, _RANGE, axis=0)
    clipped = np.clip(found.features, low, high)
    scaler = StandardScaler().fit(clipped)
    regression = LogisticRegression(C=_STRENGTH, max_iter=1000)
    regression.fit(scaler.transform(clipped), found.right)

    def plain(values: Array) -> tuple[float, ...]:
        return tuple(float(value) for value in values)

    return TrustModel(
        weights_sha256=weights_sha256,
        thresholds=dict(thresholds),
        features=NAMES,
        low=plain(low),
        high=plain(high),
        mean=plain(scaler.mean_),
        scale=plain(scaler.scale_),
        coefficients=plain(regression.coef_[0]),
        intercept=float(regression.intercept_[0]),
        fitted=dict(fitted),
    )


def cross_validated(found: Samples) -> Array:
    """The chance of each track by a model fitted to all sequences but its own, (T,).

    NaN where the other sequences have no right or no wrong track.
    """
    chance = np.full(len(found), np.nan)
    for sequence in np.unique(found.sequence):
        own = found.sequence == sequence
        others = found[~own]
        if len(np.unique(others.right)) == 2:
            chance[own] = fit(others, "", {}, {})(found.features[own])
    return chance
