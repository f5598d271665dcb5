"""Write the tracks of a run in a format of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.exchange.coco import write_coco
from pipeline.exchange.config import Format, TracksConfig
from pipeline.exchange.csv_tables import write_csv
from pipeline.exchange.cvat import write_cvat
from pipeline.exchange.kitti import write_kitti
from pipeline.exchange.labelstudio import write_labelstudio
from pipeline.exchange.mot import write_motchallenge
from pipeline.exchange.source import VideoTracks, check_whole, chosen_videos

Writer = Callable[[str, str, Iterable[VideoTracks], TracksConfig], int]
_WRITERS: dict[Format, Writer] = {
    "motchallenge": write_motchallenge,
    "coco": write_coco,
    "cvat": write_cvat,
    "labelstudio": write_labelstudio,
    "kitti": write_kitti,
    "csv": write_csv,
}


def export_tracks(run: str, output: str, config: TracksConfig) -> int:
    """Export the finished videos of a run of `vsdmot track`, compacted or not.

    Memory does not depend on the number of videos, but for their names. Each file appears whole or
    not at all.

    Args:
        run: folder or URL of the run.
        output: folder or URL for the files.
        config: what is exported, and how.

    Returns:
        number of files written.

    Raises:
        ExportError: there is nothing to export, or it does not fit the format.
        StorageError: something cannot be read or written.
    """
    run, output = run.rstrip("/"), output.rstrip("/")
    if config.format != "csv":
        check_whole(run)
    videos = (
        VideoTracks(run, video, config.class_name, config.min_trust)
        for video in chosen_videos(run, config.videos)
    )
    return _WRITERS[config.format](run, output, videos, config)
