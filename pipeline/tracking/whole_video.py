"""Track a whole video, or a part of it, within its deadline, and make its row of `videos`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from model.version import code_version
from pipeline.inference.runtime import Runtime
from pipeline.runtime.reports import Report
from pipeline.stitching.looks import Looks
from pipeline.stitching.rejoin import rejoin
from pipeline.tracking.resume import PassState, Spent
from pipeline.tracking.tables import VideoTables, WindowRows
from pipeline.tracking.track_video import TrackSettings, tracked_windows
from pipeline.video.errors import DeadlineError
from pipeline.video.info import VideoInfo
from pipeline.video.limits import frames_guessed


def track_video(
    tracker: Runtime,
    info: VideoInfo,
    settings: TrackSettings,
    tables: VideoTables,
    report: Report | None = None,
    place: PassState | None = None,
    save: Callable[[WindowRows, PassState], None] | None = None,
) -> dict[str, Any]:
    """Track one whole video into its tables, without publishing; returns its row of `videos`.

    Args:
        tracker: On the settings' device.
        info: The video.
        settings: As of `tracked_windows`.
        tables: Get the rows. They hold those before the place.
        report: Called before the first window and after each.
        place: Where to go on; None is the start.
        save: Called after each window with its rows and the place behind it.

    Raises:
        DecodeError: No frame could be read.
        PlaceLost: The file has no such place any more.
        DeadlineError: It took longer than `settings.limits` allows.
        StorageError: The video could not be read to its end, or a part could not be written.
        SpoolError: The rows cannot be written to this machine's temporary folder.
    """
    place = place or PassState()
    if settings.max_gap_s and place.looks is None:
        place.looks = Looks(tracker.config.dim)

    def told(place: PassState) -> None:
        if report is not None:
            report(info.video_id, place)

    left = _share_left(info, place)
    track_part(tracker, info, settings, place, tables.add, told, save, share=left)
    rejoined: dict[int, int] = {}
    if place.looks is not None:
        rejoined = rejoin(place.looks, settings.max_gap_s)
    if rejoined:
        tables.relabel(rejoined)
    mode = "video" if save is None else "resume"
    how = dict.fromkeys(("seams", "seam_matches", "seam_conflicts", "seam_unmatched"), 0)
    how["rejoined"] = len(rejoined)
    return video_row(tables, settings, place.spent, mode, 1, how, place.repairs)


def video_row(
    tables: VideoTables,
    settings: TrackSettings,
    spent: Spent,
    mode: str,
    segments: int,
    counters: Mapping[str, int],
    repairs: Sequence[str],
) -> dict[str, Any]:
    """The row of `videos` of a video whose rows are in its tables.

    Args:
        tables: Have all rows.
        settings: The video was tracked with.
        spent: On the whole video.
        mode: How it was tracked.
        segments: Windows tracked apart; 1 if it was one pass.
        counters: The fields from `seams` to `rejoined`.
        repairs: What was done about faults.
    """
    return tables.summary(
        settings.low_quality_below,
        {
            "status": "partial" if spent.error else "ok",
            **asdict(spent),
            "model_sha256": settings.model_sha256,
            "config_hash": settings.config_hash,
            "code_version": code_version(),
            "split_mode": mode,
            "segments": segments,
            **counters,
            "repairs": "; ".join(repairs) or None,
        },
    )


def track_part(
    tracker: Runtime,
    info: VideoInfo,
    settings: TrackSettings,
    place: PassState,
    add: Callable[[WindowRows], None],
    report: Callable[[PassState], None],
    save: Callable[[WindowRows, PassState], None] | None = None,
    end_s: float | None = None,
    share: float = 1.0,
) -> None:
    """Track a video from a place on.

    Args:
        tracker, info, settings, save: As of `track_video`.
        place: Where to begin; at the end it is where tracking has ended.
        add: Called after each window with its rows.
        report: Called with the place, before the first window and after each.
        end_s: Seconds of video at which to end; None is the end of the video.
        share: Of the frames of the video that are left to track, for the deadline.

    Raises:
        DecodeError, PlaceLost, DeadlineError, StorageError, SpoolError: As of `track_video`.
    """
    spent, limits = place.spent, settings.limits
    started = time.perf_counter() - spent.elapsed_s
    base_s = limits.deadline_base_s
    allowed_s = base_s + share * (limits.deadline_s(info) - base_s)
    deadline = time.monotonic() + allowed_s
    windows = tracked_windows(
        tracker, info, settings, spent, deadline, place, end_s, save is not None
    )
    try:
        with closing(windows):
            report(place)
            for rows in windows:
                mark = time.perf_counter()
                spent.elapsed_s = mark - started
                add(rows)
                if save is not None:
                    save(rows, place)
                spent.write_s += time.perf_counter() - mark
                report(place)
    except DeadlineError as error:
        late = DeadlineError(
            f"{error}: {allowed_s:.0f} s are allowed for its length (limits.deadline_base_s, "
            "limits.deadline_frame_s)"
        )
        late.hangs = error.hangs
        raise late from error
    spent.elapsed_s = time.perf_counter() - started


def _share_left(info: VideoInfo, place: PassState) -> float:
    """Share of the frames of a video behind a place; 1 if the header is wrong about them."""
    frames = frames_guessed(info)
    return 1 - place.frames / frames if place.frames < frames else 1.0
