"""The chance that a track is right: a logistic regression, fitted in development, kept as JSON.

It lies beside the weights that made the tracks it was fitted to, and holds for these alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from model.track.checkpoint import CheckpointError
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.trust.features import NAMES
from pipeline.trust.sums import Array

_FORMAT = 1
_SUFFIX = ".trust.json"
_THRESHOLDS = {"birth_threshold", "keep_threshold", "miss_tolerance"}


class TrustError(CheckpointError):
    """A model of trust cannot be read; the message names the file, the reason and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustModel:
    """A logistic regression on the features of a track.

    Attributes:
        weights_sha256: Hash of the student's file, of whose tracks it was fitted.
        thresholds: Birth and keep threshold and miss tolerance of these tracks.
        features: Names of the features, `features.NAMES`.
        low, high: Range of each feature; values beyond it are taken as its end, so that nothing is
            said about tracks unlike all that were seen.
        mean, scale: What each feature is shifted and divided by.
        coefficients: Of the features.
        intercept: Of the regression.
        fitted: What it was fitted to, for people: sequences, conditions, numbers of tracks.
    """

    weights_sha256: str
    thresholds: Mapping[str, float]
    features: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    fitted: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Hash of its file."""
        return hashlib.sha256(self.encode()).hexdigest()

    def __call__(self, features: Array) -> Array:
        """The chance that each track is right, (T,) float32 in [0, 1], of features (T, F)."""
        low, high, mean, scale, weight = (
            np.array(values)
            for values in (self.low, self.high, self.mean, self.scale, self.coefficients)
        )
        shares = (np.clip(features, low, high) - mean) / scale * weight
        return (1 / (1 + np.exp(-self.intercept - shares.sum(axis=1)))).astype(np.float32)

    def encode(self) -> bytes:
        """The content of its file."""
        values = {name.name: getattr(self, name.name) for name in fields(self)}
        return (json.dumps({"format": _FORMAT, **values}, indent=1) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, uri: str) -> TrustModel:
        """The model of a file's content.

        Raises:
            TrustError: It is damaged, or of another version of this project.
        """
        try:
            values = json.loads(data)
            if values.pop("format") != _FORMAT:
                raise ValueError("it has another format")
            lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
            model = cls(**values | lists)
            if model.features != NAMES or set(model.thresholds) != _THRESHOLDS:
                raise ValueError("its features or thresholds are others")
            columns = [getattr(model, name) for name in ("low", "high", "mean", "scale")]
            table = np.array([*columns, model.coefficients], np.float64)
            if (
                table.shape[1] != len(NAMES)
                or not np.isfinite([*table.flat, model.intercept]).all()
            ):
                raise ValueError("its numbers are not one for each feature")
            if not (table[3] > 0).all():
                raise ValueError("a scale is not positive")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrustError(
                f"{uri} is no model of trust that this version reads ({error}); fit it again with "
                "vsdmot measure what=trust fit=FILE, or remove it to have no trust"
            ) from error
        return model


@dataclass(frozen=True, slots=True)
class FoundTrust:
    """The model of trust that holds for a run.

    Attributes:
        model: None if there is none.
        reason: Why there is none.
    """

    model: TrustModel | None = None
    reason: str = ""


def trust_uri(weights: str) -> str:
    """Path or URL of the model of trust that belongs to a student's file."""
    return weights.removesuffix(".safetensors") + _SUFFIX


def find_trust(weights: str, sha256: str, thresholds: Mapping[str, float]) -> FoundTrust:
    """The model of trust beside a student's file, if it holds for this student and these tracks.

    Args:
        weights: Path or URL of the student's file.
        sha256: Hash of this file.
        thresholds: Birth and keep threshold and miss tolerance of the run. Others give other
            tracks, of which the model says nothing.

    Raises:
        TrustError: There is a file, but it cannot be read as a model of trust.
        StorageError: It cannot be looked for.
    """
    uri = trust_uri(weights)
    try:
        if not storage.exists(uri):
            return FoundTrust(None, f"there is no {uri}")
    except StorageError as error:
        # A bucket that may be read but not listed says so of what is not there.
        if not isinstance(error.__cause__, PermissionError):
            raise
        return FoundTrust(None, f"{uri} is not there, or may not be read")
    model = TrustModel.decode(storage.read_bytes(uri), uri)
    if model.weights_sha256 != sha256:
        return FoundTrust(None, f"{uri} was fitted to other weights")
    differing = [name for name, value in thresholds.items() if model.thresholds[name] != value]
    if differing:
        names = ", ".join(f"tracker.{name}" for name in differing)
        return FoundTrust(None, f"{uri} was fitted with another {names}")
    return FoundTrust(model)
