"""The settings of `vsdmot track`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.settings import NotEmpty, Range, Share, check
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.video.limits import Limits
from pipeline.video.only import OnlyConfig


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """Thresholds for start, visibility and end of tracks. They change results.

    Attributes:
        birth_threshold: least score that starts a track; null: that of the checkpoint.
        keep_threshold: least score with which a track is seen; null: that of the checkpoint.
        miss_tolerance: frames that a track may be unseen; null: that of the checkpoint.
    """

    birth_threshold: Share | None = None
    keep_threshold: Share | None = None
    miss_tolerance: Annotated[int, Range(0)] | None = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """Which frames are tracked. It changes results.

    Attributes:
        fps: frames tracked in each second of video, on the file's own clock; null: all. Frames
            between are not decoded where the codec allows.
    """

    fps: Annotated[float, Range(0, math.inf, above=True, below=True)] | None = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class StillConfig:
    """What is done about stretches in which nothing moves. It changes results.

    Attributes:
        skip: auto: a frame that differs from the last encoded one by no more than noise is not
            encoded, and its tracks stay where they are; at least one frame a second is encoded.
    """

    skip: Literal["auto", "off"] = "auto"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """How a long video is tracked. `parallel` changes results at its seams; the others do not.

    Attributes:
        mode: video: in one pass. resume: in one pass that saves its state every `seconds`, so that
            a run after a crash goes on from there. parallel: in windows of `seconds` that are
            tracked at the same time and stitched. auto: video for those shorter than two windows;
            parallel for those that would keep other workers waiting; resume for the rest.
        seconds: length of a window, and time between two saved states, in seconds of the video.
        overlap_s: seconds of video that two windows share.
    """

    mode: Literal["auto", "video", "resume", "parallel"] = "auto"
    seconds: Annotated[float, Range(1, math.inf, below=True)] = 600.0
    overlap_s: Annotated[float, Range(0, math.inf, above=True, below=True)] = 4.0

    def __post_init__(self) -> None:
        check(self)
        if self.mode in ("auto", "parallel") and 2 * self.overlap_s > self.seconds:
            raise ValueError(
                f"overlap_s: {self.overlap_s} is more than half of a window (split.seconds is "
                f"{self.seconds}); make windows longer or the overlap shorter"
            )


@dataclass(frozen=True, slots=True)
class ReidConfig:
    """People who come back. It changes results.

    Attributes:
        max_gap_s: a track that begins at most so many seconds after another has ended gets its id
            if appearance and motion say clearly that they are one person; 0: never.
    """

    max_gap_s: Annotated[float, Range(0, math.inf, below=True)] = 0.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """Sizes of batches and queues of frames. They do not change results.

    Attributes:
        window: frames encoded as one batch.
        queue_size: greatest number of decoded frames that wait for the model, 1 MB each.
    """

    window: Annotated[int, Range(1, 256)] = 8
    queue_size: Annotated[int, Range(1)] = 32

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """What computes the student.

    Attributes:
        runtime: auto: OpenVINO on CPUs where it is installed, else PyTorch. It does not change
            results beyond rounding.
        precision: exact: float32. fast: bf16 in the dense part, in OpenVINO on CPUs and on GPUs
            that have bf16, else exact; it changes results.
    """

    runtime: Literal["auto", "torch", "openvino"] = "auto"
    precision: Literal["exact", "fast"] = "exact"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class TrackConfig:
    """Settings of `vsdmot track`.

    Attributes:
        input: archive: a folder, one file, a URL such as s3://bucket/2024/; a pattern such as
            /cams/*/2024-0?/*.mp4; or @list.parquet, @list.csv, @list.txt: the paths in column uri
            or path, or one a line, relative ones below the list's folder.
        output: folder or URL for the tables.
        weights: the student's checkpoint: a path or a URL.
        low_quality_below: frames of lower quality count in low_quality_share.
        report: write a page to look at, report/index.html in the output, at the end.
        retry_dead_letters: try the dead letters of earlier runs again.
        probe_threads: number of headers read at the same time.
        tracker: thresholds of tracks.
        sample: which frames are tracked.
        still: what is done about stretches in which nothing moves.
        only: what is tracked of a video, and who gets rows.
        split: how a long video is tracked.
        reid: people who come back.
        model: what computes the student.
        decode: sizes of batches and queues.
        limits: bounds on a file.
        cluster: where the work runs.
        mlflow: where the run is logged.
    """

    job: ClassVar[str] = "track"
    about: ClassVar[str] = (
        "Find the videos of an archive, track the people in them, and write Parquet tables."
    )

    input: Annotated[str, NotEmpty()]
    output: Annotated[str, NotEmpty()]
    weights: Annotated[str, NotEmpty()] = "weights/vsdmot-nano.safetensors"
    low_quality_below: Share = 0.5
    report: bool = True
    retry_dead_letters: bool = False
    probe_threads: Annotated[int, Range(1, 256)] = 16
    tracker: TrackerConfig = TrackerConfig()
    sample: SampleConfig = SampleConfig()
    still: StillConfig = StillConfig()
    only: OnlyConfig = OnlyConfig()
    split: SplitConfig = SplitConfig()
    reid: ReidConfig = ReidConfig()
    model: RuntimeConfig = RuntimeConfig()
    decode: DecodeConfig = DecodeConfig()
    limits: Limits = Limits()
    cluster: ClusterConfig = ClusterConfig()
    mlflow: MlflowConfig = MlflowConfig()

    def __post_init__(self) -> None:
        check(self)
