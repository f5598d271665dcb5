"""Frames in which a crowd comes and goes, and a student with slots for it."""

from dataclasses import dataclass, fields, replace

import torch

from model.net.decoder import DecoderOutput
from model.track.tracker import Tracker
from tests.tiny import TINY, tiny_tracker


@dataclass(frozen=True, slots=True)
class Window:
    """Random frames, with the fields of `TrackableWindow`."""

    maps: tuple[torch.Tensor, ...]
    semantic: torch.Tensor
    people: DecoderOutput
    quality: torch.Tensor
    statistics: torch.Tensor

    def __len__(self):
        return len(self.quality)

    def __getitem__(self, index):
        maps = tuple(m[index] for m in self.maps)
        rest = (getattr(self, f.name)[index] for f in fields(self)[1:])
        return Window(maps, *rest)


def random_window(seed, frames):
    """Frames in which a crowd comes and goes; people stay where they are for a while."""
    generator = torch.Generator().manual_seed(seed)
    c, n = TINY, frames
    k = c.detection_queries
    maps = tuple(torch.randn(n, c.dim, 64 // s, 96 // s, generator=generator) for s in (8, 16, 32))
    # Small boxes far apart, so that at another place a detection is somebody new.
    scale, least = torch.tensor([0.9, 0.9, 0.1, 0.1]), 0.05
    places = torch.rand(1, 1, k, 4, generator=generator) * scale + least
    jumps = torch.rand(n, generator=generator) < 0.3
    moved = torch.rand(1, n, k, 4, generator=generator) * scale + least
    boxes = torch.where(jumps[:, None, None], moved, places.expand(1, n, k, 4))
    logits = torch.randn(1, n, k, 1, generator=generator) * 2
    logits = logits + torch.randn(n, 1, 1, generator=generator) * 2
    return Window(
        maps=maps,
        semantic=torch.randn(n, c.dim, 4, 6, generator=generator),
        people=DecoderOutput(logits, boxes, torch.randn(n, k, c.dim, generator=generator)),
        quality=torch.rand(n, generator=generator),
        statistics=torch.zeros(n, 5),
    )


def large_tracker():
    """A lively student with as many slots as makes three graphs."""
    tracker = tiny_tracker(lively=True)
    config = replace(TINY, slots=40, birth_threshold=0.1, duplicate_iou=0.95, miss_tolerance=12)
    large = Tracker(config).eval()
    large.load_state_dict(tracker.state_dict())
    return large


@torch.inference_mode()
def check_same_tracks(few, all_slots, states):
    """Results of two runs are equal but for the number of slots."""
    for mine, other in zip(few, all_slots, strict=True):
        slots = mine.track_id.shape[1]
        assert torch.equal(mine.track_id, other.track_id[:, :slots])
        assert (other.track_id[:, slots:] == -1).all()
        there = mine.track_id >= 0
        for name in ("boxes", "scores", "semantic_weight"):
            left, right = getattr(mine, name)[there], getattr(other, name)[:, :slots][there]
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            mine.detections_scores[:, slots:],
            other.detections_scores[:, other.track_id.shape[1] :],
            rtol=1e-4,
            atol=1e-4,
        )
    live = states[0].active
    for name in ("content", "long", "boxes", "velocity", "logits"):
        left, right = getattr(states[0], name)[live], getattr(states[1], name)[:, : live.shape[1]]
        torch.testing.assert_close(left, right[live], rtol=1e-3, atol=1e-3)
    assert torch.equal(states[0].next_id, states[1].next_id)


@torch.inference_mode()
def slots_of_run(student, step, window):
    """Track a window on few slots and by `step` on all, compare, return the numbers of slots."""
    few, after = student.track(window, student.initial_state(1))
    state, results = student.initial_state(1), []
    for i in range(len(window)):
        result, state = step(window[i : i + 1], state)
        results.append(result)
    check_same_tracks(few, results, (after, state))
    return {result.track_id.shape[1] for result in few}
