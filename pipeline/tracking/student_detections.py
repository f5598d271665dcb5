"""What a student detects in single pictures: by its decoder, and by its dense head alone.

Needs no more than training does, so that a training can score itself where nothing else is.
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
from model.track.tracker import Memory, Tracker
from pipeline.datasets.picture_boxes import Found
from pipeline.video.canvas import grey, letterboxed

_NMS_IOU = 0.65  # of the foreign detectors too
_CANDIDATES = 1000  # best positions that suppression looks at


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture as a student takes it.

    Attributes:
        image: (3, H, W) uint8 on the canvas.
        valid: height and width in pixels of the picture on the canvas.
        patches: (P, S, S) uint8 of the picture's luma.
        box: the way back.
    """

    image: Tensor
    valid: list[int]
    patches: Tensor
    box: Letterbox


def prepare(pixels: np.ndarray[Any, Any], config: ModelConfig) -> Prepared:
    """A picture (h, w, 3) uint8 RGB on the canvas of a student."""
    box = Letterbox(pixels.shape[0], pixels.shape[1], config.input_height, config.input_width)
    image, valid = letterboxed(pixels, config.input_height, config.input_width)
    patches = torch.from_numpy(sample_patches(grey(pixels)))
    return Prepared(image, valid, patches, box)


@torch.inference_mode()
def encode(
    tracker: Tracker, pictures: Sequence[Prepared], device: torch.device | str = "cpu"
) -> Memory:
    """The memory of several pictures, in one batch; the tracker is taken in the mode it is in."""
    images = torch.stack([p.image for p in pictures])
    valid = torch.tensor([p.valid for p in pictures])
    patches = torch.stack([p.patches for p in pictures])
    return tracker.encode(images.to(device), valid.to(device), patches.to(device))


def decoder_detections(
    memory: Memory, pictures: Sequence[Prepared], whole: Sequence[bool] | None = None
) -> list[Found]:
    """What the last decoder layer says: every query, without any suppression.

    Args:
        memory: of the pictures.
        pictures: as they were encoded.
        whole: for each, whether boxes are asked for of whole people, as ground truth of sequences
            has them, or of what is seen of them, as stills have; None: seen in all.
    """
    boxes, scores = _last_layer(memory, pictures[0].box, whole or [False] * len(pictures))
    return [_in_picture(boxes[i], scores[i], picture.box) for i, picture in enumerate(pictures)]


def dense_detections(memory: Memory, pictures: Sequence[Prepared]) -> list[Found]:
    """What the dense head says, duplicates suppressed; at most as many as there are queries."""
    most = memory.detections.logits.shape[2]
    dense = memory.dense
    scores = dense.logits.float().sigmoid().amax(-1).masked_fill(~dense.valid, -1)
    scores, index = scores.topk(min(_CANDIDATES, scores.shape[1]), dim=1)
    boxes = dense.boxes.float().gather(1, index[..., None].expand(-1, -1, 4))
    found = []
    for i, picture in enumerate(pictures):
        kept = nms(boxes[i], scores[i], _NMS_IOU)
        kept = kept[scores[i, kept] >= 0][:most]
        found.append(_in_picture(boxes[i, kept], scores[i, kept], picture.box))
    return found


def _last_layer(memory: Memory, box: Letterbox, whole: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Corners (N, K, 4) in canvas pixels and scores (N, K): all that is read of the decoder."""
    found = memory.detections
    scores = found.logits[-1].float().sigmoid().amax(-1)
    asked = torch.tensor(whole, device=scores.device)[:, None, None]
    boxes = torch.where(asked, memory.whole, found.boxes[-1]).float()
    width, height = box.input_width, box.input_height
    return to_corners(boxes) * scores.new_tensor([width, height] * 2), scores


def _in_picture(corners: Tensor, scores: Tensor, box: Letterbox) -> Found:
    """Back into the picture and clipped to it; what lies outside is dropped."""
    source = box.to_source(corners.cpu().numpy().astype(np.float64))
    xywh = np.concatenate([source[:, :2], source[:, 2:] - source[:, :2]], axis=1)
    solid = (xywh[:, 2:] > 0).all(axis=1)
    return Found(xywh[solid], scores.cpu().numpy().astype(np.float64)[solid])
