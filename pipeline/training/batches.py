"""Batches of an endless, seeded stream of items, divided among workers."""

from collections.abc import Callable, Iterator, Sequence
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


def share(step: int, sizes: Sequence[int], rank: int, world: int) -> range:
    """Indices of the items of one worker in a step.

    A step of the largest size n has items step * n to (step + 1) * n, a smaller one the first of
    these. They are divided into equal parts by rank.

    Args:
        step: number of the step.
        sizes: items in a step, over all workers; steps have these sizes in turn.
        rank: number of this worker.
        world: number of workers.

    Raises:
        ValueError: the step cannot be divided into equal parts.
    """
    size = sizes[step % len(sizes)]
    if size % world:
        raise ValueError(
            f"a batch of {size} cannot be divided into equal parts for {world} workers; "
            "give a training.batch (and singles.batch) that is a multiple of the number of workers"
        )
    part = size // world
    first = step * max(sizes) + rank * part
    return range(first, first + part)


def shares(
    sizes: Sequence[int], first_step: int, steps: int, rank: int = 0, world: int = 1
) -> Iterator[range]:
    """Yield `share` of each step from `first_step` on.

    Args:
        sizes: see `share`.
        first_step: the first step.
        steps: the step after the last one; 0 for no end.
        rank: number of this worker.
        world: number of workers.
    """
    for step in range(first_step, steps) if steps else count(first_step):
        yield share(step, sizes, rank, world)


def batches(
    stream: Stream,
    sizes: Sequence[int],
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
        sizes, first_step, steps, rank, world: see `shares`.
        loaders: processes that make the batches; 0 makes them in this process.
        pin: put batches into pinned memory, from which a GPU copies while it computes.
    """
    yield from DataLoader(
        stream.items,
        batch_sampler=shares(sizes, first_step, steps, rank, world),  # type: ignore[arg-type]
        num_workers=loaders,
        collate_fn=stream.collate,
        pin_memory=pin,
    )
