"""The tracks of a finished run in Python, as objects of the libraries that people look with.

```python
from pipeline.exchange.loaders import saved_frames

for frame in saved_frames("/my/tracks", "gate.mp4"):
    print(frame.time_s, frame.to_supervision().tracker_id)
```
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from pipeline.exchange.errors import ExportError
from pipeline.exchange.source import Rows, SourceVideo, VideoTracks, check_whole, chosen_videos
from pipeline.storage.file_systems import resolve
from pipeline.storage.reading import video_batches

if TYPE_CHECKING:
    import fiftyone

    from pipeline.tracking.api import TrackedFrame

TRACKS_FIELD = "tracks"
"""Field of the frames of a FiftyOne sample that has the boxes."""


def saved_frames(run: str, video: str) -> Iterator[TrackedFrame]:
    """The frames of one video of a run, as `track` of `pipeline` gave them.

    `TrackedFrame.to_supervision` makes `supervision.Detections` of each. The numbers of classes
    count the class names of the video in alphabetical order; people alone have 0.

    Args:
        run: folder or URL of the run.
        video: id of the video, its path in the archive, or its file name.

    Yields:
        all tracked frames in order, also those without people.

    Raises:
        ExportError: no video has the name, or several.
        StorageError: the run cannot be read.
    """
    # Imported here, because it imports torch.
    from pipeline.tracking.api import TrackedFrame

    run = run.rstrip("/")
    source = _only(run, video)
    quality = _quality(run, source)
    classes = _classes(run, source)
    everything = VideoTracks(run, source, class_name=None)
    for place, (index, time_s, rows) in enumerate(everything.by_frame()):
        rows = rows[np.argsort(rows.track_id, kind="stable")]
        yield TrackedFrame(
            index=index,
            time_s=time_s,
            quality=float(quality[place]),
            ids=rows.track_id,
            boxes=rows.xywh.astype(np.float32),
            scores=rows.score.astype(np.float32),
            class_ids=np.array([classes.index(name) for name in rows.class_name], np.int64),
            class_names=rows.class_name,
        )


def fiftyone_samples(
    run: str,
    videos: Iterable[str] = (),
    class_name: str | None = None,
    min_trust: float | None = None,
    archive: str = "",
) -> Iterator[fiftyone.Sample]:
    """A video sample of FiftyOne for each video of a run, with its tracks in `frames`.

    `fiftyone.Dataset("people").add_samples(fiftyone_samples("/my/tracks"))` makes a data set. The
    index of a detection is the id of its track; frames count from 1. `metadata` is that of the
    tables, so FiftyOne needs no ffprobe for it.

    Args:
        run: folder or URL of the run.
        videos: names or patterns of videos; none gives all.
        class_name: class whose tracks are loaded; None loads all.
        min_trust: least trust of a track; None loads all.
        archive: folder of this machine that has the videos under their paths in the archive;
            empty: they are where they were tracked.

    Raises:
        ExportError: there is nothing to load, frames do not count from the start of the videos, or
            a video is in a bucket and no `archive` is given.
        ImportError: fiftyone is not installed.
        StorageError: the run cannot be read.
    """
    try:
        import fiftyone
    except ImportError as error:
        raise ImportError(
            "fiftyone is not installed; install it with pip install fiftyone"
        ) from error
    run = run.rstrip("/")
    check_whole(run)
    for video in chosen_videos(run, videos):
        sample = fiftyone.Sample(
            filepath=_local_path(video, archive),
            media_type="video",  # it does not know .ts, .dav, .3gp and others by their names
            video_id=video.video_id,
            relative_path=video.relative_path,
            metadata=fiftyone.VideoMetadata(
                frame_width=video.width,
                frame_height=video.height,
                frame_rate=video.fps,
                total_frame_count=video.frames,
                duration=video.seconds,
            ),
        )
        for index, _, rows in VideoTracks(run, video, class_name, min_trust).by_frame():
            found = [
                fiftyone.Detection(label=name, bounding_box=box, index=track, confidence=score)
                for name, box, track, score in _relative(rows, video)
            ]
            boxes = fiftyone.Detections(detections=found)
            sample.frames[index + 1] = fiftyone.Frame(**{TRACKS_FIELD: boxes})
        yield sample


def _local_path(video: SourceVideo, archive: str) -> str:
    """Where FiftyOne finds the video. It takes a URL for a path below the working folder."""
    if archive:
        return os.path.join(archive, video.relative_path)
    fs, path = resolve(video.uri)
    if not isinstance(fs, LocalFileSystem):
        raise ExportError(
            f"{video.uri}: FiftyOne reads videos from this machine alone; copy or mount the "
            "archive, and give its folder as archive="
        )
    return str(path)


def _relative(rows: Rows, video: SourceVideo) -> Iterator[tuple[str, list[float], int, float]]:
    """Class name, box in shares of the picture, id and score of each row."""
    shares = rows.xywh / np.array([video.width, video.height, video.width, video.height])
    return zip(
        rows.class_name.tolist(), shares.tolist(), rows.track_id.tolist(), rows.score.tolist(),
        strict=True,
    )  # fmt: skip


def _only(run: str, name: str) -> SourceVideo:
    found = list(chosen_videos(run, [name]))
    if len(found) > 1:
        raise ExportError(
            f"{run}: {len(found)} videos are called {name}: {found[0].video_id} "
            f"({found[0].relative_path}), {found[1].video_id} ({found[1].relative_path}); give the "
            "id of one"
        )
    return found[0]


def _quality(run: str, video: SourceVideo) -> np.ndarray:
    """Quality (F,) of the tracked frames."""
    batches = video_batches(run, "frames", video.video_id, ["quality"])
    return np.concatenate([np.zeros(0), *(batch["quality"].to_numpy() for batch in batches)])


def _classes(run: str, video: SourceVideo) -> list[str]:
    names: set[str] = set()
    for batch in video_batches(run, "tracks", video.video_id, ["class_name"]):
        names |= set(pc.unique(batch["class_name"]).to_pylist())
    return sorted(names)
