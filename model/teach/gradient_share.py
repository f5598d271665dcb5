"""A loss whose share of the gradient is held, whatever its scale."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

_FORGET = 0.9  # of the gradient norms from one step to the next
_WEIGHT_RANGE = (1e-4, 1e4)


class GradientShare(nn.Module):
    """The weight of a loss against the task, set so that it has a share of the gradient.

    The share is taken on one activation that both reach. It is
    `weight |own| / (weight |own| + |task|)`, with norms averaged over steps.

    Args:
        share: wanted share, in (0, 1).

    Attributes:
        weight: of the next step.
        norms: (2,) squared norms on the activation, averaged over steps: the task's, its own.
    """

    weight: Tensor
    norms: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("weight", torch.ones(()))
        self.register_buffer("norms", torch.zeros(2))
        self._own_gradient: Tensor | None = None
        self._total_gradient: Tensor | None = None

    def weighted(self, loss: Tensor, shared: Tensor) -> Tensor:
        """The loss times its weight; call `after_backward` after the backward pass.

        Args:
            loss: before weighting.
            shared: the activation on which the share is taken. The gradient from the loss to it is
                computed once more.
        """
        self._own_gradient = self._total_gradient = None
        if shared.requires_grad:
            (self._own_gradient,) = torch.autograd.grad(loss, shared, retain_graph=True)
            shared.register_hook(self._keep_total)
        return self.weight * loss

    def _keep_total(self, gradient: Tensor) -> None:
        self._total_gradient = gradient.detach()

    @torch.no_grad()
    def after_backward(self, mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Measure distillation's share of this step's gradient, and adjust the weight.

        Args:
            mean: averages a tensor over all workers. Their gradients are of different frames,
                so the ratio of the mean squared norms is that of the whole batch.

        Returns:
            `distill_share` of this step and `distill_weight` of the next.
        """
        if self._own_gradient is None or self._total_gradient is None:
            return {}
        own, total = self._own_gradient.float(), self._total_gradient.float()
        self._own_gradient = self._total_gradient = None
        task = total - self.weight * own
        now = mean(torch.stack([task.square().sum(), own.square().sum()]))
        ours, others = self.weight * now[1].sqrt(), now[0].sqrt()
        share = ours / (ours + others).clamp(min=1e-20)
        keep = _FORGET * (self.norms.sum() > 0)
        self.norms.copy_(keep * self.norms + (1 - keep) * now)
        ratio = (self.norms[0] / self.norms[1].clamp(min=1e-20)).sqrt()
        wanted = ratio * self.share / (1 - self.share)
        self.weight.copy_(wanted.clamp(*_WEIGHT_RANGE))
        return {"distill_share": share, "distill_weight": self.weight.clone()}
