"""Size of a student and its operations, which no clock is needed for."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.net.quality import PATCH, PATCHES
from model.track.tracker import Tracker


def count_parameters(tracker: Tracker) -> dict[str, float]:
    """Millions of parameters by module, and their total."""
    counts = {
        name: sum(p.numel() for p in module.parameters()) / 1e6
        for name, module in tracker.named_children()
    }
    return counts | {"total": sum(p.numel() for p in tracker.parameters()) / 1e6}


@torch.no_grad()
def count_gflops(tracker: Tracker) -> dict[str, float]:
    """GFLOPs a frame of encoding and stepping.

    Convolutions and matrix products count, as is usual; elementwise operations and the samples of
    deformable attention do not. All slots count, so all frames cost the same.
    """
    config, device = tracker.config, tracker.gate.bias.device
    height, width = config.input_height, config.input_width
    inputs = (
        torch.zeros((1, 3, height, width), dtype=torch.uint8, device=device),
        torch.tensor([[height, width]], device=device),
        torch.zeros((1, PATCHES, PATCH, PATCH), dtype=torch.uint8, device=device),
    )
    with FlopCounterMode(display=False) as encoding:
        encoded = tracker.encode(*inputs)
    state = tracker.initial_state(1)
    with FlopCounterMode(display=False) as stepping:
        tracker.step(encoded, state)
    encode, step = (counter.get_total_flops() / 1e9 for counter in (encoding, stepping))
    return {"encode": encode, "step": step, "total": encode + step}
