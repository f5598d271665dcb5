"""How far the tracks of a run can be trusted, over all its videos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.report.run_tables import read_rows
from pipeline.report.track_rows import LOW_TRUST
from pipeline.storage.reading import table_files
from pipeline.storage.schema import TRACK_SUMMARY

_BINS = 20
_FILES = 2000  # that are read; reading one for each video of a large archive would take long


@dataclass(frozen=True, slots=True)
class TrustFigures:
    """Trust in tracks.

    Attributes:
        bins: tracks by trust, in equal bins over [0, 1].
        tracks: tracks whose trust is known.
        low: those of them of low trust.
        files, of: files of `track_summary` that were read, and all that there are.
    """

    bins: list[int]
    tracks: int
    low: int
    files: int
    of: int

    @property
    def low_share(self) -> float:
        """Share of tracks of low trust."""
        return self.low / self.tracks


def trust_figures(output: str) -> TrustFigures | None:
    """Count the tracks of a run by trust; None where no track has a trust.

    Of more than 2,000 files as many are read, spread evenly.

    Raises:
        StorageError: A table cannot be read.
    """
    files = table_files(output, "track_summary")
    places = np.linspace(0, len(files) - 1, min(len(files), _FILES)).round().astype(int)
    schema = pa.schema([TRACK_SUMMARY.field("trust")])
    trust = read_rows([files[n] for n in places.tolist()], schema)["trust"].drop_null().to_numpy()
    if not len(trust):
        return None
    bins, _ = np.histogram(trust, _BINS, (0.0, 1.0))
    low = int((trust < LOW_TRUST).sum())
    return TrustFigures(bins.tolist(), len(trust), low, len(places), len(files))
