"""Several trackings of one video at once, which share the encoding of its frames.

Encoding takes most of the time and has no state, so the windows of a video and the pass over all of
it can share it. All else is done for each of them as it is done alone: seeking, decoding, still
frames, steps, rows.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from model.net.config import ModelConfig
from model.net.decoder import DecoderOutput
from model.track.frames import FrameResult, TrackableWindow
from model.track.rules import TrackRules
from model.track.tracks import TrackState
from pipeline.inference.runtime import Runtime
from pipeline.stitching.looks import Looks
from pipeline.tracking.resume import PassState
from pipeline.tracking.tables import Columns, WindowRows
from pipeline.tracking.track_video import TrackSettings, tracked_windows
from pipeline.video.info import VideoInfo

_KEPT = 160  # encoded frames, 3 MB each; passes are at most some windows of frames apart


class EncodeOnce:
    """A student that encodes each picture once, however often it is asked to.

    Attributes:
        config: Of the student.
        encoded: Number of frames that were encoded.
    """

    def __init__(self, model: Runtime) -> None:
        """Take the student, on a CPU."""
        self.config: ModelConfig = model.config
        self.encoded = 0
        self._model = model
        self._kept: OrderedDict[bytes, TrackableWindow] = OrderedDict()

    def initial_state(self, batch: int) -> TrackState:
        """See `Tracker.initial_state`."""
        return self._model.initial_state(batch)

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> TrackableWindow:
        """See `Tracker.encode`; each frame is encoded by itself."""
        return _Frames(
            [
                self._frame(images[n : n + 1], valid[n : n + 1], patches[n : n + 1])
                for n in range(len(images))
            ]
        )

    def _frame(self, image: Tensor, valid: Tensor, patches: Tensor) -> TrackableWindow:
        digest = hashlib.blake2b(np.ascontiguousarray(image.numpy()), digest_size=16)
        digest.update(np.ascontiguousarray(patches.numpy()))
        key = digest.digest()
        if key not in self._kept:
            self._kept[key] = self._model.encode(image, valid, patches)
            self.encoded += 1
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def track(
        self,
        encoded: TrackableWindow,
        state: TrackState,
        rules: TrackRules | None = None,
        carried: Sequence[int] | None = None,
    ) -> tuple[list[FrameResult], TrackState]:
        """See `Tracker.track`."""
        return self._model.track(encoded, state, rules, carried)


class _Frames:
    """Frames that were encoded one by one, as one window."""

    def __init__(self, frames: Sequence[TrackableWindow]) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: slice) -> TrackableWindow:
        taken = self._frames[index]
        return taken[0] if len(taken) == 1 else _Frames(taken)

    @property
    def maps(self) -> tuple[Tensor, ...]:
        return tuple(map(torch.cat, zip(*(f.maps for f in self._frames), strict=True)))

    @property
    def semantic(self) -> Tensor:
        return torch.cat([frame.semantic for frame in self._frames])

    @property
    def people(self) -> DecoderOutput:
        parts = [frame.people for frame in self._frames]
        return DecoderOutput(
            torch.cat([p.logits for p in parts], 1),
            torch.cat([p.boxes for p in parts], 1),
            torch.cat([p.embedding for p in parts]),
        )

    @property
    def quality(self) -> Tensor:
        return torch.cat([frame.quality for frame in self._frames])

    @property
    def statistics(self) -> Tensor:
        return torch.cat([frame.statistics for frame in self._frames])


@dataclass(slots=True)
class Pass:
    """One tracking of a part of a video.

    Attributes:
        begin_s, end_s: Seconds of video at which it begins and ends; None is that of the video.
        looks: Of its tracks so far.
        windows: Rows so far.
    """

    begin_s: float | None
    end_s: float | None
    looks: Looks
    windows: list[WindowRows] = field(default_factory=list)

    def tracks(self) -> Columns:
        """All rows of tracks by column."""
        return _joined([rows.tracks for rows in self.windows])

    def frames(self) -> Columns:
        """All rows of frames by column."""
        return _joined([rows.frames for rows in self.windows])


def track_together(
    model: Runtime, info: VideoInfo, settings: TrackSettings, passes: Sequence[Pass]
) -> int:
    """Track some parts of a video, always going on with the one that is farthest behind.

    Args:
        model: The student, opened with the settings on a CPU.
        info: The video.
        settings: Of the tracking.
        passes: What to track; get their rows and looks. Each has at least one frame.

    Returns:
        Number of frames that were encoded.

    Raises:
        DecodeError, StorageError: The video cannot be read.
    """
    once = EncodeOnce(model)
    steps = [_steps(once, info, settings, part) for part in passes]
    # Time and number of each pass that goes on.
    waiting = [(part.begin_s or 0.0, number) for number, part in enumerate(passes)]
    heapq.heapify(waiting)
    with ExitStack() as stack:
        for step in steps:
            stack.enter_context(closing(step))
        while waiting:
            _, number = heapq.heappop(waiting)
            time_s = next(steps[number], None)
            if time_s is not None:
                heapq.heappush(waiting, (time_s, number))
    return once.encoded


def _steps(
    model: Runtime, info: VideoInfo, settings: TrackSettings, part: Pass
) -> Generator[float]:
    """Track a part; yields the time of the last frame after each window of frames."""
    place = PassState(decoding=part.begin_s, looks=part.looks)
    windows = tracked_windows(model, info, settings, place.spent, place=place, end_s=part.end_s)
    with closing(windows):
        for rows in windows:
            part.windows.append(rows)
            yield float(rows.frames["time_s"][-1])


def _joined(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
