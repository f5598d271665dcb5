"""Draw the tracks of one video on it: `vsdmot render OUTPUT VIDEO`."""

from __future__ import annotations

import difflib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.cli import EXIT_DONE, EXIT_FAILED, fail, load_config
from model.settings import check
from pipeline.storage.files import StorageError, write_atomic
from pipeline.storage.reading import read_batches, read_video
from pipeline.video.info import VideoInfo

_LISTED = 8


@dataclass(frozen=True, slots=True)
class RenderConfig:
    """Settings of `vsdmot render`.

    Attributes:
        output: folder or URL of tables, the output of vsdmot track.
        video: the video to draw on: its video_id, its path in the archive, its file name, or the
            beginning of one of these.
        overlays: folder or URL for the video and the contact sheet; null: overlays/ in output.
    """

    job: ClassVar[str] = "render"
    about: ClassVar[str] = "Draw boxes, ids, tails and quality on a tracked video."

    output: str
    video: str
    overlays: str | None = None

    def __post_init__(self) -> None:
        check(self)


class VideoNotFoundError(ValueError):
    """No video of the output has the given name, or several have it."""


def find_video(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Find the row of `videos` for a name: an id, a path, a file name, or the start of one.

    Raises:
        VideoNotFoundError: No row or several rows fit; the message lists similar names.
    """
    for names_of in (_exact_names, _file_names, _beginnings):
        found = [row for row in rows if names_of(row, name)]
        if len(found) == 1:
            return found[0]
        if found:
            listed = "\n".join(f"  {_title(row)}" for row in found[:_LISTED])
            more = f"\n  … and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
            raise VideoNotFoundError(
                f"video={name} fits {len(found)} videos; give the id of one:\n{listed}{more}"
            )
    known = {alias: row for row in rows for alias in (row["video_id"], row["relative_path"])}
    close = difflib.get_close_matches(name, known, _LISTED, 0.3) or sorted(known)[:_LISTED]
    nearest = list(dict.fromkeys(_title(known[alias]) for alias in close))
    listed = "\n".join(f"  {title}" for title in nearest)
    raise VideoNotFoundError(
        f"video={name} is none of the {len(rows)} videos; give one of the most similar:\n{listed}"
    )


def _exact_names(row: dict[str, Any], name: str) -> bool:
    return name in (row["video_id"], row["relative_path"], row["uri"])


def _file_names(row: dict[str, Any], name: str) -> bool:
    path = PurePosixPath(row["relative_path"])
    return name in (path.name, path.stem, path.parent.name)


def _beginnings(row: dict[str, Any], name: str) -> bool:
    return bool(name) and any(
        text.startswith(name) for text in (row["video_id"], row["relative_path"])
    )


def _title(row: dict[str, Any]) -> str:
    return f"{row['video_id']}  ({row['relative_path']})"


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(RenderConfig, argv)
    # Imported after the settings are checked, because torch takes seconds to import.
    from pipeline.video.decode import iterate_frames
    from pipeline.video.errors import DecodeError

    try:
        # Imported here, because only drawing needs the package supervision.
        from pipeline.report.render import RenderError, render
    except ImportError as error:
        fail(f"{error}; drawing needs the extra: pip install 'vsdmot[report]'", EXIT_FAILED)
    console = Console()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    try:
        row = find_video(config.video, _videos(config.output))
        name = row["video_id"]
        info = VideoInfo(**{field.name: row[field.name] for field in fields(VideoInfo)})
        tracks, frames = (read_video(config.output, t, name) for t in ("tracks", "frames"))
        folder = (config.overlays or f"{config.output.rstrip('/')}/overlays").rstrip("/")
        with tempfile.TemporaryDirectory() as scratch:
            video, sheet = Path(scratch) / f"{name}.mp4", Path(scratch) / f"{name}.png"
            with Progress(*columns, console=console, transient=True) as progress:
                pictures = progress.track(iterate_frames(info), len(frames), description=name)
                overlay = render(pictures, tracks, frames, video, sheet)
            for file in (video, sheet):
                write_atomic(f"{folder}/{file.name}", file.read_bytes())
    except (VideoNotFoundError, StorageError, DecodeError, RenderError) as error:
        fail(str(error), EXIT_FAILED)
    console.print(
        f"{overlay.frames} frames, {overlay.boxes} boxes\n{folder}/{name}.mp4\n{folder}/{name}.png",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    return EXIT_DONE


def _videos(output: str) -> list[dict[str, Any]]:
    """Read all rows of the table `videos`."""
    rows = [row for batch in read_batches(output, "videos") for row in batch.to_pylist()]
    if not rows:
        raise VideoNotFoundError(
            f"{output}: no video is tracked here; track an archive into it first: "
            f"vsdmot track INPUT {output}"
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
