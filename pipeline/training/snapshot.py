"""Snapshots of a tracker in training: a picture of its tracks on one batch, and figures.

The picture has one column per frame. From top to bottom, a column shows the frame with tracks, ids
and scores (labels are thin white boxes), a bar of the quality, a bar of the semantic weight, and
the semantic map in colours.
"""

import io
from collections import deque
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from model.learn.training import Trainer
from model.net.config import STRIDES
from model.track.frames import EncodedFrames, FrameResult
from model.track.tracker import Tracker
from pipeline.training.worker import Snapshot

_COLUMNS = 4
_WIDTH = 320  # of a column, pixels
_BAR = 16  # height of a bar, pixels
_WINDOW = 20  # snapshots whose frames are in the rank correlation


class SnapshotMaker:
    """Makes snapshots; see `make_snapshot` of `pipeline.training.worker.TrainingTask`."""

    def __init__(self) -> None:
        # Quality and severity of the frames of each snapshot.
        self._recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_WINDOW)

    @torch.no_grad()
    def __call__(self, trainer: Trainer, batch: Any) -> Snapshot:
        """Make a snapshot on a batch of clips (B, T, …) or of frames (N, …)."""
        tracker, batch = trainer.tracker.eval(), batch.to(trainer.device)
        length = batch.images.shape[1] if batch.images.dim() == 5 else 1
        encoded = tracker.encode(
            batch.images.flatten(0, -4), batch.valid.flatten(0, -2), batch.patches.flatten(0, -4)
        )
        severity = batch.severity.flatten()
        known = severity >= 0
        self._recent.append(
            (encoded.quality[known].float().cpu().numpy(), severity[known].float().cpu().numpy())
        )
        quality, levels = (np.concatenate(parts) for parts in zip(*self._recent, strict=True))
        weight = encoded.frame_weight.float()
        figures = {
            "quality_mean": float(encoded.quality.float().mean()),
            "gate_mean": float(weight.mean()),
            "gate_least": float(weight.min()),
            "gate_greatest": float(weight.max()),
        }
        correlation = rank_correlation(quality, -levels)
        if correlation is not None:
            figures["quality_rank_correlation"] = correlation
        return Snapshot(_png(draw(tracker, encoded, batch, length)), figures)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation, ties averaged; None if `a` or `b` is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def draw(tracker: Tracker, encoded: EncodedFrames, batch: Any, length: int) -> np.ndarray:
    """Draw the picture (h, w, 3) uint8.

    Args:
        tracker: in eval mode.
        encoded: all frames of the batch.
        batch: of clips or of frames.
        length: frames in a clip; 1 for single frames.
    """
    frames = batch.images.flatten(0, -4).cpu().numpy().transpose(0, 2, 3, 1)
    # In eval mode maps are padded to the canvas of the config.
    height, width = (side // STRIDES[1] for side in frames.shape[1:3])
    colours = semantic_colours(encoded.semantic_map[..., :height, :width].float())
    # Columns are filled with the first clip, then with the next ones.
    clips = max(1, _COLUMNS // length)
    labels = _labels(batch)
    columns = []
    for clip in range(min(clips, len(frames) // length)):
        first = clip * length
        results, _ = tracker.track(encoded[first : first + length], tracker.initial_state(1))
        for t, result in enumerate(results[:_COLUMNS]):
            n = first + t
            columns.append(
                np.concatenate(
                    [
                        _with_boxes(frames[n], result, labels[n] if labels else ()),
                        _bar(encoded.quality[n], "quality", _severity(batch, n)),
                        _bar(encoded.frame_weight[n], "semantic weight"),
                        _scaled(colours[n], frames.shape[1:3]),
                    ]
                )
            )
    return np.concatenate(columns[:_COLUMNS], 1)


def semantic_colours(maps: Tensor) -> np.ndarray:
    """First three principal components of semantic maps (N, S, h, w): (N, h, w, 3) uint8."""
    n, width, h, w = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(-1, width).cpu()
    rows = rows - rows.mean(0)
    _, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    found = rows @ vectors[:, -3:].flip(1)
    low, high = found.quantile(0.02, 0), found.quantile(0.98, 0)
    shades = ((found - low) / (high - low).clamp(min=1e-9)).clamp(0, 1) * 255
    return shades.reshape(n, h, w, 3).numpy().astype(np.uint8)


def _with_boxes(frame: np.ndarray, result: FrameResult, labels: Any) -> np.ndarray:
    height, width = frame.shape[:2]
    factor = _WIDTH / width
    image = Image.fromarray(_scaled(frame, (height, width)))
    pen = ImageDraw.Draw(image)
    for box in labels:
        pen.rectangle(_sorted_box(box, factor), outline=(255, 255, 255))
    shown = result.track_id[0] >= 0
    for number, box, score in zip(
        result.track_id[0][shown].tolist(),
        result.boxes[0][shown].tolist(),
        result.scores[0][shown].tolist(),
        strict=True,
    ):
        colour = tuple(int(c) for c in np.random.default_rng(number).integers(80, 256, 3))
        place = _sorted_box(box, factor)
        pen.rectangle(place, outline=colour, width=2)
        pen.text((place[0] + 2, place[1]), f"{number} {score:.2f}", fill=colour)
    return np.asarray(image)


def _bar(value: Tensor, name: str, note: str = "") -> np.ndarray:
    """Draw a bar of a value from 0 to 1, with its name and a note."""
    share = min(1.0, max(0.0, float(value)))
    image = Image.new("RGB", (_WIDTH, _BAR), (30, 30, 30))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, round(share * (_WIDTH - 1)), _BAR - 1), fill=(40, 110, 60))
    pen.text((4, 2), f"{name} {share:.2f}{note}", fill=(255, 255, 255))
    return np.asarray(image)


def _severity(batch: Any, n: int) -> str:
    level = float(batch.severity.flatten()[n])
    return "" if level < 0 else f"   severity {level:.1f}"


def _labels(batch: Any) -> list[list[list[float]]]:
    """Labelled boxes of each frame; an empty list for a batch without labels."""
    if not hasattr(batch, "boxes"):
        return []
    boxes, ids = batch.boxes.flatten(0, 1).cpu(), batch.ids.flatten(0, 1).cpu()
    return [b[i >= 0].tolist() for b, i in zip(boxes, ids, strict=True)]


def _sorted_box(box: list[float], factor: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (v * factor for v in box)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _scaled(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to the width of a column, with the aspect ratio of `size` (height, width)."""
    target = (_WIDTH, round(size[0] * _WIDTH / size[1]))
    return np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.NEAREST))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
