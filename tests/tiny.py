"""A student small enough for tests: the real code, few channels, a tiny canvas."""

import torch

from model.net.config import ModelConfig
from model.track.tracker import Tracker

TINY = ModelConfig(
    size="tiny",
    backbone="tf_efficientnet_lite0",
    input_height=64,
    input_width=96,
    dim=32,
    heads=4,
    points=2,
    decoder_layers=2,
    feedforward=32,
    semantic_dim=16,
    detection_queries=12,
    slots=10,
)


def tiny_tracker(seed: int = 0, *, lively: bool = False) -> Tracker:
    """A tracker with random weights; a lively one starts and keeps tracks on anything."""
    torch.manual_seed(seed)
    tracker = Tracker(TINY).eval()
    if lively:
        # Random heads say "background" everywhere; this makes scores spread around a half.
        torch.nn.init.constant_(tracker.head.classify.bias, 0.0)
        torch.nn.init.normal_(tracker.head.classify.weight, std=0.5)
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
