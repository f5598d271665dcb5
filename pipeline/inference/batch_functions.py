"""What a batch is computed by: functions of tensors of fixed shapes, by name.

Shapes: F frames in a batch, B streams that are stepped together; others as in `model.track.frames`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.net.config import STRIDES
from model.net.padding import masked
from model.net.quality import PATCH, PATCHES, STATISTICS
from model.track.frames import FrameResult, Percept, TrackableWindow
from model.track.rules import TrackRules
from model.track.tracks import TrackState
from pipeline.inference.encode_graph import PEOPLE, WindowToTrack, window_to_track
from pipeline.inference.fixed_call import Tensors
from pipeline.inference.precision import Precision, dense_autocast
from pipeline.inference.step_graph import MAPS

if TYPE_CHECKING:
    from model.track.tracker import Tracker

Canvas = tuple[int, int]
"""Height and width in pixels."""
STATE = tuple(field.name for field in fields(TrackState))
RESULT = tuple(field.name for field in fields(FrameResult))
RULES = tuple(field.name for field in fields(TrackRules))


def encode_frames(tracker: Tracker, precision: Precision, given: Tensors) -> Tensors:
    """The student up to its detections, with the dense part in its precision."""
    t, device = tracker, given["valid"].device
    with dense_autocast(precision, device):
        features = t.features(given["images"], given["valid"])
        semantic_map, scene = t.semantics(features.visual[1], features.masks[1])
    quality = t.quality(features.early.float(), features.early_mask, given["statistics"])
    percept = Percept(
        visual=features.visual,
        masks=features.masks,
        semantic_map=semantic_map,
        scene=scene,
        quality=quality,
        statistics=given["statistics"],
    )
    with dense_autocast(precision, device):
        fused, semantic, _ = t.fuse(percept)
        towers = t.head.towers(fused)
    # In this layout the samples of deformable attention need no copies.
    fused = [x.float().contiguous() for x in fused]
    towers = [(classes.float(), boxes.float()) for classes, boxes in towers]
    semantic = semantic.float().contiguous()
    dense, proposals = t.head.read(fused, towers, features.masks)
    maps = masked(fused, features.masks)
    _, _, found = t.find(dense, proposals, maps, semantic, quality)
    people = (found.logits[-1], found.boxes[-1], found.embedding)
    return {
        **dict(zip(MAPS, maps, strict=True)),
        **dict(zip(PEOPLE, people, strict=True)),
        "semantic": semantic,
        "quality": quality,
        "statistics": given["statistics"],
    }


def step_streams(tracker: Tracker, given: Tensors) -> Tensors:
    """One frame of B windows; a state that is not live stays as it is."""
    state = TrackState(**{name: given[f"state_{name}"] for name in STATE})
    rules = TrackRules(**{name: given[f"rule_{name}"] for name in RULES})
    result, after = tracker.step(window_of(given), state, rules)
    live = given["live"]
    kept = {
        f"state_{name}": torch.where(live.view(-1, *[1] * (x.ndim - 1)), x, given[f"state_{name}"])
        for name, x in after.tensors().items()
    }
    return kept | {f"result_{name}": getattr(result, name) for name in RESULT}


def encode_inputs(canvas: Canvas, frames: int, device: torch.device) -> Tensors:
    """Room for F frames of a canvas (height, width)."""
    images = torch.zeros(frames, 3, *canvas, dtype=torch.uint8, device=device)
    patches = torch.zeros(frames, PATCHES, PATCH, PATCH, dtype=torch.uint8, device=device)
    valid = torch.tensor([canvas] * frames, device=device)
    return {
        "images": images.contiguous(memory_format=torch.channels_last),
        "valid": valid,
        "patches": patches,
        "statistics": torch.zeros(frames, len(STATISTICS), device=device),
    }


def step_inputs(tracker: Tracker, canvas: Canvas, rows: int) -> Tensors:
    """Room for one frame of B streams, with maps of a canvas (height, width)."""
    c, device = tracker.config, tracker.gate.bias.device
    zeros = partial(torch.zeros, device=device)
    maps = [zeros(rows, c.dim, canvas[0] // s, canvas[1] // s) for s in STRIDES]
    return {
        **dict(zip(MAPS, maps, strict=True)),
        "semantic": zeros(*maps[1].shape),
        "logits": zeros(rows, c.detection_queries, len(c.classes)),
        "boxes": torch.full((rows, c.detection_queries, 4), 0.5, device=device),
        "embedding": zeros(rows, c.detection_queries, c.dim),
        "quality": zeros(rows),
        "statistics": zeros(rows, len(STATISTICS)),
        "live": zeros(rows, dtype=torch.bool),
        **{f"rule_{name}": _rule(tracker, name, rows) for name in RULES},
        **{f"state_{k}": x for k, x in tracker.initial_state(rows).tensors().items()},
    }


def window_of(outputs: Tensors) -> WindowToTrack:
    """The frames that outputs of `encode_frames`, or inputs of `step_streams`, hold."""
    return window_to_track(outputs, outputs["statistics"])


def fill(inputs: Tensors, frames: Sequence[TrackableWindow]) -> None:
    """Put one frame of each window into the first rows of the step's inputs."""
    parts = [
        {
            **dict(zip(MAPS, frame.maps, strict=True)),
            "semantic": frame.semantic,
            "logits": frame.people.logits[-1],
            "boxes": frame.people.boxes[-1],
            "embedding": frame.people.embedding,
            "quality": frame.quality,
        }
        for frame in frames
    ]
    for name in parts[0]:
        torch.cat([part[name] for part in parts], out=inputs[name][: len(parts)])


def _rule(tracker: Tracker, name: str, rows: int) -> Tensor:
    """The config's value of a rule for each row: (B,)."""
    number = torch.int64 if name == "miss_tolerance" else torch.float32
    value = getattr(tracker.config, name)
    return torch.full((rows,), value, dtype=number, device=tracker.gate.bias.device)
