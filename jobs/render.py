"""Draw the tracks of one video on it: `vsdmot render OUTPUT VIDEO`."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from fsspec.implementations.local import LocalFileSystem
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.cli import EXIT_BAD_CONFIG, EXIT_DONE, EXIT_FAILED, console, fail, load_config, warn
from model.settings import Range, check
from pipeline.report.config import Blur
from pipeline.storage.file_systems import resolve
from pipeline.storage.files import StorageError, publish, write_atomic
from pipeline.storage.reading import read_batches
from pipeline.video.info import VideoInfo

if TYPE_CHECKING:
    from pipeline.report.overlays.render import Overlay

_LISTED = 8


@dataclass(frozen=True, slots=True)
class RenderConfig:
    """Settings of `vsdmot render`.

    Attributes:
        output: folder or URL of tables, the output of vsdmot track.
        video: the video to draw on: its video_id, its path in the archive, its file name, or the
            beginning of one of these.
        overlays: folder or URL for the video and the contact sheet; null: overlays/ in output.
        tracks: ids of the tracks to draw; none: all.
        min_trust: tracks of less trust are not drawn; those of unknown trust are.
        start_s: time in the video from which on it is drawn; null: the start.
        end_s: time up to which it is drawn; null: the end.
        blur: people: all that lies in the box of a tracked person is made unrecognisable. heads:
            the upper part of each box. It covers all tracks, drawn or not, and their gaps. A person
            who is not found is not blurred.
    """

    job: ClassVar[str] = "render"
    about: ClassVar[str] = "Draw boxes, ids, trails and quality on a tracked video; blur people."

    output: str
    video: str
    overlays: str | None = None
    tracks: tuple[int, ...] = ()
    min_trust: Annotated[float, Range(0, 1)] = 0.0
    start_s: Annotated[float, Range(0)] | None = None
    end_s: Annotated[float, Range(0)] | None = None
    blur: Blur = "none"

    def __post_init__(self) -> None:
        check(self)


class VideoNotFoundError(ValueError):
    """No video of the output has the given name, or several have it."""


class OutputIsInputError(ValueError):
    """The overlay would replace the video that it is drawn from."""


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(RenderConfig, argv)
    # Imported after the settings are checked, because torch takes seconds to import.
    from pipeline.report.overlays.rows import EmptyRangeError, RenderError, UnknownTrackError
    from pipeline.video.errors import DecodeError

    try:
        row = find_video(config.video, tracked_videos(config.output))
        info = VideoInfo(**{field.name: row[field.name] for field in fields(VideoInfo)})
        files, overlay = _render(config, info)
    except (EmptyRangeError, UnknownTrackError, OutputIsInputError) as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except (VideoNotFoundError, StorageError, DecodeError, RenderError) as error:
        fail(str(error), EXIT_FAILED)
    except ImportError as error:  # only drawing needs OpenCV
        fail(f"{error}; drawing needs the extra: pip install 'vsdmot[report]'", EXIT_FAILED)
    if overlay.missing:
        why = overlay.error or "it has changed since it was tracked"
        warn(f"{overlay.missing} tracked frames are not in the source any more: {why}")
    lines = [f"{overlay.frames} frames, {overlay.boxes} boxes", *files]
    if config.blur != "none":
        lines.append(
            "People who were not found are not blurred: watch the video before it is used."
        )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return EXIT_DONE


def _render(config: RenderConfig, info: VideoInfo) -> tuple[list[str], Overlay]:
    """Write video and sheet; returns their addresses and what was drawn."""
    from pipeline.report.overlays.artist import Look
    from pipeline.report.overlays.render import render
    from pipeline.report.overlays.rows import read_rows
    from pipeline.report.playable import missing_source

    folder = (config.overlays or f"{config.output.rstrip('/')}/overlays").rstrip("/")
    name = info.video_id + ("" if config.blur == "none" else f"-blurred-{config.blur}")
    files = [f"{folder}/{name}.mp4", f"{folder}/{name}.png"]
    if reason := missing_source(info):
        raise StorageError(reason)
    for path in files:
        if _place(path) == _place(info.uri):
            raise OutputIsInputError(
                f"overlays={folder}: {path} is the video itself; give another folder"
            )
    rows = read_rows(config.output, info.video_id)
    within = rows.within(config.start_s, config.end_s)
    look = Look(frozenset(rows.chosen(config.tracks, config.min_trust)), config.blur)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        video, sheet = Path(scratch) / "overlay.mp4", Path(scratch) / "overlay.png"
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(escape(info.video_id), total=len(within))
            overlay = render(
                info, rows, within, look, video, sheet,
                lambda done, of: bar.update(task, completed=done),
            )  # fmt: skip
        with video.open("rb") as file:
            publish(files[0], file)
        write_atomic(files[1], sheet.read_bytes())
    return files, overlay


def _place(uri: str) -> str:
    """Path of a file in its file system, of a local one with all links followed."""
    system, path = resolve(uri)
    return os.path.realpath(path) if isinstance(system, LocalFileSystem) else path


def tracked_videos(output: str) -> list[dict[str, Any]]:
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
