"""Cut pictures of tracks out of tracked videos, for labelling: ``vsdmot crops OUTPUT FOLDER``.

Exit codes: 0 done; 1 the tables or the sources of some videos cannot be read; 2 a bad setting.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from rich.markup import escape

from jobs.cli import EXIT_BAD_CONFIG, EXIT_DONE, EXIT_FAILED, console, fail, load_config, warn
from jobs.render import VideoNotFoundError, find_video, tracked_videos
from model.settings import NotEmpty, Range, check
from pipeline.storage.files import StorageError, write_atomic
from pipeline.video.info import VideoInfo

_LIST = "crops.csv"


@dataclass(frozen=True, slots=True)
class CropsConfig:
    """Settings of `vsdmot crops`.

    Attributes:
        output: folder or URL of tables, the output of vsdmot track.
        crops: folder or URL for the pictures and crops.csv, which has a line for each picture.
        videos: the videos to take, each named as for vsdmot render; none: all.
        tracks: ids of the tracks to take, of one video; none: all.
        each: pictures of a track, at most. Its time is divided into so many parts, and the clearest
            picture of each part is taken.
        min_trust: tracks of less trust are left out; those of unknown trust are not.
        format: of the pictures.
    """

    job: ClassVar[str] = "crops"
    about: ClassVar[str] = "Cut clear pictures of each track out of the videos, for labelling."

    output: Annotated[str, NotEmpty()]
    crops: Annotated[str, NotEmpty()]
    videos: tuple[str, ...] = ()
    tracks: tuple[int, ...] = ()
    each: Annotated[int, Range(1)] = 5
    min_trust: Annotated[float, Range(0, 1)] = 0.0
    format: Literal["jpg", "png"] = "jpg"

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(CropsConfig, argv)
    # Imported after the settings are checked, because decoding needs torch, which takes seconds.
    from pipeline.report.overlays.rows import UnknownTrackError
    from pipeline.report.overlays.views import COLUMNS
    from pipeline.video.errors import DecodeError

    if config.tracks and len(config.videos) != 1:
        fail("tracks: ids belong to one video; name it with 'videos=[…]'", EXIT_BAD_CONFIG)
    folder = config.crops.rstrip("/")
    text = io.StringIO()
    lines = csv.DictWriter(text, COLUMNS)
    lines.writeheader()
    pictures, failed = 0, 0
    try:
        rows = tracked_videos(config.output)
        rows = [find_video(name, rows) for name in config.videos] or rows
        for row in rows:
            try:
                with console.status(escape(row["relative_path"])):
                    found = _video(config, row, folder)
            except (StorageError, DecodeError) as error:
                warn(f"no pictures of {row['relative_path']}: {error}")
                failed += 1
                continue
            lines.writerows(found)
            pictures += len(found)
        # Written last: what it lists is there.
        write_atomic(f"{folder}/{_LIST}", text.getvalue().encode())
    except UnknownTrackError as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except (VideoNotFoundError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    console.print(
        f"{pictures} pictures\n{folder}/{_LIST}",
        soft_wrap=True, highlight=False, markup=False,
    )  # fmt: skip
    return EXIT_FAILED if failed else EXIT_DONE


def _video(config: CropsConfig, row: dict[str, Any], folder: str) -> list[dict[str, object]]:
    """Write the pictures of one video; returns their lines."""
    from pipeline.report.overlays.rows import read_rows
    from pipeline.report.overlays.views import clear_views, listed, write_views
    from pipeline.report.playable import missing_source

    info = VideoInfo(**{field.name: row[field.name] for field in fields(VideoInfo)})
    if reason := missing_source(info):
        raise StorageError(reason)
    rows = read_rows(config.output, info.video_id)
    chosen = clear_views(rows, rows.chosen(config.tracks, config.min_trust), config.each)
    written = write_views(info, rows, chosen, folder, config.format)
    lines = [listed(info, rows, view) for view in written]
    if len(lines) < len(chosen):
        warn(f"{row['relative_path']}: {len(chosen) - len(lines)} pictures are not in it any more")
    return lines


if __name__ == "__main__":
    sys.exit(main())
