"""The roofline of a call: the least time that the card's peaks allow for its operations.

An operation takes at least its FLOPs over the rate of a matrix product, and at least the bytes of
its inputs and outputs over the rate of a copy (Williams et al., "Roofline", CACM 2009). Both peaks
are measured on the same card in the same run. Operations count one by one, as they are run today:
fewer, fused ones would move fewer bytes.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_RUNS = 8
_BYTES = {"cuda": 1 << 30, "cpu": 1 << 24}
_SIDE = {"cuda": 8192, "cpu": 512}


@dataclass(frozen=True, slots=True)
class Peaks:
    """What a device does at best.

    Attributes:
        flops: FLOP/s of a large matrix product of random numbers, by name of the type.
        bytes: Bytes a second of a copy, read and written ones.
    """

    flops: dict[str, float]
    bytes: float


@dataclass(slots=True)
class Work:
    """What one call does.

    Attributes:
        flops: Of convolutions and matrix products, by type; an addition and a multiplication are
            two.
        bytes: Of inputs and outputs of all operations.
        operations: Type, FLOPs and bytes of each operation.
    """

    flops: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    bytes: int = 0
    operations: list[tuple[str, int, int]] = field(default_factory=list)

    def least_seconds(self, peaks: Peaks) -> float:
        """Sum over the operations of what the peaks allow."""
        return sum(
            max(flops / peaks.flops.get(name, peaks.flops["float32"]), moved / peaks.bytes)
            for name, flops, moved in self.operations
        )


def measured_peaks(device: torch.device, tf32: bool) -> Peaks:
    """Measure a matrix product in float32 and in bfloat16, and a copy.

    Args:
        device: What is measured.
        tf32: Whether products in float32 may be rounded to TF32.
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    side = _SIDE[device.type]
    flops = {}
    for number in (torch.float32, torch.bfloat16):
        product = partial(torch.matmul, *torch.randn(2, side, side, device=device).to(number))
        name = str(number).removeprefix("torch.")
        flops[name] = 2 * side**3 / _seconds(product, device)
    source = torch.randint(0, 256, (_BYTES[device.type],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() / _seconds(lambda: target.copy_(source), device)
    return Peaks(flops, moved)


@torch.no_grad()
def work_of(call: Callable[[], Any]) -> Work:
    """Count what a call does; it is run once, operation by operation."""
    with _Counter() as counter:
        call()
    return counter.work


class _Counter(TorchDispatchMode):
    """Counts each operation that reads or writes memory."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.is_view:
            return out
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        moved = sum(x.numel() * x.element_size() for x in tensors)
        count = flop_registry.get(func._overloadpacket)
        flops = int(count(*args, **kwargs, out_val=out)) if count else 0
        number = str(tensors[0].dtype).removeprefix("torch.") if tensors else "float32"
        self.work.flops[number] += flops
        self.work.bytes += moved
        self.work.operations.append((number, flops, moved))
        return out


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a call, after one to warm up."""
    taken = []
    for _ in range(_RUNS + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return median(taken[1:])
