"""Settings of an export of tracks."""

from dataclasses import dataclass
from typing import Annotated, Literal

from model.settings import Range, Share, check

Format = Literal["motchallenge", "coco", "cvat", "labelstudio", "kitti", "csv"]


@dataclass(frozen=True, slots=True)
class TracksConfig:
    """Which tracks of a run are exported, and how.

    Attributes:
        format: format of the files.
        videos: videos to export, each by its id, its path in the archive, its file name, or a
            pattern of one of these with * and ?; none exports all.
        class_name: class whose tracks are exported.
        min_trust: least trust of a track; null exports all.
        tolerance_px: greatest error in pixels of the boxes between two keyframes; cvat and
            labelstudio only.
        video_prefix: put before the path of a video in the archive to make the address under which
            Label Studio finds it.
    """

    format: Format = "motchallenge"
    videos: tuple[str, ...] = ()
    class_name: str = "person"
    min_trust: Share | None = None
    tolerance_px: Annotated[float, Range(0)] = 1.0
    video_prefix: str = "/data/local-files/?d="

    def __post_init__(self) -> None:
        check(self)
