import torch
from torch import nn

from model.learn.calibrate import calibrate
from tests.model.learn.test_clip_loss import make_batch
from tests.tiny import tiny_tracker


def test_a_new_student_is_measured_once_and_its_backbone_is_left_alone():
    tracker = tiny_tracker().train()
    norms = {n: m for n, m in tracker.named_modules() if isinstance(m, nn.BatchNorm2d)}
    before = {n: m.running_mean.clone() for n, m in norms.items()}
    calibrate(tracker, [make_batch(seed=1), make_batch(seed=2)])
    moved = {n for n, m in norms.items() if not torch.equal(m.running_mean, before[n])}
    assert any(n.startswith("encoder.") for n in moved) and any(
        n.startswith("head.") for n in moved
    )
    assert not any(n.startswith("backbone.") for n in moved)
    assert not any(m.training for m in norms.values())
