"""Detections by the decoder and the dense head together."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.net.consensus import consensus
from model.net.decoder import DecoderOutput
from model.net.geometry import inverse_sigmoid, to_centres, to_corners
from model.net.proposals import DenseDetections

CANVAS = (100, 200)
SIDES = torch.tensor([200.0, 100.0, 200.0, 100.0])


def queries(corners, scores):
    """Detections of one frame with these corners in pixels."""
    boxes = to_centres(torch.tensor(corners) / SIDES)[None, None]
    logits = inverse_sigmoid(torch.tensor(scores))[None, None, :, None]
    return DecoderOutput(logits, boxes, torch.zeros(1, len(scores), 4))


def positions(corners, scores, valid=None):
    """Output of a dense head with these boxes."""
    count = len(scores)
    seen = torch.ones(1, count, dtype=torch.bool) if valid is None else torch.tensor([valid])
    logits = inverse_sigmoid(torch.tensor(scores))[None, :, None]
    places = torch.zeros(count, 2), torch.zeros(count)
    return DenseDetections(logits, torch.tensor(corners)[None], *places, seen)


def agreed(found, dense):
    logits, boxes = consensus(found, dense, CANVAS)
    return logits[0, :, 0].sigmoid(), to_corners(boxes[0]) * SIDES


def test_a_box_is_a_mean_and_a_score_a_geometric_mean():
    scores, boxes = agreed(
        queries([[10.0, 10.0, 50.0, 90.0]], [0.9]), positions([[10.0, 10.0, 50.0, 90.0]], [0.4])
    )
    torch.testing.assert_close(scores, torch.tensor([(0.9 * 0.4) ** 0.5]))
    torch.testing.assert_close(boxes, torch.tensor([[10.0, 10.0, 50.0, 90.0]]))
    # Two positions that agree with each other pull a box that is 4 of 40 pixels off.
    off = queries([[14.0, 10.0, 54.0, 90.0]], [0.9])
    _, boxes = agreed(off, positions([[10.0, 10.0, 50.0, 90.0]] * 2, [0.8, 0.8]))
    pull = 2 * 0.8 * (36 / 44) ** 8
    expected = (14 + pull * 10) / (1 + pull)
    torch.testing.assert_close(boxes[0, 0], torch.tensor(expected))


def test_a_query_that_no_position_agrees_with_keeps_its_box_and_loses_its_score():
    far = positions([[150.0, 10.0, 190.0, 90.0]], [0.9])
    hidden = positions([[10.0, 10.0, 50.0, 90.0]], [0.9], valid=[False])  # on padding
    for dense in (far, hidden):
        scores, boxes = agreed(queries([[10.0, 10.0, 50.0, 90.0]], [0.9]), dense)
        assert scores[0] < 1e-4
        torch.testing.assert_close(boxes, torch.tensor([[10.0, 10.0, 50.0, 90.0]]))


SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(5, 39), st.integers(5, 39))
PARTS = st.lists(st.tuples(SPAN, st.floats(0.01, 0.99)), min_size=1, max_size=6)


def corners_of(parts):
    return [[float(x), float(y), float(x + w), float(y + h)] for (x, y, w, h), _ in parts]


@given(PARTS, PARTS)
def test_boxes_stay_among_those_that_made_them_and_scores_below_the_better(found, dense):
    ours, theirs = corners_of(found), corners_of(dense)
    scores, boxes = agreed(
        queries(ours, [s for _, s in found]), positions(theirs, [s for _, s in dense])
    )
    for own, box, before, score in zip(ours, boxes, (s for _, s in found), scores, strict=True):
        among = torch.tensor([own, *theirs])
        assert (box >= among.amin(0) - 1e-3).all() and (box <= among.amax(0) + 1e-3).all()
        assert score <= max(before, *(s for _, s in dense)) + 1e-5


@given(PARTS, PARTS)
def test_the_order_of_positions_does_not_matter(found, dense):
    one = agreed(
        queries(corners_of(found), [s for _, s in found]),
        positions(corners_of(dense), [s for _, s in dense]),
    )
    other = agreed(
        queries(corners_of(found), [s for _, s in found]),
        positions(corners_of(dense)[::-1], [s for _, s in dense][::-1]),
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)
