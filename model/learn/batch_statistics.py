"""Batch normalisation by the statistics of the whole batch, over all workers.

`torch.nn.SyncBatchNorm` does the same, but on GPUs alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.communicator import Communicator
from model.track.tracker import Tracker

MOMENTUM = 0.02
"""Share of a step's statistics in the running ones; small, because batches are small."""


class BatchStatistics(nn.Module):
    """Replacement of a `BatchNorm2d`, with its weights, buffers and their names.

    In training mode it normalises by the batch of all workers and moves the running statistics
    towards it. In eval mode it normalises by the running statistics. It is no subclass of
    `BatchNorm2d`, because `Tracker.train` keeps those in eval mode.

    Args:
        norm: the module to replace; its tensors are shared.
        communicator: of this worker with the others.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d, communicator: Communicator) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.register_buffer("num_batches_tracked", norm.num_batches_tracked)
        self._communicator = communicator

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, h, w), padding included."""
        if self.training and self._communicator.world > 1:
            return self._shared(x)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            MOMENTUM,
            self.eps,
        )

    def _shared(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
            count = mean.new_tensor([x.numel() / x.shape[1]])
            parts = self._communicator.gather(torch.cat([count, mean, variance])[None])
            counts, means, variances = parts.split([1, len(mean), len(mean)], 1)
            total = counts.sum()
            share = counts / total
            mean = (share * means).sum(0)
            variance = (share * (variances + (means - mean).square())).sum(0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, MOMENTUM)
                self.running_var.lerp_(variance * (total / (total - 1)), MOMENTUM)
            scale = self.weight * (variance + self.eps).rsqrt()
            shift = self.bias - mean * scale
            return (x.float() * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def use_batch_statistics(tracker: Tracker, communicator: Communicator) -> list[BatchStatistics]:
    """Make the trained layers of a tracker normalise by the batch in training mode.

    The backbone and frozen layers keep the statistics that came with their weights.

    Returns:
        the new modules.
    """
    made = []
    for path, parent in list(tracker.named_modules()):
        if path.split(".")[0] == "backbone":
            continue
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and child.weight.requires_grad:
                made.append(BatchStatistics(child, communicator))
                setattr(parent, name, made[-1])
    return made
