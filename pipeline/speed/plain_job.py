"""The Ray job that everybody writes first, to compare ours with.

Ray reads the videos into rows of frames, and one actor runs the same student on them in PyTorch.
All settings are Ray's defaults but for the batch, which is a window of our job: a whole block of
frames would need tens of gigabytes. One actor, because frames of one video have to come to one
tracker in their order.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import ray
import torch

from model.net.quality import sample_patches
from model.track.tracker import Tracker
from pipeline.video.canvas import grey, letterboxed

WINDOW = 8


class Student:
    """The student as a class for `map_batches`."""

    def __init__(self, weights: str) -> None:
        """Load the weights."""
        self.tracker, _ = Tracker.load(weights)
        self.state = self.tracker.initial_state(1)

    @torch.inference_mode()
    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Track the frames of a batch; a row with all boxes of each frame comes back."""
        config = self.tracker.config
        if batch["frame_index"][0] == 0:
            self.state = self.tracker.initial_state(1)
        fitted = [letterboxed(f, config.input_height, config.input_width) for f in batch["frame"]]
        patches = np.stack([sample_patches(grey(frame)) for frame in batch["frame"]])
        encoded = self.tracker.encode(
            torch.stack([image for image, _ in fitted]),
            torch.tensor([size for _, size in fitted]),
            torch.from_numpy(patches),
        )
        results, self.state = self.tracker.track(encoded, self.state)
        return {
            "frame_index": batch["frame_index"],
            "track_id": np.concatenate([r.track_id.numpy() for r in results]),
            "boxes": np.concatenate([r.boxes.numpy() for r in results]),
        }


def plain_job(paths: Sequence[str], weights: str) -> Generator[int]:
    """Track videos on the connected cluster; yields the number of frames of each finished batch."""
    frames = ray.data.read_videos(list(paths))
    tracked = frames.map_batches(
        Student,
        fn_constructor_args=(weights,),
        batch_size=WINDOW,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    for batch in tracked.iter_batches(batch_size=None):
        yield len(batch["frame_index"])
