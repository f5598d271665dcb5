"""Views and labels: boxes lie where the pixels do."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.clips.labels import Labels, joined
from pipeline.clips.views import View, cut, draw_aspect, draw_place, draw_scale, labels_in


def labels(*boxes, ignore=False):
    n = len(boxes)
    return Labels(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(n),
        np.zeros(n, np.int64),
        np.full(n, ignore),
        np.zeros(n, np.uint8),
    )


def test_a_view_of_all_at_its_size_is_the_picture_itself():
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    whole = View(0, 0, 60, 40)
    np.testing.assert_array_equal(cut(picture, whole, (60, 40)), picture)
    np.testing.assert_array_equal(cut(picture, whole, (60, 40), flip=True), picture[:, ::-1])


def test_what_lies_outside_the_picture_is_filled():
    picture = np.full((20, 20, 3), 200, np.uint8)
    out = cut(picture, View(-20, 0, 40, 20), (40, 20), fill=7)
    assert (out[:, :19] == 7).all() and (out[:, 21:] == 200).all()


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_shrinking_takes_the_mean_of_what_it_shrinks(factor):
    """A checkerboard of single pixels becomes grey; without halving first it would alias."""
    board = (np.indices((224, 224)).sum(0) % 2 * 255).astype(np.uint8)
    picture = np.repeat(board[..., None], 3, 2)
    size = (224 // factor, 224 // factor)
    out = cut(picture, View(0, 0, 224, 224), size).astype(int)
    assert abs(out[1:-1, 1:-1].mean() - 127.5) < 2 and out[1:-1, 1:-1].std() < 60
    if factor != 3:
        assert out[1:-1, 1:-1].std() < 20


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-60, 100),
    y=st.floats(-40, 60),
    width=st.floats(40, 300),
    height=st.floats(40, 220),
    out=st.tuples(st.integers(30, 160), st.integers(30, 120)),
    flip=st.booleans(),
)
def test_boxes_lie_where_the_pixels_do(x, y, width, height, out, flip):
    assume(x + width > 0 and y + height > 0)  # a view overlaps its picture
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[30:90, 60:140] = 255
    view = View(x, y, width, height)
    shown = cut(picture, view, out, flip=flip)[..., 0]
    found = labels_in(labels([60, 30, 140, 90]), view, out, flip=flip)
    bright = shown >= 128
    if not len(found):
        # A fiftieth of a box is dropped; each side may be a pixel off.
        dropped = 0.02 * 80 * 60 / (width * height)
        assert bright.mean() <= dropped + 1 / out[0] + 1 / out[1]
        return
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    if not len(rows):
        return
    edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    # Half a pixel, and as much again as one pixel of the picture is long on the canvas.
    reach = 1 + max(out[0] / width, out[1] / height)
    np.testing.assert_allclose(found.boxes[0], edges, atol=reach)


def test_too_little_or_too_small_is_ignored_and_nothing_left_is_dropped():
    given = labels([0, 0, 10, 40], [-8, 0, 2, 40], [30, 30, 36, 37], [200, 0, 210, 40])
    kept = given.clipped(100, 100)
    assert kept.ids.tolist() == [0, 1, 2]
    assert kept.ignore.tolist() == [False, True, True]
    np.testing.assert_array_equal(kept.boxes[1], [0, 0, 2, 40])


def test_joined_labels_of_different_pictures_are_different_people():
    one, other = labels([0, 0, 9, 9], [1, 1, 5, 9]), labels([3, 3, 9, 20])
    both = joined([one, other], renumber=True)
    assert both.ids.tolist() == [0, 1, 2] and len(both.boxes) == 3
    assert joined([one, other]).ids.tolist() == [0, 1, 0]


def test_scales_aim_at_small_or_large_people_or_spread_over_the_range():
    random = np.random.default_rng(0)
    two = labels([0, 0, 50, 200], [60, 0, 80, 100])

    def drawn(small, large, height=384, fit=0.5):
        scales = (0.75, 2.2)
        draws = [draw_scale(fit, two, small, large, height, scales, random) for _ in range(300)]
        return np.array([scale for scale, _ in draws]), {person for _, person in draws}

    scale, person = drawn(1.0, 0.0)
    assert (150 * scale).max() < 97 and (150 * scale).min() >= 0.6 * 0.5 * 150 - 1e-6
    assert person == {None}
    scale, person = drawn(0.0, 1.0)
    assert 160 <= (200 * scale).min() < 170 and 340 < (200 * scale).max() < 0.95 * 384 + 1e-6
    assert person == {0}
    assert drawn(0.0, 1.0, fit=0.1)[0].max() <= 4.0 * 0.1
    # A tile of a mosaic may be too low for a large person.
    for scale, person in (drawn(0.0, 0.0), drawn(0.0, 1.0, height=160)):
        assert 0.375 <= min(scale) < 0.4 and 1.0 < max(scale) <= 1.1 and person == {None}


def test_a_person_who_fits_is_in_the_view_as_a_whole():
    random = np.random.default_rng(0)
    people = labels([10, 10, 20, 30], [150, 20, 190, 80])
    for person in (0, 1):
        for _ in range(50):
            view = draw_place((200, 100), (60.0, 70.0), people, person, random)
            box = people.boxes[person] - [view.x, view.y, view.x, view.y]
            assert (box[:2] >= -1e-3).all() and (box[2:] <= [60.001, 70.001]).all()


def test_a_person_too_large_for_the_view_has_the_middle_in_it():
    random = np.random.default_rng(0)
    person = labels([20, 5, 180, 95])
    for _ in range(50):
        view = draw_place((200, 100), (80.0, 40.0), person, 0, random)
        assert 0.1 * 80 - 1e-6 <= 100 - view.x <= 0.9 * 80 + 1e-6
        assert 0.1 * 40 - 1e-6 <= 50 - view.y <= 0.9 * 40 + 1e-6


@pytest.mark.parametrize("extent", [(50.0, 30.0), (300.0, 30.0), (300.0, 200.0)])
def test_a_place_is_inside_the_picture_or_has_all_of_it_inside(extent):
    random = np.random.default_rng(0)
    people = labels([10, 10, 20, 50])
    for _ in range(50):
        view = draw_place((200, 100), extent, people, None, random)
        for start, long, all_of_it in ((view.x, extent[0], 200), (view.y, extent[1], 100)):
            low, high = sorted((0.0, all_of_it - long))
            assert low - 1e-9 <= start <= high + 1e-9


def test_half_of_the_squeezed_pictures_get_proportions_back():
    random = np.random.default_rng(0)
    plain = np.array([draw_aspect(False, random) for _ in range(400)])
    squeezed = np.array([draw_aspect(True, random) for _ in range(400)])
    assert plain.min() > 0.86 and plain.max() < 1.16
    assert 0.2 < (squeezed > 1.16).mean() < 0.45 and squeezed.max() <= 1.9


def test_opencv_keeps_to_one_thread_where_clips_are_made(shards):
    from pipeline.clips.clips import Clips
    from pipeline.datasets.shards import Shards
    from tests.training_parts import CLIPS

    cv2.setNumThreads(2)
    Clips(Shards(shards), CLIPS, 0)
    assert cv2.getNumThreads() == 1
