"""Properties of a video, from its header and first frame."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Properties of a video, from its header and first frame.

    Attributes:
        container, codec, pixel_format: names as libav gives them.
        width, height: pixels of the displayed frame, rotation applied, pixels taken as square.
        rotation: degrees clockwise by which a player turns the stored picture: 0, 90, 180, 270.
        fps: average frames per second, None where the header gives none.
        time_base: seconds of one timestamp tick, as "1/12800".
        variable_rate: whether gaps between frames are unequal, by the header.
        frames_expected: from the container's index where there is one, else duration times fps.
    """

    video_id: str
    uri: str
    relative_path: str
    size_bytes: int
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    fps: float | None
    time_base: str
    variable_rate: bool
    frames_expected: int | None
    duration_s: float | None
