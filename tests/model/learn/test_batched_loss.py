"""The batched loss against one written frame by frame: padding and batching change nothing."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.communicator import Communicator
from model.learn.clip_batch import Extent, frame_labels
from model.learn.clip_loss import clip_loss
from model.learn.losses import dense_loss, query_loss
from model.learn.matching import match
from model.learn.track_loss import _associate, _owned
from model.track.tracks import TrackState
from tests.model.learn import loss_by_loop
from tests.model.learn.test_clip_loss import make_batch
from tests.tiny import TINY, tiny_tracker

CANVAS = (TINY.input_height, TINY.input_width)


def labelled(seed, clips=3, length=2):
    """A batch with objects, ignored boxes and padding in random places, and a lively tracker."""
    batch = make_batch(clips, length, seed)
    random = torch.Generator().manual_seed(seed)
    shape = batch.ids.shape
    ids = torch.where(torch.rand(shape, generator=random) < 0.25, -1, batch.ids)
    ids[0, 0] = -1  # a frame with nobody in it
    ignore = torch.rand(shape, generator=random) < 0.25
    extent = torch.randint(len(Extent), shape, generator=random, dtype=torch.uint8)
    return replace(batch, ids=ids, ignore=ignore, extent=extent), tiny_tracker(seed, lively=True)


def encoded(tracker, batch):
    with torch.no_grad():
        frames = (batch.images, batch.valid, batch.patches)
        return tracker.encode(*(x.flatten(0, 1) for x in frames))


def equal(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], torch.as_tensor(value), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_dense_loss(seed):
    batch, tracker = labelled(seed)
    dense, labels = encoded(tracker, batch).dense, frame_labels(batch)
    equal(dense_loss(dense, labels), loss_by_loop.dense_loss(dense, labels))


@pytest.mark.parametrize("seed", range(4))
def test_matching_and_query_loss(seed):
    batch, tracker = labelled(seed)
    output, labels = encoded(tracker, batch).detections, frame_labels(batch)
    targets = match(output.logits, output.boxes, labels.centres, labels.labels, labels.real)
    assert (targets >= 0).any() and torch.equal(targets, loss_by_loop.matched(output, labels))
    live = torch.rand(targets.shape[1:], generator=torch.Generator().manual_seed(seed)) < 0.7
    found = query_loss(output, targets, live, labels, CANVAS, labels.seen)
    equal(found, loss_by_loop.query_loss(output, targets, live, labels, CANVAS))


@pytest.mark.parametrize("seed", range(4))
def test_association(seed):
    batch, tracker = labelled(seed, length=1)
    frames, labels = encoded(tracker, batch), frame_labels(batch)
    random = torch.Generator().manual_seed(seed)
    empty = TrackState.empty(3, TINY.slots, TINY.dim, 1)
    state = replace(
        empty,
        active=torch.rand(3, TINY.slots, generator=random) < 0.7,
        track_id=torch.stack(
            [torch.randperm(TINY.slots, generator=random) - 2 for _ in range(3)]
        ).clamp(min=-1),
        boxes=torch.rand(3, TINY.slots, 4, generator=random) * 0.5 + 0.2,
    )
    # Objects where the detections are, so that some of them lie on one.
    found = match(
        frames.detections.logits, frames.detections.boxes, *(labels.centres, labels.labels),
        labels.real,
    )[-1]  # fmt: skip
    centres = labels.centres.clone()
    for b, k in torch.nonzero(found >= 0).tolist():
        if (b + k) % 2:
            centres[b, found[b, k]] = frames.detections.boxes[-1, b, k]
    labels = replace(labels, centres=centres)
    asked = tracker.decode(frames, state).transported
    owned = _owned(state, labels)
    args = (asked, state, owned, found, frames.detections, labels)
    assert (owned >= 0).any()
    torch.testing.assert_close(_associate(*args), loss_by_loop.associate(*args))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_more_padding_changes_nothing(seed, more):
    batch, tracker = labelled(seed, clips=2, length=3)

    def padded(x, value):
        shape = (*x.shape[:2], more, *x.shape[3:])
        return torch.cat([x, torch.full(shape, value, dtype=x.dtype)], 2)

    wider = replace(
        batch,
        boxes=padded(batch.boxes, 5.0),
        ids=padded(batch.ids, -1),
        labels=padded(batch.labels, 0),
        ignore=padded(batch.ignore, False),
        extent=padded(batch.extent, 0),
    )
    tracker.train()
    with torch.no_grad():
        narrow, wide = (clip_loss(tracker, b, Communicator()).terms for b in (batch, wider))
    equal(wide, narrow)
