"""A student small enough for tests: the real code, few channels, a tiny canvas."""

import torch

from model.track.tracker import Tracker
from pipeline.speed.tiny import TINY, find_anything


def tiny_tracker(seed: int = 0, *, lively: bool = False) -> Tracker:
    """A tracker with random weights; a lively one starts and keeps tracks on anything."""
    torch.manual_seed(seed)
    tracker = Tracker(TINY).eval()
    if lively:
        find_anything(tracker)
        for layer in (tracker.transport.key, tracker.transport.relation[-1]):
            torch.nn.init.normal_(layer.weight, std=0.1)
        torch.nn.init.normal_(tracker.whole[-1].weight, std=0.2)
        for decoder in (tracker.detection_decoder, tracker.track_decoder):
            for classify, regress in zip(decoder.classify, decoder.regress, strict=True):
                torch.nn.init.normal_(classify.weight, std=0.3)
                torch.nn.init.normal_(regress[-1].weight, std=0.2)
    return tracker


def tiny_inputs(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, valid sizes and patches of random frames, as `Tracker.encode` takes them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (frames, 3, TINY.input_height, TINY.input_width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    images[:, :, :, 80:] = 0
    patches = torch.randint(0, 256, (frames, 8, 64, 64), dtype=torch.uint8, generator=generator)
    return images, torch.tensor([[64, 80]] * frames), patches
