"""The limit of training speed: the loader, launches of kernels, memory bandwidth or arithmetic.

Four times are measured: of a step with its loader, of a step on a batch that is on the device
already, of a step on half of that batch, and of a large matrix product. The part of a step that
does not become shorter with half a batch is the fixed cost of launches and of the host. If that
part is small, a step is limited by arithmetic if its FLOP/s are near those of the matrix product,
and by memory bandwidth if they are much lower.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.learn.training import Trainer

_STEPS = 20
_WARM = 3
_LOADER = 0.1  # share of waiting from which the loader is the limit
_LAUNCHES = 0.5  # fixed share of a step from which launches are the limit
_ARITHMETIC = 0.4  # share of the rate of a matrix product from which arithmetic is the limit


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Times of a step without a loader.

    Attributes:
        whole: seconds of a step on a batch that is on the device.
        half: seconds of a step on half of this batch.
        achieved: FLOP/s of the step, of convolutions and matrix products alone.
        product: FLOP/s of a large matrix product on the device.
    """

    whole: float
    half: float
    achieved: float
    product: float

    @property
    def fixed(self) -> float:
        """Share of a step that does not depend on the number of its frames."""
        return min(1.0, max(0.0, 2 * self.half / self.whole - 1))


def measure_step(
    trainer: Trainer, items: list[Any], collate: Callable[[list[Any]], Any], seconds: float
) -> StepTimes:
    """Measure steps on a batch that is on the device. This changes the trainer.

    Args:
        trainer: at the end of its training, with its weights written.
        items: items of one batch, at least two.
        collate: makes a batch of items.
        seconds: time for the measurement, approximate.
    """
    whole = collate(items).to(trainer.device)
    part = collate(items[: len(items) // 2]).to(trainer.device)
    of_whole = _seconds(trainer, whole, seconds / 2)
    of_half = _seconds(trainer, part, seconds / 2) * (len(items) / (2 * (len(items) // 2)))
    achieved = _operations(trainer, whole) / of_whole
    return StepTimes(of_whole, of_half, achieved, _product_rate(trainer.device))


def limit(waiting: float, times: StepTimes | None) -> str:
    """Name the limit of the training speed, with the figures that show it.

    Args:
        waiting: share of the time that was spent waiting for data.
        times: times of steps without a loader; None if they were not measured.
    """
    if waiting > _LOADER:
        return f"loader: {waiting:.0%} of the time was spent waiting for data"
    if times is None:
        return f"not the loader: only {waiting:.0%} of the time was spent waiting for data"
    reached = times.achieved / times.product
    known = (
        f"{waiting:.0%} of the time waiting for data; {times.fixed:.0%} of a step does not depend "
        f"on its frames; {reached:.0%} of the rate of a matrix product"
    )
    if times.fixed > _LAUNCHES:
        return f"launches: {known}"
    return f"{'arithmetic' if reached > _ARITHMETIC else 'memory bandwidth'}: {known}"


def _seconds(trainer: Trainer, batch: Any, budget: float) -> float:
    """Median seconds of a step, after a few steps to warm up."""
    taken: list[float] = []
    for progress in trainer.run(repeat(batch)):
        taken.append(progress.seconds)
        if len(taken) >= _WARM + _STEPS or (len(taken) > 1 and sum(taken) > budget):
            break
    return median(taken[_WARM:] or taken[-1:])


@torch.no_grad()
def _operations(trainer: Trainer, batch: Any) -> float:
    """FLOPs of a step: those of the forward pass, and twice as many for the backward pass.

    They are not counted in the backward pass, because the counter ignores groups of convolutions
    there.
    """
    with FlopCounterMode(display=False) as counter:
        trainer.objective(trainer.tracker, batch)
    return 3.0 * counter.get_total_flops()


def _product_rate(device: torch.device) -> float:
    """FLOP/s of a large matrix product, in the number type of training on the device."""
    cuda = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if cuda else (512, torch.float32)
    a = torch.randn(size, size, dtype=dtype, device=device)
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return 2 * size**3 / median(taken)
