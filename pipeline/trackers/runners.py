"""Students with their variants, and detectors, on one sequence, window by window."""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np
import torch
from torchvision.ops import nms

from model.net.config import ModelConfig
from model.net.decoder import DecoderOutput
from model.net.geometry import to_corners
from model.net.letterbox import Letterbox
from model.track.frames import FrameResult, Percept, TrackableWindow
from model.track.tracker import Tracker
from pipeline.datasets.boxes import Boxes
from pipeline.degrade.conditions import Condition
from pipeline.inference.runtime import RuntimeUnavailable
from pipeline.inference.shots import track_shots
from pipeline.trackers.detectors import LOWEST_SCORE, Detector
from pipeline.trackers.sequence_frames import Shot
from pipeline.trackers.variants import Variant, make_variants
from pipeline.tracking.tables import window_rows
from pipeline.tracking.track_video import TrackSettings, batch_window, open_runtime
from pipeline.video.decode import Frame


@dataclass(slots=True)
class TrackerOutput:
    """Output of one tracker on a sequence so far, in parts.

    Attributes:
        detections, tracks: of each window or frame.
        quality, semantic_weight: of each frame; students alone have them.
        stage_s: seconds of each frame, by stage.
    """

    detections: list[Boxes] = field(default_factory=list)
    tracks: list[Boxes] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    semantic_weight: list[float] = field(default_factory=list)
    stage_s: dict[str, list[float]] = field(default_factory=dict)

    def took(self, stage: str, seconds: float, frames: int) -> None:
        """Add the time of a stage for `frames` frames, spread evenly."""
        self.stage_s.setdefault(stage, []).extend([seconds / frames] * frames)


def joined(parts: Items[Boxes]) -> Boxes:
    """Boxes of several parts as one."""
    if not parts:
        return Boxes.of([], [], [])
    columns = ("frame", "track_id", "xywh", "confidence")
    return Boxes.of(*(np.concatenate([getattr(p, name) for p in parts]) for name in columns))


class StudentRun:
    """A student and its variants on one sequence.

    Attributes:
        outputs: by variant. The percept is computed once for all variants, and its time counts
            as encoding for each of them, as if it ran alone.
    """

    def __init__(
        self,
        tracker: Tracker,
        variants: Items[str],
        sequence: str,
        condition: Condition,
        box: Letterbox,
        device: str,
    ) -> None:
        self.outputs = {name: TrackerOutput() for name in variants}
        self._tracker, self._sequence, self._box, self._device = tracker, sequence, box, device
        self._variants = make_variants(tracker, variants, condition)
        self._state = {name: tracker.initial_state(1) for name in variants}
        self._canvas = box.input_height, box.input_width

    @torch.inference_mode()
    def process(self, window: Items[Shot]) -> None:
        """Track the next frames."""
        frames = [shot.frames[self._canvas] for shot in window]
        inputs = batch_window(frames, self._box, self._device)
        started = self._now()
        percept = self._tracker.perceive(*inputs)
        shared_s = self._now() - started
        for variant in self._variants:
            self._track(variant, frames, percept, shared_s)

    def _track(
        self, variant: Variant, frames: Items[Frame], percept: Percept, shared_s: float
    ) -> None:
        """Track one variant through the window whose percept took `shared_s` seconds."""
        output, count, tracker = self.outputs[variant.name], len(frames), variant.tracker
        percept = variant.percept(percept, self._sequence, frames[0].index)
        started = self._now()
        encoded = tracker.detect(percept)
        output.took("encode", shared_s + self._now() - started, count)
        started = self._now()
        cuts = [frame.cut for frame in frames]
        results, state = track_shots(tracker, encoded, cuts, self._state[variant.name])
        output.took("step", self._now() - started, count)
        self._state[variant.name] = state
        _add_tracks(output, frames, encoded, results, self._box, tracker.config)
        output.detections.append(_detections(encoded.people, frames, self._box, tracker.config))

    def _now(self) -> float:
        if self._device != "cpu":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class FastRun:
    """A student as `vsdmot track model.precision=fast` runs it on a CPU, on one sequence.

    Its detections are the boxes of whole people that it tracks.
    """

    def __init__(self, weights: str, box: Letterbox) -> None:
        """Open the student; errors as of `open_runtime`.

        Raises:
            RuntimeUnavailable: this machine has no faster precision.
        """
        self.output = TrackerOutput()
        settings = TrackSettings(
            weights,
            runtime="openvino",
            precision="fast",
            first_picture=(box.source_height, box.source_width),
        )
        opened = open_runtime(settings)
        if opened.precision != "fast":
            raise RuntimeUnavailable(f"{weights}:fast runs in {opened.runtime}; leave it out")
        self._model, self._box = opened.model, box
        self._state = self._model.initial_state(1)
        self._canvas = box.input_height, box.input_width

    @torch.inference_mode()
    def process(self, window: Items[Shot]) -> None:
        """Track the next frames."""
        frames = [shot.frames[self._canvas] for shot in window]
        inputs = batch_window(frames, self._box, "cpu")
        started = time.perf_counter()
        encoded = self._model.encode(*inputs)
        self.output.took("encode", time.perf_counter() - started, len(frames))
        started = time.perf_counter()
        cuts = [frame.cut for frame in frames]
        results, self._state = track_shots(self._model, encoded, cuts, self._state)
        self.output.took("step", time.perf_counter() - started, len(frames))
        config = self._model.config
        _add_tracks(self.output, frames, encoded, results, self._box, config)
        self.output.detections.append(_detections(encoded.people, frames, self._box, config))


class DetectorRun:
    """A detector on one sequence."""

    def __init__(self, detector: Detector) -> None:
        self.output = TrackerOutput()
        self._detector = detector

    def process(self, window: Items[Shot]) -> None:
        """Detect in the next frames."""
        for shot in window:
            assert shot.native is not None
            started = time.perf_counter()
            xywh, scores = self._detector(shot.native)
            self.output.took("detect", time.perf_counter() - started, 1)
            frame = np.full(len(scores), shot.index + 1)
            self.output.detections.append(Boxes.of(frame, -1, xywh, scores))


def _add_tracks(
    output: TrackerOutput,
    frames: Items[Frame],
    encoded: TrackableWindow,
    results: Items[FrameResult],
    box: Letterbox,
    config: ModelConfig,
) -> None:
    """Add the tracks of a window, and what its frames are."""
    rows = window_rows(frames, encoded, results, box, config.classes)
    table = rows.tracks
    xywh = np.stack([table[name] for name in "xywh"], axis=1)
    output.tracks.append(
        Boxes.of(table["frame_index"] + 1, table["track_id"], xywh, table["score"])
    )
    output.quality += rows.frames["quality"].tolist()
    output.semantic_weight += rows.frames["semantic_weight"].tolist()


def _detections(
    found: DecoderOutput,
    frames: Items[Frame],
    box: Letterbox,
    config: ModelConfig,
) -> Boxes:
    """Detections of the student's detection queries, in each frame alone."""
    scores = found.logits[-1].float().sigmoid().amax(-1)
    size = scores.new_tensor([config.input_width, config.input_height] * 2)
    corners = to_corners(found.boxes[-1].float()) * size
    parts = []
    for i, frame in enumerate(frames):
        kept = nms(corners[i], scores[i], config.duplicate_iou)
        source = box.to_source(corners[i, kept].cpu().numpy())
        score = scores[i, kept].cpu().numpy()
        xywh = np.concatenate([source[:, :2], source[:, 2:] - source[:, :2]], axis=1)
        good = (score >= LOWEST_SCORE) & (xywh[:, 2:] > 0).all(axis=1)
        parts.append(Boxes.of(np.full(good.sum(), frame.index + 1), -1, xywh[good], score[good]))
    return joined(parts)
