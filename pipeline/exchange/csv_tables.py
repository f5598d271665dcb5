"""Tracks as CSV: a file for each video, with the columns of the table `tracks`."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from pyarrow import csv

from pipeline.exchange.config import TracksConfig
from pipeline.exchange.files import published
from pipeline.exchange.source import VideoTracks
from pipeline.storage.schema import TRACKS

_SCHEMA = pa.schema([field for field in TRACKS if field.name != "video_id"])


def write_csv(run: str, output: str, videos: Iterable[VideoTracks], config: TracksConfig) -> int:
    """Write VIDEO_ID.csv for each video; returns their number.

    Raises:
        StorageError: something cannot be read or written.
    """
    count = 0
    for tracks in videos:
        with (
            published(f"{output}/{tracks.video.video_id}.csv") as file,
            csv.CSVWriter(file, _SCHEMA) as writer,
        ):
            for batch in tracks.batches():
                writer.write_batch(batch.select(_SCHEMA.names))
        count += 1
    return count
