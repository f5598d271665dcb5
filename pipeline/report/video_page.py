"""The page of one video, in a folder of its own: data as scripts, crops, a copy where needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pipeline.report import crops
from pipeline.report.config import ReportConfig
from pipeline.report.frame_rows import curves, low_stretches
from pipeline.report.html import render
from pipeline.report.page_pictures import PagePictures
from pipeline.report.playable import playable
from pipeline.report.scripts import (
    assigned,
    bars_value,
    boxes_script,
    curves_value,
    rounded,
    tracks_value,
)
from pipeline.report.track_rows import LOW_TRUST
from pipeline.report.video_tables import VideoRows
from pipeline.storage.files import write_atomic
from pipeline.video.info import VideoInfo


@dataclass(frozen=True, slots=True)
class VideoPage:
    """A page that was written.

    Attributes:
        video_id: of its video; its folder has this name.
        still: whether there is a `still.jpg` in it.
        crops, tracks: pictures of tracks, and tracks.
        people: people on the still, without those of low trust.
        merit: how much the still shows: the trust in its tracks, or their scores, times quality.
    """

    video_id: str
    still: bool
    crops: int
    tracks: int
    people: int
    merit: float


def write_video_page(
    row: Mapping[str, Any],
    folder: str,
    config: ReportConfig,
    low_quality_below: float,
    deadline: float | None,
    neighbours: Mapping[str, str | None],
) -> VideoPage:
    """Write the page of a video.

    Args:
        row: its row in `videos`.
        folder: folder or URL of the page.
        config: settings of the report.
        low_quality_below: frames of lower quality are marked.
        deadline: end of the time for pictures and copies, by `time.monotonic`; None for no end.
        neighbours: ids of the videos `before` and `after` it among the pages, for links.

    Raises:
        StorageError: a table cannot be read, or the folder cannot be written.
    """
    info = VideoInfo(**{field.name: row[field.name] for field in fields(VideoInfo)})
    rows = VideoRows(config.output.rstrip("/"), info.video_id, (info.width, info.height))
    frames = rows.frames
    view = rows.view
    starts, boxes, ids = [], np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    for number, chunk in enumerate(rows.chunks()):
        script = boxes_script(number, chunk, info.width, info.height)
        write_atomic(f"{folder}/boxes-{number}.js", script)
        starts.append(float(chunk.time_s[0]))
        place = np.flatnonzero(chunk.time_s == frames.time_s[view])
        if len(place):
            shown = slice(chunk.first[place[0]], chunk.first[place[0] + 1])
            boxes, ids = chunk.boxes[shown], chunk.track_id[shown]
    tracks = rows.tracks
    pictures = PagePictures(info, folder, frames, tracks, config.crops, deadline)
    if config.blur == "none":
        played = playable(info, folder, config.player, deadline)
        pictures.write(view, boxes, ids)
    else:
        played = pictures.write_blurred(view, boxes, ids, config.output.rstrip("/"), config.blur)
    stretches = low_stretches(frames, low_quality_below)
    value = {
        "duration": round(frames.end_s, 3),
        "interval": round(frames.interval_s, 5),
        "width": info.width,
        "height": info.height,
        "source": played.source,
        "offset": played.offset_s,
        "view": round(float(frames.time_s[view]), 3),
        "lowBelow": low_quality_below,
        "lowTrust": LOW_TRUST,
        "low": [[round(a, 3), round(b, 3)] for a, b in stretches],
        "cuts": rounded(np.array(row.get("cut_times_s") or [])),
        "curves": curves_value(curves(frames)),
        "tracks": tracks_value(tracks, frames, pictures.tiles),
        "bars": bars_value(rows.bars, tracks, frames),
        "chunks": starts,
        "tile": [crops.TILE_WIDTH, crops.TILE_HEIGHT, crops.COLUMNS, crops.ROWS],
        "palette": crops.PALETTE,
    }
    write_atomic(f"{folder}/data.js", assigned("video", value))
    count = len(tracks.id)
    step_s, arrivals = rows.bars.arrivals()
    page = render(
        "video.html", row=row, note=played.note, plays=played.source is not None, tracks=count,
        crops=len(pictures.tiles), pictures_note=pictures.note, low=stretches,
        low_below=low_quality_below, neighbours=neighbours, step_s=step_s, arrivals=arrivals,
        trust_known=tracks.trust_known, low_trust=tracks.low_trust, low_trust_below=LOW_TRUST,
    )  # fmt: skip
    write_atomic(f"{folder}/index.html", page)
    seen = np.isin(tracks.id, ids)
    people = int((seen & ~(tracks.trust < LOW_TRUST)).sum())
    merit = float(tracks.sure[seen].sum() * frames.quality[view])
    return VideoPage(info.video_id, pictures.still, len(pictures.tiles), count, people, merit)
