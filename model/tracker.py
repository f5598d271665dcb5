"""The student on one screen: encode frames without state, step tracks through them.

Shapes: N frames, B streams, M slots, K detection queries, Q = M + K, C classes, D width.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from model.backbone import Backbone
from model.config import STRIDES, ModelConfig
from model.decoder import Decoder, DecoderOutput, Queries
from model.encoder import Encoder
from model.fusion import MemoryFusion, SemanticGate
from model.geometry import to_corners
from model.memory import QueryMemory
from model.proposals import DenseDetections, DenseHead, Proposals
from model.quality import FrameQuality, frame_statistics
from model.semantic import SemanticStudent
from model.tracks import TrackState, Transition, lifecycle
from model.transport import Transport

_PRIOR = 2.0  # greatest logit that a track brings into a frame


@dataclass(frozen=True, slots=True)
class Memory:
    """All that tracking needs of N frames; slice it to take some of them.

    Attributes:
        maps: fused memory at strides 8, 16, 32, each (N, D, h_l, w_l).
        semantic: (N, D, h, w) semantics at stride 16, projected for the decoder.
        semantic_map, scene: (N, S, h, w) and (N, S), what distillation compares.
        proposals, dense: detection queries; the dense head's output.
        quality, frame_weight: (N,) quality and semantic weight.
        statistics: (N, 5) in the order of `quality.STATISTICS`.
    """

    maps: tuple[Tensor, ...]
    semantic: Tensor
    semantic_map: Tensor
    scene: Tensor
    proposals: Proposals
    dense: DenseDetections
    quality: Tensor
    frame_weight: Tensor
    statistics: Tensor

    def __len__(self) -> int:
        return len(self.quality)

    def __getitem__(self, index: slice | Tensor) -> "Memory":
        """Take frames by a slice or by an index tensor."""
        proposals = Proposals(*(getattr(self.proposals, f.name)[index] for f in fields(Proposals)))
        dense = replace(
            self.dense,
            logits=self.dense.logits[index],
            boxes=self.dense.boxes[index],
            valid=self.dense.valid[index],
        )
        return Memory(
            tuple(m[index] for m in self.maps),
            self.semantic[index],
            self.semantic_map[index],
            self.scene[index],
            proposals,
            dense,
            self.quality[index],
            self.frame_weight[index],
            self.statistics[index],
        )


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What one frame of B streams says.

    Attributes:
        track_id: (B, M) int64, -1 where the slot shows nothing in this frame.
        boxes: (B, M, 4) corners in canvas pixels. scores: (B, M). labels: (B, M) int64.
        semantic_weight: (B, M); frame_weight: (B,).
        detections_boxes, detections_scores, detections_labels: (B, Q, 4), (B, Q), (B, Q) of all
            live queries before the lifecycle (score 0 in empty slots), for average precision.
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


class Tracker(nn.Module):
    """backbone -> encoder -> (semantics, quality) -> fusion -> decoder -> memory."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        self.backbone = Backbone(c.backbone)
        early, *channels = self.backbone.channels
        self.encoder = Encoder(channels, c.dim, c.heads, c.encoder_layers, c.feedforward)
        self.semantics = SemanticStudent(c.dim, c.semantic_dim)
        self.quality = FrameQuality(early)
        self.gate = SemanticGate(c.dim)
        self.fusion = MemoryFusion(c.dim, c.semantic_dim, len(STRIDES))
        self.head = DenseHead(c.dim, len(c.classes), c.detection_queries)
        self.decoder = Decoder(
            c.dim,
            c.heads,
            c.points,
            len(STRIDES),
            c.feedforward,
            c.decoder_layers,
            len(c.classes),
            c.semantic_dim,
        )
        self.transport = Transport(c.dim)
        self.memory = QueryMemory(c.dim, c.memory_rate)

    def initial_state(self, batch: int) -> TrackState:
        """Return the state of `batch` streams before their first frame."""
        device = self.gate.bias.device
        c = self.config
        return TrackState.empty(batch, c.slots, c.dim, len(c.classes), device)

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> Memory:
        """Encode frames; stateless, so frames of a window and of several videos go together.

        Args:
            images: (N, 3, H, W) RGB in 0..255 on the letterbox canvas.
            valid: (N, 2) height and width in pixels of the picture on the canvas.
            patches: (N, P, S, S) uint8 from `quality.sample_patches`.
        """
        early, *features = self.backbone(images)
        masks = [_valid_mask(valid, f, s) for f, s in zip(features, STRIDES, strict=True)]
        visual = self.encoder(features, masks)
        semantic_map, scene = self.semantics(visual[1], masks[1])
        statistics = frame_statistics(patches)
        quality = self.quality(early, _valid_mask(valid, early, 4), statistics)
        weight = self.gate(quality)
        maps = self.fusion(visual, semantic_map, weight)
        dense, proposals = self.head(maps, masks)
        semantic = self.decoder.project_semantics(semantic_map, scene)
        return Memory(
            tuple(m * k[:, None].to(m.dtype) for m, k in zip(maps, masks, strict=True)),
            semantic,
            semantic_map,
            scene,
            proposals,
            dense,
            quality,
            weight,
            statistics,
        )

    def queries(self, memory: Memory, state: TrackState) -> tuple[Queries, Tensor]:
        """Put track and detection queries together; also return the smoothed quality (B,)."""
        past = self.config.quality_smoothing
        smooth = torch.lerp(memory.quality, state.quality, past)
        smooth = torch.where(state.quality < 0, memory.quality, smooth)
        proposals = memory.proposals
        boxes, prior = self.transport(state.content, state.boxes, state.logits, proposals)
        content = torch.cat([state.content.to(proposals.content.dtype), proposals.content], 1)
        is_track = torch.zeros(content.shape[:2], dtype=torch.bool, device=content.device)
        is_track[:, : state.active.shape[1]] = True
        live = torch.cat(
            [state.active, torch.ones_like(proposals.logits[..., 0], dtype=torch.bool)], 1
        )
        queries = Queries(
            content,
            torch.cat([boxes, proposals.boxes], 1),
            torch.cat([prior, proposals.logits], 1),
            is_track,
            live,
            self.gate(smooth, content),
        )
        return queries, smooth

    def advance(
        self,
        state: TrackState,
        transition: Transition,
        output: DecoderOutput,
        semantic_weight: Tensor,
        quality: Tensor,
    ) -> TrackState:
        """Carry what each slot's query saw into the next frame's state.

        Args:
            state: before the frame.
            transition: what the frame did to the slots.
            output: the decoder's.
            semantic_weight: (B, Q).
            quality: (B,) smoothed.
        """
        t = transition
        embedding = _take(output.embedding.float(), t.source)
        content, long = self.memory(
            embedding,
            state.content,
            state.long,
            t.visible,
            t.born,
            semantic_weight.gather(1, t.source),
        )
        seen = t.visible[..., None]
        boxes = _take(output.boxes[-1].detach(), t.source)
        # Unbounded, the logits of a long seen track would need as long to fade.
        logits = _take(output.logits[-1].detach(), t.source).clamp(-_PRIOR, _PRIOR)
        return TrackState(
            content=content,
            long=long,
            boxes=torch.where(seen, boxes, state.boxes),
            logits=torch.where(seen, logits, state.logits),
            track_id=t.track_id,
            active=t.active,
            misses=t.misses,
            next_id=t.next_id,
            quality=quality.detach(),
        )

    def step(self, memory: Memory, state: TrackState) -> tuple[FrameResult, TrackState]:
        """Track one frame of each stream.

        Args:
            memory: B frames, one a stream.
            state: of the same B streams.
        """
        c = self.config
        queries, quality = self.queries(memory, state)
        output = self.decoder(queries, memory.maps, memory.semantic)
        scores, labels = output.logits[-1].sigmoid().max(-1)
        scores = scores * queries.live
        height, width = (side * STRIDES[0] for side in memory.maps[0].shape[2:])
        size = scores.new_tensor([width, height, width, height])
        boxes = to_corners(output.boxes[-1]) * size
        transition = lifecycle(
            state,
            scores,
            boxes,
            birth_threshold=c.birth_threshold,
            keep_threshold=c.keep_threshold,
            duplicate_iou=c.duplicate_iou,
            miss_tolerance=c.miss_tolerance,
        )
        source = transition.source
        result = FrameResult(
            torch.where(transition.visible, transition.track_id, -1),
            _take(boxes, source),
            scores.gather(1, source),
            labels.gather(1, source),
            queries.semantic_weight.gather(1, source),
            self.gate(quality),
            boxes,
            scores,
            labels,
        )
        return result, self.advance(state, transition, output, queries.semantic_weight, quality)

    def track(self, memory: Memory, state: TrackState) -> tuple[list[FrameResult], TrackState]:
        """Track a window of N consecutive frames of one stream, one after the other."""
        results = []
        for index in range(len(memory)):
            result, state = self.step(memory[index : index + 1], state)
            results.append(result)
        return results, state


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, Q, d) at index (B, M): (B, M, d)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _valid_mask(valid: Tensor, features: Tensor, stride: int) -> Tensor:
    """Positions of a map (N, C, h, w) that see any of the picture of valid (N, 2) pixels."""
    height, width = features.shape[2:]
    rows = torch.arange(height, device=valid.device) * stride < valid[:, :1]
    columns = torch.arange(width, device=valid.device) * stride < valid[:, 1:]
    return rows[:, :, None] & columns[:, None, :]
