"""The student on one screen: encode frames without state, step tracks through them.

Shapes: N frames, B streams, M slots, K detection queries, Q = M + K, D width.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from model.net.attention import Maps, Rows
from model.net.backbone import EARLY_STRIDE, Backbone
from model.net.config import STRIDES, ModelConfig
from model.net.consensus import consensus
from model.net.decoder import Decoder, DecoderOutput, Queries, zeroed
from model.net.encoder import Encoder
from model.net.fusion import SemanticFusion, SemanticGate
from model.net.geometry import canvas_sides, inverse_sigmoid, to_corners
from model.net.padding import map_masks, masked, padded, valid_positions
from model.net.proposals import DenseDetections, DenseHead, Proposals
from model.net.quality import FrameQuality, frame_statistics
from model.net.semantic import SemanticProjection, SemanticStudent
from model.track.checkpoint import (
    CheckpointError,
    CheckpointMetadata,
    pretrained_weights,
    read_checkpoint,
)
from model.track.frames import (
    Decoded,
    EncodedFrames,
    Features,
    FrameResult,
    Percept,
    TrackableFrames,
    TrackableWindow,
)
from model.track.query_memory import QueryMemory
from model.track.rules import TrackRules
from model.track.slots import slot_counts, step_on_few_slots
from model.track.tracks import TrackState, Transition, lifecycle, updated_velocity
from model.track.transport import Transport

_PRIOR = 2.0  # greatest absolute logit that a track brings into a frame


class Tracker(nn.Module):
    """backbone -> encoder -> (semantics, quality) -> fusion -> detections -> tracks -> memory.

    Names of modules are those of the tensors in weights files.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        self.backbone = Backbone(c.backbone)
        early, *channels = self.backbone.channels
        self.encoder = Encoder(channels, c.dim, c.heads, c.encoder_layers, c.feedforward)
        self.semantics = SemanticStudent(c.dim, c.semantic_dim)
        self.quality = FrameQuality(early)
        self.gate = SemanticGate(c.dim)
        self.fusion = SemanticFusion(c.dim, c.semantic_dim, len(STRIDES))
        self.head = DenseHead(c.dim, len(c.classes), c.detection_queries)
        decoder = (c.dim, c.heads, c.points, len(STRIDES), c.feedforward)
        self.semantic_memory = SemanticProjection(c.dim, c.semantic_dim)
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

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> EncodedFrames:
        """Encode frames; stateless, so frames of a window and of several videos go together.

        Args:
            images: (N, 3, H, W) RGB in 0..255 on the letterbox canvas, see `config.canvas_for`.
            valid: (N, 2) height and width in pixels of the picture on the canvas.
            patches: (N, P, S, S) uint8 from `quality.sample_patches`.
        """
        return self.detect(self.perceive(images, valid, patches))

    def perceive(self, images: Tensor, valid: Tensor, patches: Tensor) -> Percept:
        """Compute what does not depend on the gate; arguments as of `encode`."""
        return self.describe(self.features(images, valid), frame_statistics(patches))

    def features(self, images: Tensor, valid: Tensor) -> Features:
        """Run backbone and encoder; arguments as of `encode`.

        In eval mode maps of a canvas that is smaller than the config's are padded to it. So boxes
        are shares of the config's canvas, and later stages have one shape.
        """
        early, *levels = self.backbone(images)
        visual = self.encoder(levels, map_masks(levels, valid))
        if not self.training:
            canvas = int(images.shape[2]), int(images.shape[3])
            if (whole := self.config.padded_canvas(*canvas)) != canvas:
                visual = padded(visual, *whole)
        return Features(
            early=early,
            early_mask=valid_positions(valid, early.shape[2:], EARLY_STRIDE),
            visual=tuple(visual),
            masks=map_masks(visual, valid),
        )

    def describe(self, features: Features, statistics: Tensor) -> Percept:
        """Judge the quality of N frames and compute their semantics.

        Args:
            features: of the N frames.
            statistics: (N, 5) from `quality.frame_statistics`.
        """
        semantic_map, scene = self.semantics(features.visual[1], features.masks[1])
        return Percept(
            visual=features.visual,
            masks=features.masks,
            semantic_map=semantic_map,
            scene=scene,
            quality=self.quality(features.early, features.early_mask, statistics),
            statistics=statistics,
        )

    def detect(self, percept: Percept) -> EncodedFrames:
        """Fuse semantics as the gate decides, and detect people in each frame alone."""
        p = percept
        fused, semantic, weight = self.fuse(p)
        dense, proposals = self.head(fused, p.masks)
        maps = masked(fused, p.masks)
        detections, seen, people = self.find(dense, proposals, maps, semantic, p.quality)
        return EncodedFrames(
            maps=maps,
            visual=p.visual[1],
            semantic=semantic,
            semantic_map=p.semantic_map,
            scene=p.scene,
            detections=detections,
            seen=seen,
            people=people,
            dense=dense,
            quality=p.quality,
            frame_weight=weight,
            statistics=p.statistics,
        )

    def fuse(self, percept: Percept) -> tuple[list[Tensor], Tensor, Tensor]:
        """Fused maps, not yet masked, semantics for the decoders, and semantic weights (N,)."""
        p = percept
        weight = self.gate(p.quality)
        fused = self.fusion(p.visual, p.semantic_map, weight)
        return fused, self.semantic_memory(p.semantic_map, p.scene), weight

    def find(
        self,
        dense: DenseDetections,
        proposals: Proposals,
        maps: Maps,
        semantic: Tensor | Rows,
        quality: Tensor,
    ) -> tuple[DecoderOutput, Tensor, DecoderOutput]:
        """Decode detection queries: `detections`, `seen` and `people` of `EncodedFrames`.

        Args:
            dense, proposals: from the dense head.
            maps: fused maps, zero on padding.
            semantic: semantics as the decoders read them.
            quality: (N,).
        """
        queries = Queries(
            proposals.content,
            proposals.boxes,
            proposals.logits,
            torch.ones_like(proposals.logits[..., 0], dtype=torch.bool),
            self.gate(quality, proposals.content),
        )
        detections = self.detection_decoder(queries, maps, semantic)
        height, width = (side * STRIDES[0] for side in maps[0].shape[2:])
        logits, seen = consensus(detections, dense, (height, width))
        embedding = detections.embedding
        whole = (inverse_sigmoid(seen) + self.whole(embedding).float()).sigmoid()
        return detections, seen, DecoderOutput(logits[None], whole[None], embedding)

    def decode(self, encoded: TrackableFrames, state: TrackState) -> Decoded:
        """Decode the track queries of each stream in its new frame.

        Args:
            encoded: B frames, one a stream.
            state: of the same B streams.
        """
        past = self.config.quality_smoothing
        smooth = torch.lerp(encoded.quality, state.quality, past)
        smooth = torch.where(state.quality < 0, encoded.quality, smooth)
        found = encoded.people
        moved = self.transport(state, found)
        content = state.content.to(found.embedding.dtype)
        weight = self.gate(smooth, content)
        queries = Queries(content, moved.boxes, moved.logits, state.active, weight)
        tracks = self.track_decoder(queries, encoded.maps, encoded.semantic, found)
        newborn = self.gate(smooth, found.embedding)
        # Unanswered, a track query would drift to a neighbour, who has a track already.
        answered = state.active & moved.answered
        return Decoded(
            transported=moved,
            tracks=tracks,
            # The detection that answers a track is better than what the track's query makes of it:
            # its box lies better, and its score tells better whether somebody is there.
            logits=torch.cat([moved.found, found.logits[-1]], 1),
            boxes=torch.cat([moved.boxes, found.boxes[-1]], 1),
            embedding=torch.cat([tracks.embedding, found.embedding], 1),
            standing=torch.cat([answered.to(moved.newness.dtype), moved.newness], 1),
            semantic_weight=torch.cat([weight, newborn], 1),
            quality=smooth,
        )

    def advance(self, state: TrackState, transition: Transition, decoded: Decoded) -> TrackState:
        """Return the state for the next frame.

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
        # Bounded, so that the logits of an old track go down as fast as those of a new one.
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

    def step(
        self, encoded: TrackableFrames, state: TrackState, rules: TrackRules | None = None
    ) -> tuple[FrameResult, TrackState]:
        """Track one frame of each stream.

        Args:
            encoded: B frames, one a stream.
            state: of the same B streams.
            rules: thresholds of births and ends; None takes those of the config.
        """
        decoded = self.decode(encoded, state)
        scores, labels = decoded.logits.sigmoid().max(-1)
        scores = scores * decoded.standing
        height, width = (side * STRIDES[0] for side in encoded.maps[0].shape[2:])
        boxes = to_corners(decoded.boxes) * canvas_sides(height, width, scores.device)
        transition = lifecycle(state, scores, boxes, rules or TrackRules.of(self.config))
        source = transition.source
        result = FrameResult(
            track_id=torch.where(transition.visible, transition.track_id, -1),
            boxes=_take(boxes, source),
            scores=scores.gather(1, source),
            labels=labels.gather(1, source),
            semantic_weight=decoded.semantic_weight.gather(1, source),
            frame_weight=self.gate(decoded.quality),
            detections_boxes=boxes,
            detections_scores=scores,
            detections_labels=labels,
        )
        return result, self.advance(state, transition, decoded)

    def track(
        self,
        encoded: TrackableWindow,
        state: TrackState,
        rules: TrackRules | None = None,
        carried: Sequence[int] | None = None,
    ) -> tuple[list[FrameResult], TrackState]:
        """Track a window of N frames of one stream, one after the other.

        Args:
            encoded: the frames.
            state: of the stream before them.
            rules: as of `step`.
            carried: N, frames before each one that were not encoded because they showed nothing
                new; None if there were none.

        Returns:
            A result for each frame, and the next state. On a CPU their slots may be fewer than
            those of the config, see `step_on_few_slots`.
        """
        # On a GPU the tracks would have to be counted on the host, which takes longer.
        on_cpu = state.content.device.type == "cpu"
        counts = slot_counts(self.config.slots) if on_cpu else (self.config.slots,)
        tolerance = (rules or TrackRules.of(self.config)).miss_tolerance
        results = []
        for index in range(len(encoded)):
            if carried is not None and carried[index]:
                state = state.aged(carried[index], tolerance)
            step = partial(self.step, encoded[index : index + 1], rules=rules)
            result, state = step_on_few_slots(step, state, counts)
            results.append(result)
        return results, state


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, Q, d) at index (B, M): (B, M, d)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
