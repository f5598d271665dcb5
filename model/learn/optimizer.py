"""The optimizer: Muon for the matrices of hidden layers, AdamW for everything else.

Muon takes a step along the momentum of a matrix, made orthogonal (Jordan et al., "Muon: an
optimizer for hidden layers in neural networks", 2024). The step is scaled to the size of AdamW's,
so that one learning rate serves both (Liu et al., "Muon is scalable for LLM training", 2025).
`torch.optim.Muon` takes two-dimensional weights alone, one after the other, and cannot skip a step
without a wait for the device; a test holds the steps of both equal.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the polynomial that pulls singular values to 1
_ITERATIONS = 5
_MOMENTUM = 0.95  # share of the past, with Nesterov's correction
_ADAMW_RMS = 0.2  # usual root mean square of a step of AdamW, in learning rates
_LEAST_SIDE = 32


def suits_muon(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is the matrix of a hidden layer: linear, or a 1x1 convolution.

    Depthwise kernels are no matrices. Layers that make logits stay with AdamW, as the authors of
    Muon advise.

    Args:
        name: in the model.
        parameter: (out, in) or (out, in, 1, 1) if it suits.
    """
    if parameter.ndim < 2 or parameter.numel() != parameter.shape[0] * parameter.shape[1]:
        return False
    return min(parameter.shape[:2]) >= _LEAST_SIDE and "classify" not in name


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups with `muon` set, fused AdamW for the others.

    A step is skipped where the attribute `found_inf`, a scalar tensor, is 1. State is `exp_avg` of
    every parameter, and AdamW's `exp_avg_sq` and `step` of those that it trains.

    Args:
        groups: of parameters. Each has `muon`; those that are True hold what `suits_muon` allows.
        lr: learning rate.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        # Groups get AdamW's settings, which it looks for.
        adamw = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=lr, fused=True)
        super().__init__(groups, {**adamw.defaults, "muon": False})
        self._adamw = adamw

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients that are there."""
        spoilt = getattr(self, "found_inf", None)
        # Loading a state replaces groups and state, so they are handed over at each step.
        self._adamw.param_groups = [g for g in self.param_groups if not g["muon"]]
        self._adamw.state = self.state
        self._adamw.found_inf = spoilt  # type: ignore[attr-defined]
        self._adamw.step()
        for group in self.param_groups:
            if not group["muon"]:
                continue
            alike: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape[:2]
                    alike.setdefault((rows, columns), []).append(parameter)
            # Matrices of one shape go through the iteration together: few, larger products.
            for parameters in alike.values():
                self._orthogonal_step(parameters, group, spoilt)

    def _orthogonal_step(
        self, parameters: list[nn.Parameter], group: dict[str, Any], spoilt: Tensor | None
    ) -> None:
        """One step of matrices of one shape."""
        directions = []
        for parameter in parameters:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None
            if spoilt is not None:
                gradient = torch.where(spoilt > 0, torch.zeros_like(gradient), gradient)
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(parameter)
            average = state["exp_avg"].lerp_(gradient, 1 - _MOMENTUM)
            directions.append(gradient.lerp(average, _MOMENTUM).flatten(1))
        rows, columns = directions[0].shape
        rate = group["lr"] * (1.0 if spoilt is None else 1 - spoilt)
        length = rate * _ADAMW_RMS * max(rows, columns) ** 0.5
        steps = orthogonal(torch.stack(directions))
        for parameter, direction in zip(parameters, steps, strict=True):
            parameter.mul_(1 - rate * group["weight_decay"])
            parameter.sub_(length * direction.view(parameter.shape))


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly the orthogonal factor of matrices (N, rows, columns): singular values near 1.

    A Newton-Schulz iteration; it leaves singular values between 0.7 and 1.2, which is enough.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrices else x.mT
