"""Batches out of an endless, seeded stream of items, shared between workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True, slots=True)
class Stream:
    """What is trained on.

    Attributes:
        items: item `index` is a function of the index alone; can be pickled.
        collate: makes a batch of items: something with `valid`, `names` and `to(device)`.
    """

    items: Dataset[Any]
    collate: Callable[[list[Any]], Any]


def share(step: int, batch: int, rank: int, world: int) -> range:
    """Indices of a worker's part of a step, which is made of items step * batch to + batch.

    Raises:
        ValueError: the batch cannot be shared in equal parts.
    """
    if batch % world:
        raise ValueError(
            f"a batch of {batch} cannot be shared by {world} workers in equal parts; "
            "take a batch that is a multiple of their number"
        )
    part = batch // world
    first = step * batch + rank * part
    return range(first, first + part)


def shares(
    batch: int, first_step: int, steps: int, rank: int = 0, world: int = 1
) -> Iterator[range]:
    """Yield `share` of each step from `first_step` on.

    Args:
        batch: items a step, over all workers.
        first_step, steps: the first step, and the one after the last; 0 for no end.
        rank, world: this worker's number, and how many there are.
    """
    for step in range(first_step, steps) if steps else count(first_step):
        yield share(step, batch, rank, world)


def batches(
    stream: Stream,
    batch: int,
    first_step: int,
    steps: int,
    loaders: int,
    rank: int = 0,
    world: int = 1,
    *,
    pin: bool = False,
) -> Iterator[Any]:
    """Yield this worker's part of the batches of the steps from `first_step` on, in order.

    Args:
        stream: what is trained on.
        batch, first_step, steps, rank, world: see `shares`.
        loaders: processes that prepare them; 0 does it in this one.
        pin: into memory that a GPU copies from while it computes.
    """
    yield from DataLoader(
        stream.items,
        batch_sampler=shares(batch, first_step, steps, rank, world),  # type: ignore[arg-type]
        num_workers=loaders,
        collate_fn=stream.collate,
        pin_memory=pin,
    )
