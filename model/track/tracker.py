"""The student on one screen: encode frames without state, step tracks through them.

Shapes: N frames, B streams, M slots, K detection queries, Q = M + K, C classes, D width,
S semantic width.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from model.net.backbone import Backbone
from model.net.config import STRIDES, ModelConfig
from model.net.decoder import Decoder, DecoderOutput, Queries, zeroed
from model.net.encoder import Encoder
from model.net.fusion import MemoryFusion, SemanticGate
from model.net.geometry import inverse_sigmoid, to_corners
from model.net.proposals import DenseDetections, DenseHead
from model.net.quality import FrameQuality, frame_statistics
from model.net.semantic import SemanticMemory, SemanticStudent
from model.track.checkpoint import (
    CheckpointError,
    CheckpointMetadata,
    pretrained_weights,
    read_checkpoint,
)
from model.track.query_memory import QueryMemory
from model.track.tracks import TrackState, Transition, lifecycle, updated_velocity
from model.track.transport import Transport, Transported

_PRIOR = 2.0  # greatest logit that a track brings into a frame


@dataclass(frozen=True, slots=True)
class Memory:
    """All that tracking needs of N frames; slice it to take some of them.

    Attributes:
        maps: fused memory at strides 8, 16, 32, each (N, D, h_l, w_l).
        visual: (N, D, h, w) at stride 16 before fusion, from which the semantic branch leaves.
        semantic: (N, D, h, w) semantics at stride 16 as the decoders read them.
        semantic_map, scene: (N, S, h, w) and (N, S), what distillation compares.
        detections: decoded detection queries, (L, N, K, …); their boxes are of what is seen.
        whole: (N, K, 4) centre form in [0, 1], boxes of whole people, also where hidden.
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
    whole: Tensor
    dense: DenseDetections
    quality: Tensor
    frame_weight: Tensor
    statistics: Tensor

    @property
    def people(self) -> DecoderOutput:
        """The last layer of the detections, with boxes of whole people: what is tracked."""
        seen = self.detections
        return DecoderOutput(seen.logits[-1:], self.whole[None], seen.embedding)

    def __len__(self) -> int:
        return len(self.quality)

    def __getitem__(self, index: slice | Tensor) -> "Memory":
        """Take frames by a slice or by an index tensor."""
        taken = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "maps"}
        return Memory(
            maps=tuple(m[index] for m in self.maps), **{k: v[index] for k, v in taken.items()}
        )


@dataclass(frozen=True, slots=True)
class Description:
    """What is said of N frames apart from who is in them.

    Attributes:
        semantic_map, scene: (N, S, h, w) at stride 16 and (N, S).
        quality: (N,).
        statistics: (N, 5) in the order of `quality.STATISTICS`.
    """

    semantic_map: Tensor
    scene: Tensor
    quality: Tensor
    statistics: Tensor


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What one frame of B streams says.

    Attributes:
        track_id: (B, M) int64, -1 where the slot shows nothing in this frame.
        boxes: (B, M, 4) corners in canvas pixels. scores: (B, M). labels: (B, M) int64.
        semantic_weight: (B, M); frame_weight: (B,).
        detections_boxes, detections_scores, detections_labels: (B, Q, 4), (B, Q), (B, Q) of all
            queries before the lifecycle, for average precision; 0 in empty slots and for tracks
            that no detection answers, and for detections by how far they are nobody's yet.
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


@dataclass(frozen=True, slots=True)
class Decoded:
    """All queries of one frame of B streams, track slots first.

    Attributes:
        transported: where the detections say the tracks are.
        tracks: all layers of the track queries, (L, B, M, …).
        logits, boxes, embedding: (B, Q, C), (B, Q, 4) centre form in [0, 1], (B, Q, D).
        standing: (B, Q) in [0, 1], how far a query may speak: 1 for tracks that a detection
            answers, 0 for those that none does and empty slots; for detections how far they are
            nobody's.
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


class Tracker(nn.Module):
    """backbone -> encoder -> (semantics, quality) -> fusion -> detections -> tracks -> memory."""

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
        decoder = (c.dim, c.heads, c.points, len(STRIDES), c.feedforward)
        self.semantic_memory = SemanticMemory(c.dim, c.semantic_dim)
        self.detection_decoder = Decoder(*decoder, c.decoder_layers, len(c.classes))
        self.whole = nn.Sequential(nn.Linear(c.dim, c.dim), nn.ReLU(), zeroed(nn.Linear(c.dim, 4)))
        self.track_decoder = Decoder(*decoder, c.track_layers, len(c.classes))
        self.transport = Transport(c.dim)
        self.memory = QueryMemory(c.dim, c.memory_rate)

    @classmethod
    def from_pretrained(
        cls, weights: str | Path = "nano", device: torch.device | str = "cpu"
    ) -> Self:
        """Build a tracker with its weights, in eval mode.

        Args:
            weights: name of weights that ship with the code, or path of a file.
            device: where it is to run.

        Raises:
            CheckpointError: there are no such weights, or they cannot be used.
        """
        return cls.load(pretrained_weights(weights), device)[0]

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device | str = "cpu"
    ) -> tuple[Self, CheckpointMetadata]:
        """Build the tracker a file describes and fill it, in eval mode.

        Raises:
            CheckpointError: the file is missing, damaged, of another format or of other shapes.
        """
        metadata, tensors = read_checkpoint(path)
        tracker = cls(metadata.model)
        try:
            tracker.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: its tensors do not fit the model it describes ({error}); "
                "it was written by another version of the code, so train or fetch it again"
            ) from error
        return tracker.to(device).eval(), metadata

    def train(self, mode: bool = True) -> "Tracker":
        """Switch mode, but keep batch normalisation on its running statistics; see `norms`."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

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
        quality, statistics = self._assess(early, valid, patches)
        masks = [_valid_mask(valid, f, s) for f, s in zip(features, STRIDES, strict=True)]
        visual = self.encoder(features, masks)
        semantic_map, scene = self.semantics(visual[1], masks[1])
        weight = self.gate(quality)
        maps = self.fusion(visual, semantic_map, weight)
        semantic = self.semantic_memory(semantic_map, scene)
        dense, proposals = self.head(maps, masks)
        maps = tuple(m * k[:, None].to(m.dtype) for m, k in zip(maps, masks, strict=True))
        queries = Queries(
            proposals.content,
            proposals.boxes,
            proposals.logits,
            torch.ones_like(proposals.logits[..., 0], dtype=torch.bool),
            self.gate(quality, proposals.content),
        )
        detections = self.detection_decoder(queries, maps, semantic)
        return Memory(
            maps,
            visual[1],
            semantic,
            semantic_map,
            scene,
            detections,
            self._whole(detections),
            dense,
            quality,
            weight,
            statistics,
        )

    def describe(self, images: Tensor, valid: Tensor, patches: Tensor) -> Description:
        """What is said of frames apart from who is in them; arguments as of `encode`.

        Backbone and encoder get no gradient: what describes a frame is trained alone here.
        """
        with torch.no_grad():
            early, *features = self.backbone(images)
            masks = [_valid_mask(valid, f, s) for f, s in zip(features, STRIDES, strict=True)]
            visual = self.encoder(features, masks)
        quality, statistics = self._assess(early, valid, patches)
        semantic_map, scene = self.semantics(visual[1], masks[1])
        return Description(semantic_map, scene, quality, statistics)

    def _whole(self, detections: DecoderOutput) -> Tensor:
        """Boxes (N, K, 4) of whole people, from those of what is seen of them."""
        seen = inverse_sigmoid(detections.boxes[-1].detach())
        return (seen + self.whole(detections.embedding).float()).sigmoid()

    def _assess(self, early: Tensor, valid: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        statistics = frame_statistics(patches)
        return self.quality(early, _valid_mask(valid, early, 4), statistics), statistics

    def decode(self, memory: Memory, state: TrackState) -> Decoded:
        """Find the tracks of each stream in its new frame, before anything is decided.

        Args:
            memory: B frames, one a stream.
            state: of the same B streams.
        """
        past = self.config.quality_smoothing
        smooth = torch.lerp(memory.quality, state.quality, past)
        smooth = torch.where(state.quality < 0, memory.quality, smooth)
        found = memory.people
        moved = self.transport(state, found)
        content = state.content.to(found.embedding.dtype)
        weight = self.gate(smooth, content)
        queries = Queries(content, moved.boxes, moved.logits, state.active, weight)
        tracks = self.track_decoder(queries, memory.maps, memory.semantic, found)
        newborn = self.gate(smooth, found.embedding)
        return Decoded(
            moved,
            tracks,
            torch.cat([tracks.logits[-1], found.logits[-1]], 1),
            torch.cat([tracks.boxes[-1], found.boxes[-1]], 1),
            torch.cat([tracks.embedding, found.embedding], 1),
            # A track that looks around for itself finds somebody near, who has a track already.
            torch.cat([(state.active & moved.answered).to(moved.newness.dtype), moved.newness], 1),
            torch.cat([weight, newborn], 1),
            smooth,
        )

    def advance(self, state: TrackState, transition: Transition, decoded: Decoded) -> TrackState:
        """Carry what each slot's query saw into the next frame's state.

        Args:
            state: before the frame.
            transition: what the frame did to the slots.
            decoded: the frame's queries.
        """
        t = transition
        content, long = self.memory(
            _take(decoded.embedding.float(), t.source),
            state.content,
            state.long,
            t.visible,
            t.born,
            decoded.semantic_weight.gather(1, t.source),
        )
        seen = t.visible[..., None]
        boxes = _take(decoded.boxes.detach(), t.source)
        # Unbounded, the logits of a long seen track would need as long to fade.
        logits = _take(decoded.logits.detach(), t.source).clamp(-_PRIOR, _PRIOR)
        return TrackState(
            content=content,
            long=long,
            boxes=torch.where(seen, boxes, state.boxes),
            velocity=updated_velocity(state, boxes, t.visible, t.born, self.config.velocity_rate),
            logits=torch.where(seen, logits, state.logits),
            track_id=t.track_id,
            active=t.active,
            misses=t.misses,
            next_id=t.next_id,
            quality=decoded.quality.detach(),
        )

    def step(self, memory: Memory, state: TrackState) -> tuple[FrameResult, TrackState]:
        """Track one frame of each stream.

        Args:
            memory: B frames, one a stream.
            state: of the same B streams.
        """
        c = self.config
        decoded = self.decode(memory, state)
        scores, labels = decoded.logits.sigmoid().max(-1)
        scores = scores * decoded.standing
        height, width = (side * STRIDES[0] for side in memory.maps[0].shape[2:])
        size = scores.new_tensor([width, height, width, height])
        boxes = to_corners(decoded.boxes) * size
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
            decoded.semantic_weight.gather(1, source),
            self.gate(decoded.quality),
            boxes,
            scores,
            labels,
        )
        return result, self.advance(state, transition, decoded)

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
