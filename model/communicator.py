"""Communication between the workers of one training; a single worker needs no process group."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_gather


class Communicator:
    """The default process group of `torch.distributed` if it is up, else one worker alone.

    All methods are collective: every worker calls them, in the same order.

    Attributes:
        rank: this worker's number. world: how many there are.
    """

    def __init__(self) -> None:
        several = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if several else 0
        self.world = dist.get_world_size() if several else 1

    def mean(self, value: Tensor) -> Tensor:
        """Average over workers, element by element; without gradient, the argument is kept."""
        if self.world == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.world

    def gather(self, value: Tensor) -> Tensor:
        """Rows (N, …) of all workers, in order of rank: (world * N, …).

        Gradients flow: a mean over all rows, taken on every worker, has after the gradients are
        averaged the gradient it would have on a single one.
        """
        return value if self.world == 1 else torch.cat(all_gather(value.contiguous()))

    def gather_objects(self, value: Any) -> list[Any]:
        """Values of all workers, in order of rank; they must be picklable."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over workers, in one message.

        A parameter without a gradient on any worker keeps none, as with a single worker: with a
        gradient of 0 an optimizer would decay it.
        """
        if self.world == 1:
            return
        pieces = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        given = pieces[0].new_tensor([float(p.grad is not None) for p in parameters])
        flat = self.mean(torch.cat([given, *(piece.flatten() for piece in pieces)]))
        count, start = flat[: len(parameters)].tolist(), len(parameters)
        for parameter, workers in zip(parameters, count, strict=True):
            end = start + parameter.numel()
            if not workers:
                parameter.grad = None
            else:
                # In the memory format of the parameter, which fused optimizers need.
                own = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = own.copy_(flat[start:end].view_as(parameter))
            start = end
