"""The time of a kit, shared by its stages, and the loader processes that a machine has room for."""

import pytest

from pipeline.kit.folder import KitError
from pipeline.kit.time_shares import fitting_loaders, stage_seconds


def test_stages_share_what_is_left():
    assert stage_seconds(400, 40, [0.7, 0.3]) == pytest.approx(252)
    assert stage_seconds(400 - 252, 20, [0.3]) == pytest.approx(128)
    with pytest.raises(KitError, match=r"the budget is used up: 30 s are left.*more --minutes"):
        stage_seconds(30, 29, [1.0])
    with pytest.raises(KitError, match="used up"):
        stage_seconds(-3, 0, [1.0])


def test_loaders_leave_a_core_and_fit_into_shared_memory():
    assert fitting_loaders(16, 30_000_000, 64 * 10**9) == 15
    assert fitting_loaders(64, 30_000_000, 64 * 10**9) == 16
    assert fitting_loaders(1, 30_000_000, 64 * 10**9) == 1
    assert fitting_loaders(16, 30_000_000, 400_000_000) == 4
    assert fitting_loaders(16, 30_000_000, 64_000_000) == 0
