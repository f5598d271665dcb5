"""Measures the statistics of batch normalisation once, for a new student.

They stay fixed while scale and shift are trained. Statistics of a batch would not do for clips:
clips in a batch are few, their frames are alike, and each worker has other clips, so training
would differ from inference and two workers from one. For wide batches of single frames there is
`batch_statistics`.
"""

from collections.abc import Iterable

import torch
from torch import nn

from model.learn.clip_batch import ClipBatch
from model.learn.frame_loss import FrameBatch
from model.track.tracker import Tracker


@torch.no_grad()
def calibrate(tracker: Tracker, batches: Iterable[ClipBatch | FrameBatch]) -> None:
    """Measure the statistics of a new student's normalisations on its first batches.

    A data-dependent start, as in Salimans & Kingma, "Weight normalization", NeurIPS 2016. The
    backbone keeps the statistics that came with its weights.
    """
    fresh = [
        module
        for name, module in tracker.named_modules()
        if isinstance(module, nn.BatchNorm2d) and not name.startswith("backbone.")
    ]
    momenta = [norm.momentum for norm in fresh]
    for norm in fresh:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    for batch in batches:
        tracker.encode(
            batch.images.flatten(0, -4), batch.valid.flatten(0, -2), batch.patches.flatten(0, -4)
        )
    for norm, momentum in zip(fresh, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
