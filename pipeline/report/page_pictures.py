"""The still and the crops of a video's page, and, where people are blurred, what it plays."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.report import crops
from pipeline.report.config import Blur
from pipeline.report.frame_rows import Array, FrameRows
from pipeline.report.playable import OutOfTimeError, Playable, missing_source
from pipeline.report.source_pictures import pictures_at
from pipeline.report.track_rows import TrackRows
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.storage.files import write_atomic
from pipeline.storage.secrets import mask_secrets
from pipeline.video.errors import DecodeError
from pipeline.video.info import VideoInfo

_COPY = "blurred.mp4"


class PagePictures:
    """The still and the crops of a video, from one pass over the frames that they need.

    Attributes:
        tiles: place of a track's crop on the sheets, by id.
        still: whether a still was written.
        note: why pictures are missing; empty if none is.
    """

    def __init__(
        self,
        info: VideoInfo,
        folder: str,
        frames: FrameRows,
        tracks: TrackRows,
        most: int,
        deadline: float | None,
    ) -> None:
        self.tiles: dict[int, int] = {}
        self.still = False
        self.note = ""
        self._sheet: list[Any] = []
        self._sheets = 0
        self._info, self._folder = info, folder
        self._frames, self._tracks, self._deadline = frames, tracks, deadline
        longest = np.argsort(-tracks.boxes, kind="stable")[:most]
        # Time order: then each sheet is full before the next one is begun.
        self._wanted = longest[np.argsort(tracks.best[longest], kind="stable")]
        if len(tracks.id) > most:
            self.note = f"Pictures of the {most} tracks seen longest."

    def write(self, view: int, boxes: Array, ids: Array) -> None:
        """Write still and sheets.

        Args:
            view: position of the still's frame.
            boxes, ids: (N, 4) and (N,), what to draw on it.
        """
        now_s = float(self._frames.time_s[view])
        try:
            # The still first: it is wanted most where time is short.
            for _, picture in pictures_at(self._info, [now_s]):
                self._write_still(picture, boxes, ids)
            by_time = self._by_time()
            for time_s, picture in pictures_at(self._info, sorted(by_time)):
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self.note = "Pictures of some tracks are missing: the time given was used up."
                    break
                self._take(picture, by_time[time_s])
        except (DecodeError, StorageError, av.FFmpegError) as error:
            self.note = f"Pictures of tracks are missing: {mask_secrets(str(error))}"
        self._write_sheet()

    def write_blurred(
        self, view: int, boxes: Array, ids: Array, output: str, blur: Blur
    ) -> Playable:
        """Write a copy in which people are hidden, and still and sheets from it.

        Args:
            view, boxes, ids: as of `write`.
            output: folder or URL of the tables.
            blur: what is hidden.

        Returns:
            what the page plays: the copy, or nothing and why.
        """
        now_s = float(self._frames.time_s[view])
        by_time = self._by_time()
        if reason := missing_source(self._info):
            self.note = "Pictures of tracks are missing: there is no video."
            return Playable(None, reason)
        try:
            # Imported here, because only this needs OpenCV.
            from pipeline.report.blurred import blurred_pictures
            from pipeline.report.overlays.rows import read_rows

            rows = read_rows(output, self._info.video_id)
            times = {now_s, *by_time}
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / "video.mp4"
                for time_s, picture in blurred_pictures(
                    self._info, rows, blur, times, copy, self._deadline
                ):
                    if time_s == now_s:
                        self._write_still(picture, boxes, ids)
                    self._take(picture, by_time.get(time_s, []))
                with copy.open("rb") as file:
                    storage.publish(f"{self._folder}/{_COPY}", file)
        except (DecodeError, StorageError, av.FFmpegError, ImportError) as error:
            self.note = f"Pictures of tracks are missing: {mask_secrets(str(error))}"
            played = Playable(None, f"No copy could be made: {mask_secrets(str(error))}")
        except OutOfTimeError:
            self.note = "Pictures of some tracks are missing: the time given was used up."
            played = Playable(None, "No copy was made in the time given; leave seconds= out.")
        else:
            hidden = "People are" if blur == "people" else "Heads are"
            played = Playable(
                _COPY, f"A copy without sound. {hidden} blurred where the tracker found somebody."
            )
        self._write_sheet()
        return played

    def _by_time(self) -> dict[float, list[int]]:
        """The tracks whose pictures are wanted, by the time of the picture."""
        found: dict[float, list[int]] = {}
        for track in self._wanted.tolist():
            time_s = float(self._frames.time_s[self._tracks.best[track]])
            found.setdefault(time_s, []).append(track)
        return found

    def _write_still(self, picture: Array, boxes: Array, ids: Array) -> None:
        write_atomic(f"{self._folder}/still.jpg", crops.still(picture, boxes, ids))
        self.still = True

    def _take(self, picture: Array, tracks: Sequence[int]) -> None:
        """Cut the crops of some tracks out of a picture."""
        for track in tracks:
            self.tiles[int(self._tracks.id[track])] = len(self.tiles)
            self._sheet.append(crops.crop(picture, self._tracks.best_box[track].tolist()))
            if len(self._sheet) == crops.COLUMNS * crops.ROWS:
                self._write_sheet()

    def _write_sheet(self) -> None:
        if self._sheet:
            name = f"crops-{self._sheets}.jpg"
            write_atomic(f"{self._folder}/{name}", crops.sheet(self._sheet))
            self._sheet, self._sheets = [], self._sheets + 1
