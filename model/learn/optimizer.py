"""The optimizer: Muon for the matrices of hidden layers, AdamW for everything else.

Muon makes the momentum of a matrix orthogonal and takes a step along it (Jordan et al., "Muon: an
optimizer for hidden layers in neural networks", 2024). The step is scaled to the usual size of a
step of AdamW, so that both use one learning rate (Liu et al., "Muon is scalable for LLM training",
2025).

`torch.optim.Muon` is not used: it takes only two-dimensional weights, updates them one after the
other, and needs to wait for the device to skip a step. A test compares its steps with those here.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the polynomial that moves singular values towards 1
_ITERATIONS = 5
_MOMENTUM = 0.95  # Nesterov momentum
_ADAMW_RMS = 0.2  # usual root mean square of a step of AdamW, in units of the learning rate
_LEAST_SIDE = 32  # smaller matrices are trained by AdamW


def suits_muon(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is the matrix of a hidden layer: linear, or a 1x1 convolution.

    Depthwise kernels are no matrices. Layers that make logits use AdamW, as the authors of Muon
    advise.

    Args:
        name: name in the model.
        parameter: a weight of any shape; only (out, in) and (out, in, 1, 1) are matrices.
    """
    if parameter.ndim < 2 or parameter.numel() != parameter.shape[0] * parameter.shape[1]:
        return False
    return min(parameter.shape[:2]) >= _LEAST_SIDE and "classify" not in name


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups with `muon` set, fused AdamW for the others.

    A step is skipped if the attribute `found_inf`, a scalar tensor, is 1. The state has `exp_avg`
    of every parameter, and `exp_avg_sq` and `step` of parameters that AdamW trains.

    Args:
        groups: groups of parameters, each with a key `muon`. Groups with `muon` True may hold only
            parameters that `suits_muon`.
        lr: learning rate.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        # AdamW expects its settings in each group.
        adamw = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=lr, fused=True)
        super().__init__(groups, {**adamw.defaults, "muon": False})
        self._adamw = adamw

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step; parameters without a gradient are left out."""
        found_inf = getattr(self, "found_inf", None)
        # Loading a state replaces groups and state, so AdamW gets them at each step.
        self._adamw.param_groups = [g for g in self.param_groups if not g["muon"]]
        self._adamw.state = self.state
        self._adamw.found_inf = found_inf  # type: ignore[attr-defined]
        self._adamw.step()
        for group in self.param_groups:
            if not group["muon"]:
                continue
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape[:2]
                    by_shape.setdefault((rows, columns), []).append(parameter)
            # Matrices of one shape are stacked, because few large products are faster.
            for parameters in by_shape.values():
                self._orthogonal_step(parameters, group, found_inf)

    def _orthogonal_step(
        self, parameters: list[nn.Parameter], group: dict[str, Any], found_inf: Tensor | None
    ) -> None:
        """Take a step of Muon for matrices of one shape."""
        directions = []
        for parameter in parameters:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None
            if found_inf is not None:
                gradient = torch.where(found_inf > 0, torch.zeros_like(gradient), gradient)
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(parameter)
            average = state["exp_avg"].lerp_(gradient, 1 - _MOMENTUM)
            directions.append(gradient.lerp(average, _MOMENTUM).flatten(1))
        rows, columns = directions[0].shape
        rate = group["lr"] * (1.0 if found_inf is None else 1 - found_inf)
        length = rate * _ADAMW_RMS * max(rows, columns) ** 0.5
        steps = orthogonal(torch.stack(directions))
        for parameter, direction in zip(parameters, steps, strict=True):
            parameter.mul_(1 - rate * group["weight_decay"])
            parameter.sub_(length * direction.view(parameter.shape))


def orthogonal(matrices: Tensor) -> Tensor:
    """Approximate orthogonal factors of matrices (N, rows, columns).

    Five Newton-Schulz iterations bring the singular values to between 0.7 and 1.2, which is enough.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrices else x.mT
