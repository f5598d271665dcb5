"""Sizes of pools of workers."""

import pytest

from pipeline.runtime.settings import ClusterConfig, Pool


@pytest.mark.parametrize(
    ("workers", "room", "pool"),
    [
        (None, 8, Pool(1, 8, None)),
        (3, 8, Pool(3, 3, 3)),
        ((2, 4), 8, Pool(2, 4, 4)),
        ((2, 4), 3, Pool(2, 3, 4)),
        ((2, 4), 1, Pool(2, 2, 4)),
    ],
)
def test_a_pool_has_room_to_grow_within_what_is_allowed(workers, room, pool):
    config = ClusterConfig(workers=workers)
    assert config.pool(room) == pool
    assert config.greatest() == pool.most


def test_a_pool_is_no_larger_than_the_work():
    assert Pool(2, 3, 8).at_most(5) == Pool(2, 3, 5)
    assert Pool(2, 3, 8).at_most(1) == Pool(1, 1, 1)
    assert Pool(1, 4, None).at_most(9) == Pool(1, 4, 9)
