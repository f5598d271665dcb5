"""What looks at frames: students with their ablations, and detectors. Fed window by window."""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torchvision.ops import nms

from model.net.geometry import to_corners
from model.net.letterbox import Letterbox
from model.track.tracker import Memory, Tracker
from pipeline.datasets.boxes import Boxes
from pipeline.degrade.conditions import Condition
from pipeline.trackers.detectors import LOWEST_SCORE, Detector
from pipeline.trackers.sequence_frames import Shot
from pipeline.trackers.variants import Variant, VariantSet, make_variants
from pipeline.tracking.tables import window_rows
from pipeline.tracking.track_video import batch_window


@dataclass(slots=True)
class Seen:
    """What one tracker said of a sequence so far; `stage_s` has seconds a frame by stage."""

    detections: list[Boxes] = field(default_factory=list)
    tracks: list[Boxes] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    semantic_weight: list[float] = field(default_factory=list)
    stage_s: dict[str, list[float]] = field(default_factory=dict)

    def took(self, stage: str, seconds: float, frames: int) -> None:
        """Note the time of a stage for `frames` frames, spread evenly."""
        self.stage_s.setdefault(stage, []).extend([seconds / frames] * frames)


def joined(parts: Items[Boxes]) -> Boxes:
    """Boxes of several parts as one."""
    if not parts:
        return Boxes.of([], [], [])
    columns = ("frame", "track_id", "xywh", "confidence")
    return Boxes.of(*(np.concatenate([getattr(p, name) for p in parts]) for name in columns))


class StudentRun:
    """A student and its variants on one sequence; `seen` by variant."""

    def __init__(
        self,
        tracker: Tracker,
        variants: Items[str],
        sequence: str,
        condition: Condition,
        box: Letterbox,
        device: str,
    ) -> None:
        self.seen = {name: Seen() for name in variants}
        self._sequence, self._box, self._device = sequence, box, device
        self._set: VariantSet = make_variants(tracker, variants, condition)
        self._state = {v.name: v.tracker.initial_state(1) for v in self._set.variants}
        self._canvas = (tracker.config.input_height, tracker.config.input_width)

    @torch.inference_mode()
    def see(self, window: Items[Shot]) -> None:
        """Track the next frames."""
        self._set.new_window()
        frames = [shot.frames[self._canvas] for shot in window]
        inputs = batch_window(frames, self._box, self._device)
        charged = 0.0
        for variant in self._set.variants:
            charged = self._track(variant, frames, inputs, charged)

    def _track(self, variant: Variant, frames: Any, inputs: Any, charged: float) -> float:
        """One variant over the window; returns the shared seconds that are paid for already."""
        seen, count = self.seen[variant.name], len(frames)
        variant.prepare(self._sequence, frames[0].index, count)
        started = self._now()
        memory = variant.tracker.encode(*inputs)
        # Alone it would have had to compute what the first one did.
        replayed = charged
        seen.took("encode", self._now() - started + replayed, count)
        started = self._now()
        results, state = variant.tracker.track(memory, self._state[variant.name])
        seen.took("step", self._now() - started, count)
        self._state[variant.name] = state
        classes = variant.tracker.config.classes
        rows = window_rows(frames, memory, results, self._box, classes)
        table = rows.tracks
        xywh = np.stack([table[name] for name in "xywh"], axis=1)
        seen.tracks.append(
            Boxes.of(table["frame_index"] + 1, table["track_id"], xywh, table["score"])
        )
        seen.quality += rows.frames["quality"].tolist()
        seen.semantic_weight += rows.frames["semantic_weight"].tolist()
        iou = variant.tracker.config.duplicate_iou
        seen.detections.append(_detections(memory, frames, self._box, self._canvas, iou))
        return self._set.shared_seconds

    def _now(self) -> float:
        if self._device != "cpu":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class DetectorRun:
    """A detector on one sequence."""

    def __init__(self, detector: Detector) -> None:
        self.seen = Seen()
        self._detector = detector

    def see(self, window: Items[Shot]) -> None:
        """Detect in the next frames."""
        for shot in window:
            assert shot.native is not None
            started = time.perf_counter()
            xywh, scores = self._detector(shot.native)
            self.seen.took("detect", time.perf_counter() - started, 1)
            frame = np.full(len(scores), shot.index + 1)
            self.seen.detections.append(Boxes.of(frame, -1, xywh, scores))


def _detections(
    memory: Memory, frames: Any, box: Letterbox, canvas: tuple[int, int], duplicate_iou: float
) -> Boxes:
    """What the student's detection queries find in each frame alone, without any track."""
    found = memory.detections
    scores = found.logits[-1].float().sigmoid().amax(-1)
    size = scores.new_tensor([canvas[1], canvas[0], canvas[1], canvas[0]])
    corners = to_corners(found.boxes[-1].float()) * size
    parts = []
    for i, frame in enumerate(frames):
        kept = nms(corners[i], scores[i], duplicate_iou)
        source = box.to_source(corners[i, kept].cpu().numpy())
        score = scores[i, kept].cpu().numpy()
        xywh = np.concatenate([source[:, :2], source[:, 2:] - source[:, :2]], axis=1)
        good = (score >= LOWEST_SCORE) & (xywh[:, 2:] > 0).all(axis=1)
        parts.append(Boxes.of(np.full(good.sum(), frame.index + 1), -1, xywh[good], score[good]))
    return joined(parts)
