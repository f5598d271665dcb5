"""Average precision of weighed pictures, against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.benchmark.average_precision import COCO_IOUS, picture_scores
from pipeline.benchmark.weighted_precision import average_precision, match
from pipeline.datasets.picture_boxes import Found, People


def drawn_pictures(seed, count):
    """Pictures with people, some ignored, and detections near them, of unequal scores."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        people, extra = random.integers(0, 5), random.integers(0, 6)
        xywh = random.uniform((0, 0, 8, 8), (90, 90, 40, 60), (people, 4))
        near = xywh.repeat(2, axis=0) + random.normal(0, 3, (2 * people, 4))
        false = random.uniform((0, 0, 8, 8), (90, 90, 40, 60), (extra, 4))
        boxes = np.concatenate([near, false]).clip(1)
        # With equal scores in a picture, its copies would not be in the order of their weight.
        scores = random.permutation(len(boxes)) / 50 + random.choice([0.1, 0.2], 1)
        pictures.append((People(xywh, random.random(people) < 0.2), Found(boxes, scores)))
    return pictures


def expected(pictures):
    scores = picture_scores([(people, found, 1.0) for people, found in pictures], 0.5)
    return scores.ap50, scores.ap


def all_overlaps(matches, weights):
    return np.mean([average_precision(matches, weights, i) for i in range(len(COCO_IOUS))], axis=0)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_with_weights_of_one_it_is_that_of_pycocotools(seed, count):
    pictures = drawn_pictures(seed, count)
    matches, once = match(pictures), np.ones((1, count), int)
    found = average_precision(matches, once)[0], all_overlaps(matches, once)[0]
    np.testing.assert_allclose(found, expected(pictures), rtol=1e-12)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_a_weight_is_a_number_of_copies(seed, weights):
    pictures = drawn_pictures(seed, len(weights))
    copies = [p for p, weight in zip(pictures, weights, strict=True) for _ in range(weight)]
    found = all_overlaps(match(pictures), np.array([weights, [1] * len(weights)]))
    ap = expected(copies)[1] if copies else np.nan
    np.testing.assert_allclose(found, [ap, expected(pictures)[1]], rtol=1e-12)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.permutations(range(5)), st.integers(1, 5))
def test_some_pictures_are_as_if_they_were_alone(seed, order, count):
    pictures, chosen = drawn_pictures(seed, 5), order[:count]
    once = np.ones((1, count), int)
    found = average_precision(match(pictures).of(chosen), once)
    alone = average_precision(match([pictures[i] for i in chosen]), once)
    np.testing.assert_array_equal(found, alone)


def test_without_people_or_detections():
    nobody, nothing = (
        People(np.zeros((0, 4)), np.zeros(0, bool)),
        Found(np.zeros((0, 4)), np.zeros(0)),
    )
    someone = People(np.array([[5.0, 5, 20, 40]]), np.zeros(1, bool))
    false = Found(np.array([[60.0, 60, 9, 9]]), np.array([0.9]))
    matches = match([(nobody, false), (someone, nothing)])
    found = average_precision(matches, np.array([[1, 0], [0, 1], [1, 1]]))
    assert np.isnan(found[0]) and found[1:].tolist() == [0, 0]
    assert np.isnan(average_precision(match([(nobody, nothing)]), np.ones((1, 1)))).all()
    assert average_precision(matches, np.zeros((0, 2))).shape == (0,)
    with pytest.raises(IndexError):
        average_precision(matches, np.ones((1, 2)), len(COCO_IOUS))
