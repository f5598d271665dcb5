"""The same tracker with a CLIP ViT-B/32 on every frame, which the student's branch stands for.

The tower runs in the student's runtime, on the student's canvas, after the frames are tracked.
Its weights are random, which does not change its speed. The functions run in a process that keeps
to one core (`one_core`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

from pipeline.inference.graphs import Graph, convert
from pipeline.inference.openvino_core import openvino_core
from pipeline.inference.runtime import PrecisionChoice
from pipeline.speed.readings import Reading
from pipeline.speed.student_path import opened, path_reading
from pipeline.tracking.track_video import TrackSettings
from pipeline.video.info import VideoInfo

TOWER = "ViT-B-32"


def teacher_reading(info: VideoInfo, settings: TrackSettings) -> Reading:
    """Track the first frames of a video, and run the tower once for each of them."""
    canvas = opened(settings).model.config.canvas_for(info.height, info.width)
    in_torch = settings.runtime == "torch"
    tower = _tower_in_torch(*canvas) if in_torch else _tower(*canvas, settings.precision)
    tracked = path_reading(info, settings)
    wall, core = time.perf_counter(), time.process_time()
    for _ in range(tracked.frames):
        tower()
    wall, core = time.perf_counter() - wall, time.process_time() - core
    return Reading(
        tracked.frames,
        tracked.wall_s + wall,
        tracked.core_s + core,
        {"tracker": 1000 * tracked.wall_s / tracked.frames, TOWER: 1000 * wall / tracked.frames},
    )


@lru_cache(maxsize=1)
def _tower_in_torch(height: int, width: int) -> Callable[[], object]:
    """A call of the tower on one grey picture of the canvas."""
    visual, image = _built(height, width), torch.zeros(1, 3, height, width)

    def run() -> None:
        with torch.inference_mode():
            visual(image)

    return run


@lru_cache(maxsize=2)
def _tower(height: int, width: int, precision: PrecisionChoice) -> Callable[[], object]:
    """The same in OpenVINO."""
    image = torch.zeros(1, 3, height, width)
    graph = convert(Graph(_built(height, width), {"image": image}, ("pooled",)))
    options = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "fast" else "f32",
    }
    request = openvino_core().compile_model(graph, "CPU", options).create_infer_request()
    given = [image.numpy()]
    return lambda: request.infer(given)


def _built(height: int, width: int) -> nn.Module:
    import open_clip

    logging.disable(logging.WARNING)  # open_clip warns of random weights; this process ends soon
    size = (height, width)
    model = open_clip.create_model(TOWER, None, force_image_size=size, pretrained_text=False)
    visual: nn.Module = model.visual
    return visual.eval()
