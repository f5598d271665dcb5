"""Batches of an endless, seeded stream of items, divided among workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True, slots=True)
class Stream:
    """The items to train on, and how to make batches of them.

    Attributes:
        items: item `index` depends on the index alone; can be pickled.
        collate: makes a batch of items, with `valid`, `names` and `to(device)`.
    """

    items: Dataset[Any]
    collate: Callable[[list[Any]], Any]


def share(step: int, batch: int, rank: int, world: int) -> range:
    """Indices of the items of one worker in a step.

    A step consists of items step * batch to (step + 1) * batch, in equal parts by rank.

    Raises:
        ValueError: the batch cannot be divided into equal parts.
    """
    if batch % world:
        raise ValueError(
            f"a batch of {batch} cannot be divided into equal parts for {world} workers; "
            "give a batch that is a multiple of the number of workers"
        )
    part = batch // world
    first = step * batch + rank * part
    return range(first, first + part)


def shares(
    batch: int, first_step: int, steps: int, rank: int = 0, world: int = 1
) -> Iterator[range]:
    """Yield `share` of each step from `first_step` on.

    Args:
        batch: items in a step, over all workers.
        first_step: the first step.
        steps: the step after the last one; 0 for no end.
        rank: number of this worker.
        world: number of workers.
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
    """Yield the batches of one worker, of the steps from `first_step` on, in order.

    Args:
        stream: the items to train on.
        batch, first_step, steps, rank, world: see `shares`.
        loaders: processes that make the batches; 0 makes them in this process.
        pin: put batches into pinned memory, from which a GPU copies while it computes.
    """
    yield from DataLoader(
        stream.items,
        batch_sampler=shares(batch, first_step, steps, rank, world),  # type: ignore[arg-type]
        num_workers=loaders,
        collate_fn=stream.collate,
        pin_memory=pin,
    )
