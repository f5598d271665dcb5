"""Track the frames of one video: decode ▸ encode ▸ step ▸ rows."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.allocator import keep_large_blocks
from model.net.config import ModelConfig
from model.net.letterbox import Letterbox
from model.track.checkpoint import CheckpointError, file_sha256, read_metadata
from model.track.rules import TrackRules
from pipeline.inference.runtime import (
    Opened,
    PrecisionChoice,
    Runtime,
    RuntimeChoice,
    open_model,
)
from pipeline.inference.shots import track_shots
from pipeline.stitching.looks import Glance
from pipeline.storage import files as storage
from pipeline.tracking.carry import (
    carried_after,
    carried_before,
    last_frame,
    next_window,
    with_carried,
)
from pipeline.tracking.resume import PassState, Spent
from pipeline.tracking.tables import WindowRows, window_rows
from pipeline.trust.model import FoundTrust
from pipeline.video.decode import Frame, FrameStream
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits
from pipeline.video.only import OnlyConfig, Wanted, stretch

if TYPE_CHECKING:
    from model.track.tracker import Tracker


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
        only: What is tracked of a video, and who gets rows.
        split_seconds: Seconds of video between two saved places.
        overlap_s: Seconds of video that two windows share.
        max_gap_s: Longest absence after which a person gets the old id; 0: never.
        device: "cpu" or "cuda".
        runtime, precision: What the student runs in; see `open_model`.
        first_picture: Height and width of the first video, for which the model is made ready.
        graph_folder: Where graphs that have to be converted are kept; "": the user's folder.
        trust: Gives the trust in tracks.
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
    only: OnlyConfig = OnlyConfig()
    split_seconds: float = 600.0
    overlap_s: float = 4.0
    max_gap_s: float = 0.0
    device: str = "cpu"
    runtime: RuntimeChoice = "auto"
    precision: PrecisionChoice = "exact"
    first_picture: tuple[int, int] | None = None
    graph_folder: str = ""
    trust: FoundTrust = FoundTrust()
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
        graph_folder=settings.graph_folder,
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


def tracked_windows(
    tracker: Runtime,
    info: VideoInfo,
    settings: TrackSettings,
    spent: Spent,
    deadline: float | None = None,
    place: PassState | None = None,
    end_s: float | None = None,
    keep_places: bool = False,
) -> Generator[WindowRows]:
    """Track one video; yields the rows of one window of frames after another.

    A thread decodes ahead of the model. `window` frames are encoded as one batch, then stepped one
    by one; still frames between them are carried. The thread ends with the iterator, so an iterator
    that is left early has to be closed.

    Args:
        tracker: On the settings' device.
        info: The video.
        settings: What is not about weights and output is used.
        spent: Updated after each window; `error` and `frames_decoded` are set at the end.
        deadline: Value of `time.monotonic` after which no frame is waited for.
        place: Where to begin; updated after each window. None begins at the start.
        end_s: Seconds of video at which to end; None is the end of the video.
        keep_places: Whether places are to be such that decoding can go on from them.

    Raises:
        DecodeError: No frame could be read, or the settings want none of the video.
        PlaceLost: The file has no such place any more.
        DeadlineError: The deadline has passed.
        StorageError: The video could not be read to its end.
    """
    config = tracker.config
    device = torch.device(settings.device)
    place = place or PassState()
    state = tracker.initial_state(1) if place.tracks is None else place.tracks
    wanted = Wanted.of(settings.only, info)
    start, end_s = stretch(settings.only, place.decoding, end_s)
    canvas = config.canvas_for(*wanted.picture(info))
    rules = sampled_rules(config, info, settings.sample_fps)
    last, busy_s = place.last, spent.decode_busy_s
    with FrameStream(
        info,
        *canvas,
        settings.queue_size,
        settings.limits,
        deadline,
        settings.decode_threads,
        settings.sample_fps,
        settings.skip_still,
        start=start,
        end_s=end_s,
        keep_states=keep_places,
        crop=wanted.crop,
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
                    cuts = [frame.cut for frame in fresh]
                    carried = carried_before(window, place.carried)
                    results, state = track_shots(tracker, encoded, cuts, state, rules, carried)
                    rows = window_rows(fresh, encoded, results, box, config.classes, wanted)
                    spent.step_s += time.perf_counter() - mark
            before, last = last, last if rows is None else last_frame(rows)
            whole = with_carried(window, rows, before)
            if place.looks is not None:
                padded = config.padded_canvas(*canvas)
                glance = Glance(state, fresh[-1].image, padded) if fresh else None
                place.looks.add(whole.tracks, glance)
            place.decoding, place.tracks, place.last = window[-1].state, state, last
            place.carried = carried_after(window, place.carried)
            began_s = window[0].time_s if math.isinf(place.last_s) else place.last_s
            place.video_s += max(0.0, window[-1].time_s - began_s)
            place.frames, place.last_s = window[-1].index + 1, window[-1].time_s
            place.tracked, place.encoded = place.tracked + len(window), place.encoded + len(fresh)
            spent.decode_busy_s = busy_s + stream.decode_seconds
            yield whole
        spent.error, spent.decode_busy_s = stream.error, busy_s + stream.decode_seconds
        spent.frames_decoded = stream.decoded
        place.clock_restarted, place.entered = stream.clock_restarted, stream.entered
        place.keys = stream.keys


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
