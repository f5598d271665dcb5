"""Pictures in memory: the same whatever is kept, and no more than allowed."""

import multiprocessing
import pickle

import numpy as np
import pytest

from pipeline.clips.frame_store import FrameStore
from pipeline.datasets.shards import PictureError, Shards, ShardWriter

GB = 1e-9 * 96 * 144 * 3  # one picture


@pytest.fixture(scope="module")
def shards(shards):
    return Shards(shards)


def keys(shards):
    return [(i, t) for i, s in enumerate(shards.sequences) for t in range(len(s.frames))]


@pytest.mark.parametrize("pictures", [0, 3, 100])
def test_pictures_are_the_same_whatever_is_kept(shards, pictures):
    store = FrameStore(shards, pictures * GB)
    assert store.preload(keys(shards), threads=2) == []
    for key in keys(shards) * 2:
        np.testing.assert_array_equal(store.picture(*key), shards.picture(*key))
    assert len(store._kept) == min(pictures, len(keys(shards)))


def test_a_kept_picture_is_not_decoded_again_and_not_written_to(shards):
    store = FrameStore(shards, 100 * GB)
    first = store.picture(0, 0)
    assert store.picture(0, 0) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0


def test_a_store_travels_without_its_pictures(shards):
    store = FrameStore(shards, 100 * GB)
    store.preload(keys(shards), threads=1)
    other = pickle.loads(pickle.dumps(store))
    assert not other._kept
    np.testing.assert_array_equal(other.picture(0, 3), store.picture(0, 3))


def test_a_forked_process_reads_what_is_kept_and_keeps_nothing_itself(shards):
    store = FrameStore(shards, 100 * GB)
    store.picture(0, 0)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def work():
        seen = [int(store.picture(*key).sum()) for key in ((0, 0), (0, 1))]
        queue.put((seen, len(store._kept)))

    child = context.Process(target=work)
    child.start()
    seen, kept = queue.get(timeout=60)
    child.join()
    assert seen == [int(shards.picture(0, t).sum()) for t in (0, 1)] and kept == 1


def test_pictures_that_cannot_be_read_are_named(shards, tmp_path):
    writer = ShardWriter(tmp_path, shards.classes)
    good = shards.sequences[1]
    writer.add(good, {good.frames[0].file: b"damaged"})
    writer.close()
    store = FrameStore(Shards(tmp_path), 1.0)
    (problem,) = store.preload([(0, 0)], threads=1)
    assert "not a readable picture" in problem
    for _ in range(2):
        with pytest.raises(PictureError) as error:
            store.picture(0, 0)
        assert str(error.value) == problem
