"""What a training step waits for: the loader, launches of kernels, bytes or arithmetic.

Read off four times: of a step with its loader; of one on a batch that lies on the device already,
so nothing is loaded; of one on half of this batch; and of a large matrix product. What half a
batch does not halve does not depend on the frames: it is launches and the host. Of the rest, what
reaches far less than a matrix product does moves bytes.
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
_LAUNCHES = 0.5  # share of a step that half a batch does not halve
_ARITHMETIC = 0.4  # share of a matrix product's rate


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What a step takes without a loader.

    Attributes:
        whole, half: seconds on a batch that lies on the device, and on half of it.
        achieved: FLOP/s of the step, convolutions and matrix products alone.
        product: FLOP/s of a matrix product there.
    """

    whole: float
    half: float
    achieved: float
    product: float

    @property
    def fixed(self) -> float:
        """Share of a step that does not depend on how many frames are in it."""
        return min(1.0, max(0.0, 2 * self.half / self.whole - 1))


def measure_step(
    trainer: Trainer, items: list[Any], collate: Callable[[list[Any]], Any], seconds: float
) -> StepTimes:
    """Time steps on a batch that lies on the device; they change the trainer.

    Args:
        trainer: at its end, with its weights written.
        items: of one batch, at least two.
        collate: makes a batch of them.
        seconds: to spend on it, about.
    """
    whole = collate(items).to(trainer.device)
    part = collate(items[: len(items) // 2]).to(trainer.device)
    of_whole = _seconds(trainer, whole, seconds / 2)
    of_half = _seconds(trainer, part, seconds / 2) * (len(items) / (2 * (len(items) // 2)))
    achieved = _operations(trainer, whole) / of_whole
    return StepTimes(of_whole, of_half, achieved, _product_rate(trainer.device))


def limit(waiting: float, times: StepTimes | None) -> str:
    """Name what limits the training, and how we know.

    Args:
        waiting: share of the time that no batch was there.
        times: of steps without a loader; None where there was no time to measure.
    """
    if waiting > _LOADER:
        return f"loader: for {waiting:.0%} of the time no batch was there"
    if times is None:
        return f"not the loader: batches were waited for {waiting:.0%} of the time"
    reached = times.achieved / times.product
    known = (
        f"batches waited for {waiting:.0%} of the time; {times.fixed:.0%} of a step does not "
        f"depend on its frames; {reached:.0%} of the rate of a matrix product"
    )
    if times.fixed > _LAUNCHES:
        return f"launches: {known}"
    return f"{'arithmetic' if reached > _ARITHMETIC else 'bytes'}: {known}"


def _seconds(trainer: Trainer, batch: Any, budget: float) -> float:
    """Median seconds of a step, after some that warm up."""
    taken: list[float] = []
    for progress in trainer.run(repeat(batch)):
        taken.append(progress.seconds)
        if len(taken) >= _WARM + _STEPS or (len(taken) > 1 and sum(taken) > budget):
            break
    return median(taken[_WARM:] or taken[-1:])


@torch.no_grad()
def _operations(trainer: Trainer, batch: Any) -> float:
    """FLOPs of a step: forward, and twice as many backward.

    The counter takes the backward pass of convolutions in groups for one without groups.
    """
    with FlopCounterMode(display=False) as counter:
        trainer.objective(trainer.tracker, batch)
    return 3.0 * counter.get_total_flops()


def _product_rate(device: torch.device) -> float:
    """FLOP/s of a matrix product in the type that training uses there."""
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
