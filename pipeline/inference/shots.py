"""Windows of frames in which new shots begin: no track goes on from one shot to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from model.track.frames import FrameResult, TrackableWindow
from model.track.rules import TrackRules
from model.track.tracks import TrackState
from pipeline.inference.runtime import Runtime


def track_shots(
    model: Runtime,
    encoded: TrackableWindow,
    cuts: Sequence[bool],
    state: TrackState,
    rules: TrackRules | None = None,
    carried: Sequence[int] | None = None,
) -> tuple[list[FrameResult], TrackState]:
    """Track a window of frames of one stream; before each cut, all tracks end.

    Args:
        model: Has encoded the frames. Encoding has no state, so one batch may hold several shots.
        encoded: N frames, at least one.
        cuts: N, whether a frame is the first one of a new shot.
        state: Before the window.
        rules, carried: As of `Tracker.track`.

    Returns:
        A result for each frame, and the state after the window.
    """
    starts = [0, *(i for i, cut in enumerate(cuts) if cut and i), len(cuts)]
    results: list[FrameResult] = []
    for first, last in pairwise(starts):
        if cuts[first]:
            state = state.without_tracks(model.initial_state(1))
        passed = None if carried is None else carried[first:last]
        part, state = model.track(encoded[first:last], state, rules, passed)
        results += part
    return results, state
