"""Two reference implementations agree, and both say what is known by hand."""

import itertools
import math

import numpy as np
import pytest

from pipeline.benchmark.average_precision import detection_scores
from pipeline.benchmark.metrics import (
    _similarities,
    _trackeval_data,
    iou_matrix,
    preprocess,
    tracking_scores,
)
from pipeline.datasets.boxes import Boxes, evaluated

trackeval = pytest.importorskip("trackeval.metrics")
pytest.importorskip("pycocotools")

EMPTY = Boxes.of([], [], [])


def random_sequence(seed: int, frames: int = 31, people: int = 6) -> tuple[Boxes, Boxes]:
    """People on straight ways; predictions jitter, miss, switch ids and see ghosts.

    31 frames: "mostly tracked" means at least 80 % to motmetrics, above 80 % to trackeval, and
    no track of 31 frames is seen in exactly 80 % of them.
    """
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(0, 300, (people, 2)), rng.uniform(-4, 4, (people, 2))
    truth, guess = [], []
    names = np.arange(people) + 100
    for t in range(1, frames + 1):
        if rng.random() < 0.15:
            names = np.roll(names, 1)
        for i in range(people):
            x, y = start[i] + t * speed[i]
            truth.append((t, i + 1, x, y, 20, 50))
            if rng.random() < 0.8:
                jitter = rng.normal(0, 4, 2)
                guess.append((t, names[i], x + jitter[0], y + jitter[1], 20, 50))
        if rng.random() < 0.5:
            guess.append((t, 5000 + t, *rng.uniform(0, 300, 2), 20, 50))
    return tuple(Boxes.of(a[:, 0], a[:, 1], a[:, 2:]) for a in map(np.array, (truth, guess)))


def line(track_id: int, frames: range, x: float) -> list[tuple[float, ...]]:
    return [(t, track_id, x + t, 10, 20, 50) for t in frames]


def boxes(*rows: list[tuple[float, ...]]) -> Boxes:
    table = np.array(list(itertools.chain(*rows)))
    return Boxes.of(table[:, 0], table[:, 1], table[:, 2:6])


def test_iou_of_known_boxes():
    a = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5]], float)
    np.testing.assert_allclose(iou_matrix(a, a[:1])[:, 0], [1, 50 / 150, 0])
    assert iou_matrix(a, np.empty((0, 4))).shape == (3, 0)


@pytest.mark.parametrize("seed", range(8))
def test_motmetrics_and_trackeval_agree(seed):
    """On all that both compute; fragmentations too, as this ground truth has no gaps."""
    gt, guess = random_sequence(seed)
    scores = tracking_scores({"a": (gt, guess)})[0]["a"]
    data = _trackeval_data("a", gt, guess, *_similarities("a", gt, guess))
    clear = trackeval.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    identity = trackeval.Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    assert scores.mota == pytest.approx(100 * clear["MOTA"])
    assert scores.motp == pytest.approx(100 * clear["MOTP"])
    assert scores.idf1 == pytest.approx(100 * identity["IDF1"])
    counts = {
        "id_switches": "IDSW", "fragmentations": "Frag", "mostly_tracked": "MT",
        "mostly_lost": "ML", "false_positives": "CLR_FP", "false_negatives": "CLR_FN",
    }  # fmt: skip
    assert {k: getattr(scores, k) for k in counts} == {k: clear[v] for k, v in counts.items()}
    assert scores.id_switches > 0


def test_ground_truth_against_itself_is_perfect():
    gt, _ = random_sequence(1)
    each, combined = tracking_scores({"a": (gt, gt), "b": (gt, gt)})
    for scores in (*each.values(), combined):
        assert scores.hota == pytest.approx(100)
        assert scores.loc_a == pytest.approx(100)
        assert (scores.mota, scores.idf1, scores.motp) == pytest.approx((100, 100, 100))
        assert scores.id_switches == scores.false_positives == scores.false_negatives == 0
    assert combined.gt_boxes == 2 * len(gt)
    found = detection_scores({"a": (gt, gt, 31)}, score=0.5, preprocessing=True)
    assert (found.ap50, found.recall, found.recall_at_score) == pytest.approx((100, 100, 100))


def test_no_predictions_score_nothing():
    gt, _ = random_sequence(1)
    scores = tracking_scores({"a": (gt, EMPTY)})[1]
    assert (scores.hota, scores.det_a, scores.ass_a) == (0, 0, 0)
    assert (scores.mota, scores.idf1) == (0, 0)
    assert scores.false_negatives == len(gt)
    assert scores.mostly_lost == 6
    assert math.isnan(scores.loc_a)
    assert math.isnan(scores.motp)
    found = detection_scores({"a": (gt, EMPTY, 31)}, score=0.5, preprocessing=False)
    assert (found.ap50, found.recall, found.recall_at_score) == (0, 0, 0)


def test_an_id_swap_known_by_hand():
    """Two people for 10 frames whose ids are exchanged half way: 2 switches of 20 boxes."""
    gt = boxes(line(1, range(1, 11), 0), line(2, range(1, 11), 200))
    guess = boxes(
        line(1, range(1, 6), 0), line(2, range(6, 11), 0),
        line(2, range(1, 6), 200), line(1, range(6, 11), 200),
    )  # fmt: skip
    scores = tracking_scores({"a": (gt, guess)})[0]["a"]
    assert scores.id_switches == 2
    assert scores.mota == pytest.approx(100 * (1 - 2 / 20))
    assert scores.idf1 == pytest.approx(50)
    assert scores.det_a == pytest.approx(100)
    # Each of the four (person, id) pairs: 5 frames together of 10 + 10 - 5.
    assert scores.ass_a == pytest.approx(100 / 3)
    assert scores.hota == pytest.approx(100 * math.sqrt(1 / 3))


def test_combined_pools_boxes_and_is_not_the_mean():
    gt = boxes(line(1, range(1, 11), 0))
    _, combined = tracking_scores({"a": (gt, gt), "b": (gt, EMPTY), "c": (gt, EMPTY)})
    assert combined.mota == pytest.approx(100 / 3)
    assert combined.ass_a == pytest.approx(100)


def test_preprocessing_drops_what_lies_on_distractors_and_what_is_flagged():
    rows = [(1, 1, 0), (1, 2, 100), (1, 3, 200), (1, 4, 300)]
    xywh = [[x, 10, 20, 50] for *_, x in rows]
    gt = Boxes.of([1] * 4, [1, 2, 3, 4], xywh, [1, 1, 0, 0], [1, 8, 1, 3])
    guess = Boxes.of([1] * 5, [11, 12, 13, 14, 15], [*xywh, [500, 10, 20, 50]])
    truth, kept = preprocess(gt, guess)
    assert truth.track_id.tolist() == [1]
    # On the distractor: dropped. On a flagged person, on a car, on nothing: still false.
    assert kept.track_id.tolist() == [11, 13, 14, 15]
    assert evaluated(gt).track_id.tolist() == [1]
    with_rule = detection_scores({"a": (gt, guess, 1)}, 0.5, preprocessing=True)
    assert with_rule.ap50 == pytest.approx(100)


def test_one_person_and_distractor_near_each_other_keep_the_better_match():
    gt = Boxes.of([1, 1], [1, 2], [[0, 0, 20, 50], [6, 0, 20, 50]], 1, [1, 7])
    guess = Boxes.of([1], [5], [[1, 0, 20, 50]])
    assert len(preprocess(gt, guess)[1]) == 1


def test_recall_at_a_score_leaves_out_what_lies_below():
    gt = boxes(line(1, range(1, 5), 0))
    guess = Boxes.of(gt.frame, -1, gt.xywh, [0.9, 0.8, 0.2, 0.1])
    found = detection_scores({"a": (gt, guess, 4)}, score=0.5, preprocessing=False)
    assert found.recall == pytest.approx(100)
    assert found.recall_at_score == pytest.approx(50)


def test_a_false_detection_above_the_true_ones_halves_the_precision():
    gt = boxes(line(1, range(1, 2), 0))
    guess = Boxes.of([1, 1], -1, [[400, 10, 20, 50], gt.xywh[0]], [0.9, 0.5])
    found = detection_scores({"a": (gt, guess, 1)}, score=0.4, preprocessing=False)
    assert found.ap50 == pytest.approx(50)


def test_an_id_twice_in_a_frame_is_an_error():
    gt = boxes(line(1, range(1, 3), 0))
    with pytest.raises(ValueError, match="a, frame 2: an id stands twice in the predictions"):
        tracking_scores({"a": (gt, boxes(line(1, range(1, 3), 0), line(1, range(2, 3), 50)))})
    with pytest.raises(ValueError, match="no sequence"):
        tracking_scores({})
