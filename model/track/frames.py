"""What is known of frames, stage by stage: features, percept, encoded frames, queries, result.

Shapes: N frames, B streams, M slots, K detection queries, Q = M + K, L decoder layers, C classes,
D width, S semantic width.
"""

from dataclasses import dataclass, fields
from typing import Protocol

from torch import Tensor

from model.net.decoder import DecoderOutput
from model.net.proposals import DenseDetections
from model.track.transport import Transported


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Feature maps of N frames.

    Attributes:
        early: (N, C, h, w) first features of the backbone, at stride 4.
        early_mask: (N, h, w) bool, False on padding.
        visual: encoder maps at strides 8, 16, 32, each (N, D, h_l, w_l).
        masks: (N, h_l, w_l) bool of the same maps, False on padding.
    """

    early: Tensor
    early_mask: Tensor
    visual: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Percept:
    """All that is known of N frames before the gate weighs their semantics.

    Attributes:
        visual: encoder maps at strides 8, 16, 32, each (N, D, h_l, w_l).
        masks: (N, h_l, w_l) bool of the same maps, False on padding.
        semantic_map, scene: (N, S, h, w) at stride 16 and (N, S).
        quality: (N,) in [0, 1].
        statistics: (N, 5) in the order of `quality.STATISTICS`.
    """

    visual: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    semantic_map: Tensor
    scene: Tensor
    quality: Tensor
    statistics: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFrames:
    """All that tracking needs of N frames; slice it to take some of them.

    Attributes:
        maps: fused maps at strides 8, 16, 32, each (N, D, h_l, w_l), zero on padding.
        visual: (N, D, h, w) at stride 16 before fusion, which the semantic branch starts from.
        semantic: (N, D, h, w) semantics at stride 16 as the decoders read them.
        semantic_map, scene: (N, S, h, w) and (N, S), what distillation compares.
        detections: decoded detection queries, (L, N, K, …), which the loss compares; boxes are of
            what is seen of a person.
        seen: (N, K, 4) centre form in [0, 1], boxes of what is seen, by queries and dense head.
        people: what is tracked: one layer, scores by queries and dense head, boxes of whole people,
            hidden parts included.
        dense: the dense head's output.
        quality, frame_weight: (N,) quality and semantic weight.
        statistics: (N, 5) in the order of `quality.STATISTICS`.
    """

    maps: tuple[Tensor, ...]
    visual: Tensor
    semantic: Tensor
    semantic_map: Tensor
    scene: Tensor
    detections: DecoderOutput
    seen: Tensor
    people: DecoderOutput
    dense: DenseDetections
    quality: Tensor
    frame_weight: Tensor
    statistics: Tensor

    def __len__(self) -> int:
        return len(self.quality)

    def __getitem__(self, index: slice | Tensor) -> "EncodedFrames":
        """Take frames by a slice or by an index tensor."""
        taken = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "maps"}
        return EncodedFrames(maps=tuple(m[index] for m in self.maps), **taken)


class TrackableFrames(Protocol):
    """The part of `EncodedFrames` that a step reads."""

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """Fused maps, as of `EncodedFrames`."""

    @property
    def semantic(self) -> Tensor:
        """Semantics as the decoders read them."""

    @property
    def people(self) -> DecoderOutput:
        """One layer of detections with boxes of whole people."""

    @property
    def quality(self) -> Tensor:
        """(N,)."""


class TrackableWindow(TrackableFrames, Protocol):
    """The part of `EncodedFrames` that tracking a window, and its tables, read."""

    @property
    def statistics(self) -> Tensor:
        """(N, 5)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> "TrackableWindow":
        """Take frames by a slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """All queries of one frame of B streams, track slots first.

    Attributes:
        transported: where the detections say the tracks are.
        tracks: all layers of the track queries, (L, B, M, …).
        logits, boxes, embedding: (B, Q, C), (B, Q, 4) centre form in [0, 1], (B, Q, D). Logits and
            box of a track are those of the detection that answers it.
        standing: (B, Q) in [0, 1], what a query's score is multiplied by. A track has 1 if a
            detection answers it, else 0. An empty slot has 0. A detection has its newness.
        semantic_weight: (B, Q).
        quality: (B,) smoothed over time.
    """

    transported: Transported
    tracks: DecoderOutput
    logits: Tensor
    boxes: Tensor
    embedding: Tensor
    standing: Tensor
    semantic_weight: Tensor
    quality: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """The tracks in one frame of B streams; M may change from frame to frame.

    Attributes:
        track_id: (B, M) int64, -1 where the slot shows nothing in this frame.
        boxes: (B, M, 4) corners in canvas pixels. scores: (B, M). labels: (B, M) int64.
        semantic_weight: (B, M); frame_weight: (B,).
        detections_boxes, detections_scores, detections_labels: (B, Q, 4), (B, Q), (B, Q) of all
            queries before the lifecycle, for average precision. Scores are already multiplied by
            `Decoded.standing`.
    """

    track_id: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    semantic_weight: Tensor
    frame_weight: Tensor
    detections_boxes: Tensor
    detections_scores: Tensor
    detections_labels: Tensor
