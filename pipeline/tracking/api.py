"""Track one video from Python, frame by frame, with the same rows as `vsdmot track`."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.track.checkpoint import pretrained_weights
from pipeline.inference.runtime import Runtime
from pipeline.storage.files import list_videos
from pipeline.tracking.tables import WindowRows
from pipeline.tracking.track_video import Spent, TrackSettings, open_runtime, tracked_windows
from pipeline.video.errors import DecodeError
from pipeline.video.info import VideoInfo
from pipeline.video.probe import ProbeError, probe

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedFrame:
    """One decoded frame and the n people seen in it, in the order of their ids.

    Attributes:
        index: Number of the frame, from 0.
        time_s: Seconds since the start of the video, from its own timestamps.
        quality: In [0, 1], 1 for a clean picture.
        ids: (n,) int64, the track of each person.
        boxes: (n, 4) float32 x, y, w, h in pixels of the frame as it is shown, x and y of the top
            left corner.
        scores: (n,) float32 in [0, 1].
        class_ids: (n,) int64, index of the class.
        class_names: (n,) str, name of the class.
    """

    index: int
    time_s: float
    quality: float
    ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    class_names: np.ndarray

    def __len__(self) -> int:
        """Number of people in the frame."""
        return len(self.ids)

    def to_supervision(self) -> supervision.Detections:
        """The people as Detections of the library supervision.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "supervision is not installed; install it with pip install 'vsdmot[report]'"
            ) from error
        return supervision.Detections(
            xyxy=np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], 1),
            confidence=self.scores,
            class_id=self.class_ids,
            tracker_id=self.ids,
            data={"class_name": self.class_names.astype(str)},
        )


def track(
    video: str | Path, weights: str | Path = "nano", device: str | None = None
) -> Generator[TrackedFrame]:
    """Track the people in one video; yields one frame after the other, as they are decoded.

    The header is read by this call, so a wrong name fails here. If the video ends early because it
    is damaged, a RuntimeWarning gives the reason.

    Args:
        video: A file or a URL that fsspec opens.
        weights: Name of shipped weights, or path or URL of a checkpoint.
        device: cpu, cuda or cuda:N; None takes a GPU if there is one.

    Returns:
        A generator of all frames, also of those without people. If it is left early, `close()`
        stops its decoder.

    Raises:
        CheckpointError: The weights cannot be used.
        DecodeError: The file is not a video that can be decoded.
        StorageError: The file is missing or cannot be read.
    """
    uri = str(video)
    info = _header(uri)
    found = str(weights) if "://" in str(weights) else str(pretrained_weights(weights))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    settings = TrackSettings(found, device=device, first_picture=(info.height, info.width))
    return _frames(open_runtime(settings).model, info, settings, uri)


def _header(uri: str) -> VideoInfo:
    files = list(list_videos(uri))
    if len(files) != 1:
        raise DecodeError(
            f"{uri}: {len(files)} videos are in it; give one file, or track the folder with "
            f"vsdmot track {uri} OUTPUT"
        )
    try:
        return probe(files[0])
    except ProbeError as error:
        raise DecodeError(f"{uri}: {error}; give a file that a video player opens") from error


def _frames(
    tracker: Runtime, info: VideoInfo, settings: TrackSettings, uri: str
) -> Generator[TrackedFrame]:
    spent = Spent()
    # No deadline, because the caller's own work on frames would count against it.
    with closing(tracked_windows(tracker, info, settings, spent)) as windows:
        try:
            for rows in windows:
                yield from _split(rows, tracker.config.classes)
        except DecodeError as error:
            raise DecodeError(f"{uri}: {error}; give a file that a video player opens") from error
    if spent.error is not None:
        message = f"{uri}: {spent.error}; the frames up to there are tracked"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _split(rows: WindowRows, classes: Sequence[str]) -> Generator[TrackedFrame]:
    """Make the frames of a window from its rows."""
    tracks, frames = rows.tracks, rows.frames
    boxes = np.stack([tracks[name] for name in "xywh"], axis=1)
    class_ids = np.array([classes.index(name) for name in tracks["class_name"]], np.int64)
    # Rows of tracks are sorted by frame.
    ends = np.cumsum(frames["num_tracks"])
    for place, end in enumerate(ends):
        seen = slice(end - frames["num_tracks"][place], end)
        yield TrackedFrame(
            index=int(frames["frame_index"][place]),
            time_s=float(frames["time_s"][place]),
            quality=float(frames["quality"][place]),
            ids=tracks["track_id"][seen],
            boxes=boxes[seen],
            scores=tracks["score"][seen],
            class_ids=class_ids[seen],
            class_names=tracks["class_name"][seen],
        )
