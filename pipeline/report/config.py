"""The settings of `vsdmot report`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.settings import NotEmpty, Range, check

Blur = Literal["none", "people", "heads"]
"""What of people is made unrecognisable."""


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """Settings of `vsdmot report`.

    Attributes:
        output: folder or URL of tables, the output of vsdmot track.
        report: folder or URL for the page; null: report/ in output, or report-blurred/ with blur.
        pages: videos that get a page of their own, at most; the best and the worst in quality come
            first, then the others by name.
        videos: further videos that get a page, each by its video_id or its path in the archive.
        player: auto: the page plays the original where a browser can and it is on a local disk; of
            others an H.264 copy is put into the report. link: only what needs no copy is played.
            copy: everything is put into the report, so that the folder can be moved.
        blur: people: in all pictures and in the player, what lies in the box of a tracked person is
            made unrecognisable. heads: the same for the upper part of the box alone. The player
            then plays a copy. A person who is not found is not blurred.
        crops: pictures of tracks on a page, at most; those seen longest come first.
        seconds: time for stills, crops and copies of all videos; what is missing then is said on
            the page. null: no bound.
        price_per_hour: price of an hour of one worker: of a GPU, without GPUs of a core. null: no
            cost is shown.
        currency: of the price, as it is shown.
    """

    job: ClassVar[str] = "report"
    about: ClassVar[str] = "Write a page on a run of vsdmot track, to look at in a browser."

    output: Annotated[str, NotEmpty()]
    report: Annotated[str, NotEmpty()] | None = None
    pages: Annotated[int, Range(0)] = 50
    videos: tuple[str, ...] = ()
    player: Literal["auto", "link", "copy"] = "auto"
    blur: Blur = "none"
    crops: Annotated[int, Range(0)] = 1000
    seconds: Annotated[float, Range(0, math.inf, below=True)] | None = None
    price_per_hour: Annotated[float, Range(0, math.inf, below=True)] | None = None
    currency: Annotated[str, NotEmpty()] = "USD"

    def __post_init__(self) -> None:
        check(self)
        if self.blur != "none" and self.player == "link":
            raise ValueError(
                f"player: link plays the video itself, in which nobody is blurred; with "
                f"blur={self.blur} leave player out"
            )
