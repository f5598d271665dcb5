"""Conditions: which there are, what they draw, and the chain that is drawn for every frame."""

import numpy as np
import pytest

from pipeline.degrade.conditions import ALL_KINDS, Condition, ConditionError, conditions
from pipeline.degrade.kinds import degrade, sequence_seed
from pipeline.degrade.second_order import second_order

CLIP = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), dtype=np.uint8)


def test_all_is_clean_every_kind_at_every_severity_and_the_chain_once():
    shown = conditions(["all"], [3, 5], [0])
    assert len(shown) == 1 + 8 * 2 + 1
    assert shown[0].name == "clean"
    assert [c.name for c in conditions(["none"], [3], [0, 1])] == ["clean", "clean"]
    assert {c.kind for c in shown} == {"clean", *ALL_KINDS}


def test_seed_0_is_the_benchmark_of_the_degradations_and_another_seed_is_another_draw():
    one, other = Condition("noise", 3), Condition("noise", 3, seed=1)
    expected = degrade(CLIP, "noise", 3, sequence_seed("A", "noise", 3))
    np.testing.assert_array_equal(one.degrade(CLIP, "A", 0), expected)
    assert (other.degrade(CLIP, "A", 0) != expected).any()
    np.testing.assert_array_equal(one.degrade(CLIP[1:], "A", 1), expected[1:])


def test_true_quality_is_known_but_for_the_chain():
    assert Condition().true_quality("A", 0, 2).tolist() == [1, 1]
    assert Condition("haze", 3).true_quality("A", 0, 1) == pytest.approx([0.5])
    assert len(set(Condition("swing", 5).true_quality("A", 0, 60))) > 10
    assert Condition("second_order").true_quality("A", 0, 1) is None


@pytest.mark.parametrize(("kind", "severity"), [("fog", 3), ("noise", 0), ("noise", 6)])
def test_what_does_not_exist_is_refused(kind, severity):
    with pytest.raises(ConditionError, match=kind):
        Condition(kind, severity)


def test_the_chain_is_drawn_by_frame_keeps_the_size_and_does_not_depend_on_windows():
    whole = second_order(CLIP, seed=4)
    assert whole.shape == CLIP.shape and whole.dtype == np.uint8
    np.testing.assert_array_equal(second_order(CLIP[1:], seed=4, start=1), whole[1:])
    same = second_order(np.stack([CLIP[0], CLIP[0]]), seed=4)
    assert (same[0] != same[1]).any()
    grey = second_order(np.full((1, 40, 40, 3), 128, np.uint8), seed=1)
    assert abs(float(grey.mean()) - 128) < 12
