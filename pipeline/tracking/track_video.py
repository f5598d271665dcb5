"""Track one video: decode ▸ encode ▸ step ▸ tables."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.allocator import keep_large_blocks
from model.net.config import ModelConfig
from model.net.letterbox import Letterbox
from model.track.checkpoint import CheckpointError, file_sha256, read_metadata
from model.track.rules import TrackRules
from model.version import code_version
from pipeline.inference.runtime import (
    Opened,
    PrecisionChoice,
    Runtime,
    RuntimeChoice,
    open_model,
)
from pipeline.storage import files as storage
from pipeline.tracking.carry import last_frame, next_window, with_carried
from pipeline.tracking.tables import VideoTables, WindowRows, window_rows
from pipeline.video.decode import Frame, FrameStream
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits

if TYPE_CHECKING:
    from model.track.tracker import Tracker

Report = Callable[[str, int], None]
"""Called with a video's id and the number of its frames that are tracked so far."""


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """Settings of a worker.

    Attributes:
        weights: Path or URL of the student's checkpoint.
        output: Folder or URL of the tables; not used by `track_video`.
        model_sha256: Expected hash of the weights; "" accepts any.
        config_hash: Hash of the settings that decide results.
        window: Frames encoded as one batch.
        queue_size: Greatest number of decoded frames that wait for the model.
        decode_threads: Threads of libav for one video; 0 is one for each core of the machine.
        low_quality_below: A frame of lower quality counts as low-quality.
        birth_threshold, keep_threshold, miss_tolerance: None takes the value of the checkpoint.
        sample_fps: Frames tracked a second of video; None tracks all.
        skip_still: Whether frames that show nothing new are carried instead of encoded.
        device: "cpu" or "cuda".
        runtime, precision: What the student runs in; see `open_model`.
        first_picture: Height and width of the first video, for which the model is made ready.
        limits: Bounds on one video.
        run: Name of this run in the ledger of attempts.
        in_process: Whether the worker runs in the driver's process.
        conditional: Whether the output can refuse to create a file that exists.
    """

    weights: str
    output: str = ""
    model_sha256: str = ""
    config_hash: str = ""
    window: int = 8
    queue_size: int = 32
    decode_threads: int = 0
    low_quality_below: float = 0.5
    birth_threshold: float | None = None
    keep_threshold: float | None = None
    miss_tolerance: int | None = None
    sample_fps: float | None = None
    skip_still: bool = True
    device: str = "cpu"
    runtime: RuntimeChoice = "auto"
    precision: PrecisionChoice = "exact"
    first_picture: tuple[int, int] | None = None
    limits: Limits = field(default_factory=Limits)
    run: str = "run"
    in_process: bool = False
    conditional: bool = True


@contextmanager
def local_weights(weights: str) -> Iterator[Path]:
    """The checkpoint as a local file; from a URL it is copied to a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(weights)
        if "://" in weights:
            path = Path(folder) / path.name
            path.write_bytes(storage.read_bytes(weights))
        yield path


def open_tracker(settings: TrackSettings) -> Tracker:
    """Load the student in PyTorch, with the thresholds of the settings, on their device.

    From here on the process keeps its large blocks of memory (`keep_large_blocks`).

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    keep_large_blocks()
    with local_weights(settings.weights) as path:
        return _load(path, settings)


def open_runtime(
    settings: TrackSettings, notice: Callable[[str], None] = lambda text: None
) -> Opened:
    """Load the student in the runtime of the settings, otherwise as `open_tracker`.

    Args:
        settings: Their weights, thresholds, device, runtime, precision and first picture are used.
        notice: Called with what the user should know while it happens.

    Raises:
        CheckpointError: The file is missing, damaged, or has another hash than the settings say.
        RuntimeUnavailable: The runtime of the settings cannot be used.
    """
    keep_large_blocks()
    with local_weights(settings.weights) as path:
        config = _with_thresholds(read_metadata(path).model, settings)
        sha256 = file_sha256(path)
        if settings.model_sha256 not in ("", sha256):
            raise CheckpointError(
                f"{settings.weights} is not the file this run was started with "
                f"(sha256 {settings.model_sha256[:12]}…); put the same weights on every machine"
            )
    # Not from `path`: graphs of another canvas are made later, when a copy of a URL is gone.
    return open_model(
        settings.runtime,
        settings.device,
        config,
        sha256,
        lambda: open_tracker(settings),
        precision=settings.precision,
        canvas=config.canvas_for(*settings.first_picture) if settings.first_picture else None,
        notice=notice,
    )


def _load(path: Path, settings: TrackSettings) -> Tracker:
    # Imported here, because timm and torchvision take seconds to import, and graphs that are kept
    # need neither.
    from model.track.tracker import Tracker

    tracker, _ = Tracker.load(path, settings.device)
    tracker.config = _with_thresholds(tracker.config, settings)
    return tracker


def _with_thresholds(config: ModelConfig, settings: TrackSettings) -> ModelConfig:
    names = ("birth_threshold", "keep_threshold", "miss_tolerance")
    given = {name: getattr(settings, name) for name in names}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


@dataclass(slots=True)
class Spent:
    """Seconds that tracking a video has taken so far, and how far decoding came.

    Attributes:
        decode_wait_s: Seconds in which the model waited for frames.
        decode_busy_s: Seconds in which the decode thread worked.
        encode_s, step_s: Seconds of encoding and stepping.
        frames_decoded: Frames read, also those that sampling leaves out.
        error: The reason why decoding stopped before the end of the video; None if it did not.
    """

    decode_wait_s: float = 0.0
    decode_busy_s: float = 0.0
    encode_s: float = 0.0
    step_s: float = 0.0
    frames_decoded: int = 0
    error: str | None = None


def tracked_windows(
    tracker: Runtime,
    info: VideoInfo,
    settings: TrackSettings,
    spent: Spent,
    deadline: float | None = None,
) -> Generator[WindowRows]:
    """Track one whole video from its start; yields the rows of one window of frames after another.

    A thread decodes ahead of the model. `window` frames are encoded as one batch, then stepped one
    by one; still frames between them are carried. The thread ends with the iterator, so an iterator
    that is left early has to be closed.

    Args:
        tracker: On the settings' device.
        info: The video.
        settings: What is not about weights and output is used.
        spent: Updated after each window; `error`, `frames_decoded` and `decode_busy_s` are set at
            the end.
        deadline: Value of `time.monotonic` after which no frame is waited for.

    Raises:
        DecodeError: No frame could be read.
        DeadlineError: The deadline has passed.
        StorageError: The video could not be read to its end.
    """
    config = tracker.config
    device = torch.device(settings.device)
    state = tracker.initial_state(1)
    canvas = config.canvas_for(info.height, info.width)
    rules = sampled_rules(config, info, settings.sample_fps)
    last: WindowRows | None = None
    with FrameStream(
        info,
        *canvas,
        settings.queue_size,
        settings.limits,
        deadline,
        settings.decode_threads,
        settings.sample_fps,
        settings.skip_still,
    ) as stream:
        frames = iter(stream)
        while True:
            mark = time.perf_counter()
            window = next_window(frames, settings.window)
            spent.decode_wait_s += time.perf_counter() - mark
            if not window:
                break
            fresh = [frame for frame in window if not frame.still]
            rows = None
            if fresh:
                # Not around `yield`, because the caller's code runs there.
                with torch.inference_mode():
                    mark = time.perf_counter()
                    box = stream.letterbox
                    encoded = tracker.encode(*batch_window(fresh, box, device))
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)  # otherwise encoding is timed as stepping
                    spent.encode_s += time.perf_counter() - mark
                    mark = time.perf_counter()
                    results, state = tracker.track(encoded, state, rules)
                    rows = window_rows(fresh, encoded, results, box, config.classes)
                    spent.step_s += time.perf_counter() - mark
            before, last = last, last if rows is None else last_frame(rows)
            yield with_carried(window, rows, before)
        spent.error, spent.decode_busy_s = stream.error, stream.decode_seconds
        spent.frames_decoded = stream.decoded


def sampled_rules(config: ModelConfig, info: VideoInfo, fps: float | None) -> TrackRules | None:
    """Thresholds for some frames a second; None if those of the config hold.

    The miss tolerance is kept in seconds. Of the config it is a number of frames, which is turned
    to seconds by the rate of the video, so that sampling does not change how long a track may be
    unseen.

    Args:
        config: Of the student.
        info: The video.
        fps: Frames tracked a second; None for all.
    """
    if fps is None or info.fps is None or fps >= info.fps or not config.miss_tolerance:
        return None
    tolerance = max(1, round(config.miss_tolerance * fps / info.fps))
    return replace(TrackRules.of(config), miss_tolerance=tolerance)


def track_video(
    tracker: Runtime,
    info: VideoInfo,
    settings: TrackSettings,
    tables: VideoTables,
    report: Report | None = None,
) -> dict[str, Any]:
    """Track one whole video into its tables, without publishing; returns its row of `videos`.

    Raises:
        DecodeError: No frame could be read.
        DeadlineError: It took longer than `settings.limits` allows.
        StorageError: The video could not be read to its end.
        SpoolError: The rows cannot be written to this machine's temporary folder.
    """
    spent, write_s = Spent(), 0.0
    started = time.perf_counter()
    deadline = time.monotonic() + settings.limits.deadline_s(info)
    with closing(tracked_windows(tracker, info, settings, spent, deadline)) as windows:
        for rows in windows:
            mark = time.perf_counter()
            tables.add(rows)
            write_s += time.perf_counter() - mark
            if report is not None:
                report(info.video_id, int(rows.frames["frame_index"][-1]) + 1)
    return tables.summary(
        settings.low_quality_below,
        {
            "status": "partial" if spent.error else "ok",
            **asdict(spent),
            "write_s": write_s,
            "elapsed_s": time.perf_counter() - started,
            "model_sha256": settings.model_sha256,
            "config_hash": settings.config_hash,
            "code_version": code_version(),
            "segments": 1,
        },
    )


def batch_window(
    window: list[Frame], box: Letterbox, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames of one video as arguments of `Tracker.encode`.

    Returns:
        Images (N, 3, H, W) uint8, valid sizes (N, 2) in pixels, patches (N, P, S, S) uint8.
    """
    images = torch.from_numpy(np.stack([frame.image for frame in window])).to(device)
    patches = torch.from_numpy(np.stack([frame.patches for frame in window])).to(device)
    valid = torch.tensor([[box.scaled_height, box.scaled_width]] * len(window), device=device)
    return images.permute(0, 3, 1, 2), valid, patches
