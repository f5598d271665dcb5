"""Encoding as two graphs: the dense part, then the head with the detection decoder.

They are apart, because the dense part may run in bf16, which costs the others accuracy. They take
one frame. Shapes are those of `model.track.frames` with N = 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.net.attention import Rows
from model.net.config import STRIDES
from model.net.decoder import DecoderOutput
from model.net.padding import masked, valid_positions
from model.net.quality import STATISTICS
from pipeline.inference.graphs import Graph
from pipeline.inference.step_graph import MAPS, empty_maps

if TYPE_CHECKING:
    from model.track.tracker import Tracker

BETWEEN = tuple(f"{part}_{stride}" for part in ("fused", "class", "box") for stride in STRIDES)
"""Outputs of the dense part that only the head reads: fused maps, and towers of class and box.

The channels of towers come last, as OpenVINO has them within its graphs, so that they are not
transposed. Those of fused maps do where the graph is made so.
"""
PEOPLE = ("logits", "boxes", "embedding")
"""The last layer of the detections, with boxes of whole people; frames come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowToTrack:
    """The part of `EncodedFrames` that tracking and its tables read."""

    maps: tuple[Tensor, ...]
    semantic: Tensor
    people: DecoderOutput
    quality: Tensor
    statistics: Tensor

    def __len__(self) -> int:
        return len(self.quality)

    def __getitem__(self, index: slice) -> WindowToTrack:
        """Take frames by a slice."""
        return WindowToTrack(
            maps=tuple(m[index] for m in self.maps),
            semantic=self.semantic[index],
            people=self.people[index],
            quality=self.quality[index],
            statistics=self.statistics[index],
        )


class _Dense(nn.Module):
    """Backbone, encoder, semantics, quality, fusion, and the towers of the dense head."""

    inputs = ("image", "valid", "statistics")
    outputs = (*BETWEEN, "semantic", "quality")

    def __init__(self, tracker: Tracker, channels_last: bool) -> None:
        super().__init__()
        self.tracker, self.channels_last = tracker, channels_last

    def forward(self, image: Tensor, valid: Tensor, statistics: Tensor) -> tuple[Tensor, ...]:
        """Take the image (1, H, W, 3), colours last, as decoded pictures lie in memory."""
        features = self.tracker.features(image.permute(0, 3, 1, 2), valid)
        percept = self.tracker.describe(features, statistics)
        fused, semantic, _ = self.tracker.fuse(percept)
        classes, boxes = zip(*self.tracker.head.towers(fused), strict=True)
        towers = (x.permute(0, 2, 3, 1) for x in (*classes, *boxes))
        if self.channels_last:
            *fused, semantic = (x.permute(0, 2, 3, 1) for x in (*fused, semantic))
        return (*fused, *towers, semantic, percept.quality)


class _Detect(nn.Module):
    """The dense head behind its towers, and the detection decoder."""

    inputs = (*BETWEEN, "semantic", "quality", "valid")
    outputs = (*MAPS, *PEOPLE)

    def __init__(self, tracker: Tracker, channels_last: bool) -> None:
        super().__init__()
        self.tracker, self.channels_last = tracker, channels_last

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take the inputs by their order, return the outputs in theirs."""
        levels = len(STRIDES)
        fused = tensors[:levels]
        if self.channels_last:
            fused = tuple(x.permute(0, 3, 1, 2) for x in fused)
        towers = [x.permute(0, 3, 1, 2) for x in tensors[levels : 3 * levels]]
        semantic, quality, valid = tensors[3 * levels :]
        masks = tuple(
            valid_positions(valid, level.shape[2:], stride)
            for level, stride in zip(fused, STRIDES, strict=True)
        )
        pairs = list(zip(towers[:levels], towers[levels:], strict=True))
        dense, proposals = self.tracker.head.read(fused, pairs, masks)
        if self.channels_last:
            maps = tuple(
                level * mask[..., None].to(level.dtype)
                for level, mask in zip(tensors[:levels], masks, strict=True)
            )
            rows = [Rows(x) for x in maps]
            found = self.tracker.find(dense, proposals, rows, Rows(semantic), quality)
        else:
            maps = masked(fused, masks)
            found = self.tracker.find(dense, proposals, maps, semantic, quality)
        people = found[-1]
        return (*maps, people.logits[-1], people.boxes[-1], people.embedding)


def dense_graph(tracker: Tracker, height: int, width: int, channels_last: bool = False) -> Graph:
    """The dense part for a canvas, of a tracker on the CPU in eval mode.

    Args:
        tracker: the student.
        height, width: of the canvas.
        channels_last: of fused maps and semantics, which OpenVINO then does not transpose.
    """
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    valid = torch.tensor([[height, width]])
    example = (image, valid, torch.zeros(1, len(STATISTICS)))
    module = _Dense(tracker, channels_last)
    return Graph(module, dict(zip(_Dense.inputs, example, strict=True)), _Dense.outputs)


def detect_graph(tracker: Tracker, height: int, width: int, channels_last: bool = False) -> Graph:
    """Head and detection decoder, arguments as of `dense_graph`, for a padded canvas."""
    maps = empty_maps(tracker.config, height, width)
    last = tuple(x.permute(0, 2, 3, 1) for x in maps)
    maps = last if channels_last else maps
    example = (*maps, *last, *last, maps[1], torch.zeros(1), torch.tensor([[height, width]]))
    module = _Detect(tracker, channels_last)
    return Graph(module, dict(zip(_Detect.inputs, example, strict=True)), _Detect.outputs)


def window_to_track(outputs: Mapping[str, Tensor], statistics: Tensor) -> WindowToTrack:
    """A window from named tensors, each (N, …): the maps, the people, "semantic" and "quality"."""
    logits, boxes, embedding = (outputs[name] for name in PEOPLE)
    return WindowToTrack(
        maps=tuple(outputs[name] for name in MAPS),
        semantic=outputs["semantic"],
        people=DecoderOutput(logits[None], boxes[None], embedding),
        quality=outputs["quality"],
        statistics=statistics,
    )
