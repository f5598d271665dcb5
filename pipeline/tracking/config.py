"""The settings of `jobs.track`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from jobs.cli import ClusterConfig, JobConfig, MlflowConfig, Settings


class TrackerConfig(Settings):
    """When tracks start, show and end. These change results."""

    birth_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="score that starts a track; null: the checkpoint's own",
    )
    keep_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="score with which a track is seen; null: the checkpoint's own",
    )
    miss_tolerance: int | None = Field(
        default=None, ge=0, description="frames a track lives unseen; null: the checkpoint's own"
    )


class DecodeConfig(Settings):
    """How frames are fed to the model. None of it changes results."""

    window: int = Field(default=8, ge=1, le=256, description="frames encoded as one batch")
    queue_size: int = Field(
        default=32, ge=1, description="decoded frames that wait for the model at most, 1 MB each"
    )


class LimitsConfig(Settings):
    """Bounds on what one file may ask for. None of them changes the rows of a video within them."""

    max_pixels: int = Field(
        default=64_000_000, ge=1, description="width times height; larger pictures are refused"
    )
    max_frames: int = Field(
        default=20_000_000, ge=1, description="frames of a video; more are refused, or cut off"
    )
    max_fps: float = Field(default=1000.0, gt=0, description="frames a second by the header")
    max_attempts: int = Field(
        default=3, ge=1, description="times a video may end its worker before it is a dead letter"
    )
    deadline_base_s: float = Field(
        default=900.0, gt=0, description="seconds that any video may take, and"
    )
    deadline_frame_s: float = Field(
        default=5.0, ge=0, description="seconds more a frame, before it is a dead letter"
    )
    watchdog_s: float = Field(
        default=1800.0, gt=0, description="seconds without a frame that end the whole job"
    )


class TrackConfig(JobConfig):
    """Settings of `jobs.track`."""

    job: ClassVar[str] = "track"
    about: ClassVar[str] = (
        "Find the videos of an archive, track what is in them, and leave Parquet tables."
    )

    input: str = Field(
        min_length=1, description="archive: a folder, one file, or a URL such as s3://bucket/2024/"
    )
    output: str = Field(min_length=1, description="folder or URL for the tables")
    weights: str = Field(
        default="weights/vsdmot-nano.safetensors",
        min_length=1,
        description="the student's checkpoint: a path or a URL",
    )
    low_quality_below: float = Field(
        default=0.5, ge=0, le=1, description="frames of lower quality count into low_quality_share"
    )
    retry_dead_letters: bool = Field(
        default=False, description="try dead letters of earlier runs once more"
    )
    tracker: TrackerConfig = TrackerConfig()
    decode: DecodeConfig = DecodeConfig()
    limits: LimitsConfig = LimitsConfig()
    cluster: ClusterConfig = ClusterConfig()
    mlflow: MlflowConfig = MlflowConfig()
