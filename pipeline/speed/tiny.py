"""A student with few channels and a tiny canvas: the real code at a hundredth of the work."""

from torch import nn

from model.net.config import ModelConfig
from model.track.tracker import Tracker

TINY = ModelConfig(
    size="tiny",
    input_height=64,
    input_width=96,
    dim=32,
    heads=4,
    points=2,
    decoder_layers=2,
    track_layers=2,
    feedforward=32,
    semantic_dim=16,
    detection_queries=12,
    slots=10,
)


def find_anything(tracker: Tracker) -> None:
    """Give the dense head random weights by which it finds something on every frame.

    As it is made, it says "background" everywhere; then its scores spread around a half.
    """
    classify = tracker.head.classify
    assert isinstance(classify.bias, nn.Parameter)
    nn.init.constant_(classify.bias, 0.0)
    nn.init.normal_(classify.weight, std=0.5)
