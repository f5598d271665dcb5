"""Copy and paste: who may be cut out, and what becomes of those who are covered."""

import numpy as np
import pytest

from pipeline.clips.paste import Donor, covered_shares, donors_of, paste_people
from tests.pipeline.clips.test_views import labels


def test_donors_stand_alone_are_tall_enough_and_count():
    people = labels(
        [0, 0, 20, 60],  # stands alone
        [40, 0, 60, 60],  # overlapped by the next
        [50, 0, 70, 60],
        [100, 0, 110, 30],  # too small
        [120, 0, 180, 60],  # a head, or somebody sitting
    )
    (donor,) = donors_of(people, 3, 0)
    assert donor.sequence == 3 and donor.box.tolist() == [0, 0, 20, 60]
    assert donors_of(labels([0, 0, 20, 60], ignore=True), 0, 0) == []
    assert donors_of(labels(), 0, 0) == []


def test_covered_shares_are_of_the_box_that_is_covered():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10]], np.float32)
    shares = covered_shares(boxes, np.array([[5, 0, 25, 10]], np.float32))
    np.testing.assert_allclose(shares, [[0.5, 1.0]])
    np.testing.assert_allclose(covered_shares(boxes, boxes), [[0, 1], [0.5, 0]])


@pytest.mark.parametrize("people", [labels(), labels([20, 20, 50, 110], [90, 30, 120, 120])])
def test_people_are_where_their_boxes_say(people):
    picture = np.full((100, 60, 3), 255, np.uint8)
    donor = Donor(0, 0, np.array([10, 10, 40, 90], np.float32), 0, False)
    frame = np.zeros((160, 240, 3), np.uint8)
    for seed in range(20):
        random = np.random.default_rng(seed)
        pasted, found = paste_people(frame, people, lambda: (picture, donor), random)
        assert frame.max() == 0 and len(people) < len(found) <= len(people) + 3
        assert len(set(found.ids.tolist())) == len(found)
        covered = np.zeros(frame.shape[:2], bool)
        for box in found.boxes[len(people) :]:
            x1, y1, x2, y2 = box.astype(int)
            covered[y1:y2, x1:x2] = True
            # Soft at the corners, opaque in the middle.
            middle = pasted[(y1 + y2) // 2, (x1 + x2) // 2]
            assert middle.min() == 255
            assert (pasted[y1:y2, x1:x2].mean((0, 2)) > 30).all()
        assert not pasted[~covered].any()


def test_those_who_are_covered_are_ignored():
    picture = np.full((100, 60, 3), 255, np.uint8)
    donor = Donor(0, 0, np.array([10, 10, 40, 90], np.float32), 0, False)
    frame = np.zeros((64, 40, 3), np.uint8)  # hardly room for one beside the other
    people = labels([10, 10, 30, 60])
    ignored = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        _, found = paste_people(frame, people, lambda: (picture, donor), random)
        shares = covered_shares(people.boxes, found.boxes[1:]).max()
        assert bool(found.ignore[0]) == (1 - shares < 0.3)
        ignored += bool(found.ignore[0])
    assert ignored > 0
