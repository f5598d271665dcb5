"""A step on as many slots as are needed: it costs by the slot, and most slots are free.

A newborn takes the first free slot, so tracks lie in the first slots. A state with fewer slots is
the start of the whole state, and slots never move. Free slots have no influence on others. So a
step on fewer slots gives the tracks of a step on all, as long as no newborn needs a slot beyond.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from model.track.frames import FrameResult
from model.track.tracks import TrackState

_SIZES = (16, 32, 100)
_OF_STREAMS = ("next_id", "quality")

Step = Callable[[TrackState], tuple[FrameResult, TrackState]]
"""Tracks one frame of each stream, on the slots of the state."""


def slot_counts(slots: int) -> tuple[int, ...]:
    """Numbers of slots that a tracker of so many slots steps on, ascending; the last is all."""
    return (*(size for size in _SIZES if size < slots), slots)


def with_slots(state: TrackState, slots: int) -> TrackState:
    """Return the state with another number of slots; those that are cut off have to be free."""
    batch, now, dim = state.content.shape
    own = {name: x for name, x in state.tensors().items() if name not in _OF_STREAMS}
    if slots <= now:
        return replace(state, **{name: x[:, :slots] for name, x in own.items()})
    more = TrackState.empty(
        batch, slots - now, dim, state.logits.shape[2], state.content.device
    ).tensors()
    return replace(state, **{name: torch.cat([x, more[name]], 1) for name, x in own.items()})


def step_on_few_slots(
    step: Step, state: TrackState, counts: Sequence[int]
) -> tuple[FrameResult, TrackState]:
    """Step on the least of some numbers of slots that holds all tracks, newborns included.

    Reads the state on the host if there is a choice. Result and next state have as many slots as
    were stepped on.

    Args:
        step: of one frame of B streams. It is called again with more slots if some could be
            missing.
        state: of the streams, with any of these numbers of slots.
        counts: numbers of slots, ascending; the last holds all tracks.
    """
    if len(counts) == 1:  # nothing is to be chosen, and a state on a GPU cannot be read here
        return step(with_slots(state, counts[0]))
    active = state.active.numpy()
    live = active.sum(1)
    taken = np.flatnonzero(active.any(0))
    last = int(taken[-1]) if len(taken) else -1
    for count in counts[:-1]:
        if count <= last or count <= live.max():
            continue
        result, after = step(with_slots(state, count))
        born = (after.next_id - state.next_id).numpy()
        # With one slot left over, each newborn had the slot that it would have among all.
        if (live + born < count).all():
            return result, after
    return step(with_slots(state, counts[-1]))
