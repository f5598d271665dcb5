"""Colours are those of the person's own part of a box, and tell people apart."""

import numpy as np
import pytest

from pipeline.stitching.appearance import separate_appearances
from pipeline.stitching.colours import COLOURS, colours
from pipeline.stitching.looks import Looks
from pipeline.stitching.rejoin import rejoin
from tests.pipeline.stitching.crowd import DIM, Walker, columns, glance_at

GREY, RED, BLUE = (128, 128, 128), (200, 10, 10), (10, 10, 200)


def dressed(*people):
    """A picture of 64 x 96 in which people stand, and their boxes in [0, 1].

    Args:
        people: Centre x in pixels, colour of the upper half and of the lower half of each.
    """
    picture = np.full((64, 96, 3), GREY, np.uint8)
    boxes = []
    for x, upper, lower in people:
        picture[8:32, x - 6 : x + 6] = upper
        picture[32:56, x - 6 : x + 6] = lower
        boxes.append([x / 96, 0.5, 16 / 96, 48 / 64])  # wider than the person
    return picture, np.array(boxes)


def test_bands_go_from_head_to_foot_without_what_is_behind():
    picture, boxes = dressed((30, RED, BLUE))
    bands = colours(picture, boxes * [96, 64, 96, 64]).reshape(-1, 3) * 255
    np.testing.assert_allclose(bands[: len(bands) // 2], np.broadcast_to(RED, (3, 3)), atol=1e-3)
    np.testing.assert_allclose(bands[len(bands) // 2 :], np.broadcast_to(BLUE, (3, 3)), atol=1e-3)


@pytest.mark.parametrize(
    "box", [[-40, 30, 10, 20], [200, 90, 10, 20], [48, 32, 0.1, 0.1], [0, 0, 500, 500]]
)
def test_a_box_beyond_the_picture_or_without_area_has_the_nearest_colours(box):
    found = colours(np.full((64, 96, 3), 51, np.uint8), np.array([box], float))
    assert found.shape == (1, COLOURS)
    np.testing.assert_allclose(found, 0.2, atol=1e-6)


def test_nobody_has_no_colours():
    assert colours(np.zeros((64, 96, 3), np.uint8), np.zeros((0, 4))).shape == (0, COLOURS)


@pytest.fixture
def looks():
    """Two people and a bystander; 1 comes back as 4, and 2 as 3. Their memories are the same."""
    walkers = [
        Walker(1, 0, 20),
        Walker(2, 0, 20, (40.0, 0.0)),
        Walker(9, 0, 99, (300.0, 0.0)),
        Walker(3, 40, 60, (20.0, 0.0)),
        Walker(4, 40, 60, (25.0, 0.0)),
    ]
    looks = Looks(DIM)
    looks.add(columns([row for walker in walkers for row in walker.rows()]), None)
    worn = {1: (RED, BLUE), 2: (BLUE, BLUE), 9: (GREY, RED), 3: (BLUE, BLUE), 4: (RED, BLUE)}
    for at, ids in enumerate([(1, 2, 9)] * 6 + [(3, 4, 9)] * 6):
        picture, boxes = dressed(*((16 + 30 * n, *worn[i]) for n, i in enumerate(ids)))
        light = np.random.default_rng(at).integers(-9, 10, picture.shape)
        picture = (picture + light).clip(0, 255).astype(np.uint8)
        memory = np.random.default_rng(at).standard_normal((len(ids), DIM))
        looks.add(columns([]), glance_at(ids, memory, picture=picture, boxes=boxes))
    return looks


def test_people_in_the_same_clothes_are_alike(looks):
    _, colour = separate_appearances(looks.records(), looks.spread())
    alike = colour @ colour.T  # by id: 1, 2, 3, 4, 9
    assert alike[0, 3] > 0.9 and alike[1, 2] > 0.9
    assert max(alike[0, 1], alike[0, 2], alike[1, 3], alike[0, 4]) < 0.5


def test_people_who_come_back_are_known_by_their_clothes(looks):
    assert rejoin(looks, 5.0) == {3: 2, 4: 1}
