"""Batches out of an endless, seeded stream of items, shared between workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


def batches(
    stream: Stream,
    batch: int,
    first_step: int,
    steps: int,
    loaders: int,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Any]:
    """Yield this worker's part of the batches of steps `first_step` to `steps`, in order.

    Args:
        stream: what is trained on.
        batch: items a step, over all workers.
        first_step, steps: the first step, and the one after the last.
        loaders: processes that prepare them; 0 does it in this one.
        rank, world: this worker's number, and how many there are.
    """
    order = [list(share(step, batch, rank, world)) for step in range(first_step, steps)]
    yield from DataLoader(
        stream.items,
        batch_sampler=order,
        num_workers=loaders,
        collate_fn=stream.collate,
    )
