"""Detections of a student in single pictures, by its decoder and by its dense head alone.

The module needs no library beyond those of a training, so a training can score itself.
Shapes: N pictures, K detection queries, S positions of the dense head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from model.net.config import ModelConfig
from model.net.geometry import to_corners
from model.net.letterbox import Letterbox
from model.net.quality import sample_patches
from model.track.frames import EncodedFrames, Percept
from model.track.tracker import Tracker
from pipeline.datasets.picture_boxes import Found
from pipeline.video.canvas import grey, letterboxed

_NMS_IOU = 0.65  # as for the detectors of other projects
_CANDIDATES = 1000  # positions with the best scores, the input of suppression


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture as input of a student.

    Attributes:
        image: (3, H, W) uint8 on a canvas.
        valid: height and width in pixels of the picture on the canvas.
        patches: (P, S, S) uint8 of the picture's luma.
        box: map from the config's canvas to the picture; boxes are shares of that canvas.
    """

    image: Tensor
    valid: list[int]
    patches: Tensor
    box: Letterbox


def prepare(
    pixels: np.ndarray[Any, Any], config: ModelConfig, canvas: tuple[int, int] | None = None
) -> Prepared:
    """A picture (h, w, 3) uint8 RGB as input of a student.

    Args:
        pixels: the picture.
        config: of the student.
        canvas: height and width of the canvas, from `config.canvas_for`; None is the config's.
    """
    box = Letterbox(pixels.shape[0], pixels.shape[1], config.input_height, config.input_width)
    image, valid = letterboxed(pixels, *(canvas or (config.input_height, config.input_width)))
    patches = torch.from_numpy(sample_patches(grey(pixels)))
    return Prepared(image, valid, patches, box)


@torch.inference_mode()
def encode(
    tracker: Tracker, pictures: Sequence[Prepared], device: torch.device | str = "cpu"
) -> EncodedFrames:
    """Encode several pictures as one batch; the mode of the tracker (train or eval) stays."""
    return tracker.detect(perceive(tracker, pictures, device))


@torch.inference_mode()
def perceive(
    tracker: Tracker, pictures: Sequence[Prepared], device: torch.device | str = "cpu"
) -> Percept:
    """Compute what does not depend on the gate, for pictures of one canvas as one batch."""
    images = torch.stack([p.image for p in pictures])
    valid = torch.tensor([p.valid for p in pictures])
    patches = torch.stack([p.patches for p in pictures])
    return tracker.perceive(images.to(device), valid.to(device), patches.to(device))


def student_detections(
    encoded: EncodedFrames, pictures: Sequence[Prepared], whole: Sequence[bool] | None = None
) -> list[Found]:
    """Detections by queries and dense head: all queries, without suppression of duplicates.

    Args:
        encoded: the encoded pictures.
        pictures: the same pictures, in the same order.
        whole: for each picture, True for boxes of whole people, as in the ground truth of
            sequences, False for boxes of their visible parts, as in stills; None is False for all.
    """
    boxes, scores = _detections(encoded, pictures[0].box, whole or [False] * len(pictures))
    return [_in_picture(boxes[i], scores[i], picture.box) for i, picture in enumerate(pictures)]


def dense_detections(encoded: EncodedFrames, pictures: Sequence[Prepared]) -> list[Found]:
    """Detections of the dense head after NMS, at most as many as the decoder has queries."""
    most = encoded.seen.shape[1]
    dense = encoded.dense
    scores = dense.logits.float().sigmoid().amax(-1).masked_fill(~dense.valid, -1)
    scores, index = scores.topk(min(_CANDIDATES, scores.shape[1]), dim=1)
    boxes = dense.boxes.float().gather(1, index[..., None].expand(-1, -1, 4))
    found = []
    for i, picture in enumerate(pictures):
        kept = nms(boxes[i], scores[i], _NMS_IOU)
        kept = kept[scores[i, kept] >= 0][:most]
        found.append(_in_picture(boxes[i, kept], scores[i, kept], picture.box))
    return found


def _detections(
    encoded: EncodedFrames, box: Letterbox, whole: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Corners (N, K, 4) in canvas pixels and scores (N, K) of the detections."""
    found = encoded.people
    scores = found.logits[-1].float().sigmoid().amax(-1)
    asked = torch.tensor(whole, device=scores.device)[:, None, None]
    boxes = torch.where(asked, found.boxes[-1], encoded.seen).float()
    width, height = box.input_width, box.input_height
    return to_corners(boxes) * scores.new_tensor([width, height] * 2), scores


def _in_picture(corners: Tensor, scores: Tensor, box: Letterbox) -> Found:
    """Map boxes to the picture and clip them; boxes outside of it are dropped."""
    source = box.to_source(corners.cpu().numpy().astype(np.float64))
    xywh = np.concatenate([source[:, :2], source[:, 2:] - source[:, :2]], axis=1)
    solid = (xywh[:, 2:] > 0).all(axis=1)
    return Found(xywh[solid], scores.cpu().numpy().astype(np.float64)[solid])
