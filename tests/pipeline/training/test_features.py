"""Unlabelled frames out of archives, and the cache of what the teacher says of them."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import ray
import torch

from model.learn.frame_loss import DistillObjective
from model.teach.config import DistillationConfig, TeacherConfig
from model.teach.distillation import Distiller
from model.teach.teacher import TeacherFeatures
from pipeline.storage.files import StorageError, list_videos
from pipeline.storage.schema import SCHEMA_VERSION
from pipeline.teachers.load import load_teacher
from pipeline.training.archive_frames import (
    ArchiveFrames,
    FramesError,
    collate_frames,
    read_archive_videos,
    read_frame,
)
from pipeline.training.batches import Stream, batches
from pipeline.training.config import CacheConfig, FrameConfig
from pipeline.training.feature_cache import (
    FeatureCache,
    FeatureCacheError,
    part_bytes,
    part_uri,
    parts_done,
)
from pipeline.training.make_features import (
    cache_features,
    wanted_identity,
)
from pipeline.video.probe import probe
from tests.tiny import TINY, tiny_tracker
from tests.videos import cut, read_number, write_text, write_video

FRAMES = FrameConfig(height=64, width=96)
POOL = replace(FRAMES, pool=40)
LITE2 = TeacherConfig()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    write_video(folder / "a.mp4", frames=25)
    (folder / "b").mkdir()
    write_video(folder / "b" / "c.mp4")
    return folder


def stream(archive, config=FRAMES, seed=5, cache=None):
    videos, broken = read_archive_videos(str(archive), "", 2)
    assert not broken
    return ArchiveFrames(videos, config, seed, cache)


def first_batch(frames):
    return next(batches(Stream(frames, collate_frames), (4,), 2, 3, 0))


def test_the_frame_of_a_time_is_the_one_shown_then(archive):
    info = probe(next(list_videos(str(archive / "a.mp4"))))
    for number in (0, 7, 12, 13, 24):
        picture = read_frame(info, number / 25)
        assert picture.shape == (96, 160, 3) and read_number(picture) == number
    # Past the end there is the last one.
    assert read_number(read_frame(info, 5.0)) == 24


def test_a_frame_is_a_function_of_seed_and_index(archive):
    one, other = stream(archive), stream(archive)
    items = [one[i] for i in range(6)]
    for i in (5, 2):
        again = other[i]
        assert all(torch.equal(items[i][k], again[k]) for k in ("images", "clean", "patches"))
    assert not torch.equal(items[0]["clean"], stream(archive, seed=6)[0]["clean"])
    assert {item["name"] for item in items} == {"a.mp4", "b/c.mp4"}


def test_student_and_teacher_see_one_crop_and_severity_says_what_was_done(archive):
    for i in range(20):
        item = stream(archive)[i]
        same = torch.equal(item["images"], item["clean"])
        assert same == (float(item["severity"]) == 0)
        height, width = item["valid"].tolist()
        assert not item["clean"][:, height:].any() and not item["clean"][:, :, width:].any()
        assert item["images"].shape == (3, 64, 96) and item["patches"].shape == (8, 64, 64)


def test_a_pool_is_gone_through_and_seen_again_under_new_degradations(archive):
    frames = stream(archive, replace(FRAMES, pool=6))
    first, second = ([next(frames.views(e * 6 + i)).key for i in range(6)] for e in (0, 1))
    assert sorted(first) == sorted(second) and first != second and len(set(first)) == 6


def test_broken_videos_cost_a_line_each_and_an_archive_of_them_an_error(tmp_path):
    write_video(tmp_path / "good.mp4", frames=50)
    # The index of an mkv comes last: its end is missing, and the header says nothing of it.
    cut(write_video(tmp_path / "short.mkv", frames=50), 0.4)
    write_text(tmp_path / "text.mp4")
    videos, broken = read_archive_videos(str(tmp_path), "", 2)
    assert len(videos) == 2 and "text.mp4" in broken[0]
    gone = next(v for v in videos if v.uri.endswith("good.mp4"))
    frames = ArchiveFrames([*videos, replace(gone, uri=str(tmp_path / "gone.mp4"))], FRAMES, 0)
    items = [frames[i] for i in range(12)]
    said = [line for item in items for line in item["problems"]]
    assert said and all("gone.mp4" in line or "short.mkv" in line for line in said)
    nothing = ArchiveFrames([replace(gone, uri=str(tmp_path / "text.mp4"))], FRAMES, 0)
    with pytest.raises(FramesError, match=r"no readable frame .*text.mp4"):
        nothing[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="no video in"):
        read_archive_videos(str(tmp_path / "empty"), "", 2)
    write_text(tmp_path / "empty" / "a.mp4")
    with pytest.raises(FramesError, match="none of 1 files"):
        read_archive_videos(str(tmp_path / "empty"), "", 2)


def test_bad_settings_are_refused():
    for wrong in ({"height": 50}, {"kinds": ("rain",)}, {"degraded": 2.0}, {"pool": -1}):
        with pytest.raises(ValueError, match=r"height|rain|degraded|pool"):
            replace(FRAMES, **wrong)


@pytest.fixture(scope="module")
def cached(archive, tmp_path_factory):
    root = str(tmp_path_factory.mktemp("cache"))
    settings = CacheConfig(path=root, dtype="float32", dense_share=0.5)
    return cache_features(stream(archive, POOL), LITE2, settings, 0, pytest.fail), settings


def objective(cache, teacher):
    torch.manual_seed(0)
    info = cache.identity.teacher
    distiller = Distiller(DistillationConfig(), TINY.semantic_dim, info, cache.statistics)
    return DistillObjective(distiller, teacher)


def test_cached_and_live_teacher_give_the_same_loss(archive, tmp_path):
    settings = CacheConfig(path=str(tmp_path))
    cache = cache_features(stream(archive, POOL), LITE2, settings, 0, pytest.fail)
    from_cache = first_batch(stream(archive, POOL, cache=cache))
    live = first_batch(stream(archive, POOL))
    assert torch.equal(from_cache.images, live.images) and live.features is None
    tracker = tiny_tracker().train()
    loss, terms = objective(cache, None)(tracker, from_cache)
    teacher = load_teacher(LITE2)
    expected, wanted = objective(cache, teacher)(tracker, live)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    told, expected_terms = ({k: v.item() for k, v in t.items()} for t in (terms, wanted))
    assert told == pytest.approx(expected_terms, rel=2e-3, abs=1e-4)
    with pytest.raises(ValueError, match="no teacher"):
        objective(cache, None)(tracker, live)


def test_pooled_features_are_of_all_frames_and_dense_of_the_chosen_share(cached):
    cache, settings = cached
    assert len(cache) == 40 and parts_done(settings.path) == {0, 1}
    shown = [cache.features(key) for key in cache.frames()]
    assert all(p.abs().sum() > 0 for _, p, _ in shown)
    given = sum(bool(valid.any()) for _, _, valid in shown)
    assert 10 <= given <= 30
    assert all(bool(d.any()) == bool(v.any()) for d, _, v in shown)
    table = pq.read_table(part_uri(settings.path, 0))
    assert table.schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert set(table["teacher"].to_pylist()) == {"imagenet-lite2"}
    assert set(table["dtype"].to_pylist()) == {"float32"}


def test_the_statistics_are_those_of_the_features(cached):
    cache, _ = cached
    dense = [(d, v) for d, _, v in map(cache.features, cache.frames()) if v.any()]
    tokens = torch.cat([d.permute(1, 2, 0)[v] for d, v in dense])
    torch.testing.assert_close(cache.statistics.dense_mean, tokens.mean(0), rtol=1e-4, atol=1e-4)


def test_a_cache_of_many_parts_keeps_few_open(cached, tmp_path):
    cache, settings = cached
    root = tmp_path / "many"
    shutil.copytree(settings.path, root)
    identity, key = cache.identity, cache.frames()[0]
    dense, pooled, valid = (x[None] for x in cache.features(key))
    size = torch.tensor([[FRAMES.height, FRAMES.width]])
    for number in range(2, 200):
        row = ([key._replace(time_us=number)], size, TeacherFeatures(dense, pooled, valid), [False])
        Path(part_uri(str(root), number)).write_bytes(part_bytes(identity, *row))
    before = psutil.Process().num_fds()
    many = FeatureCache(str(root), {})
    assert len(many) == 40 + 198
    for shown in reversed(many.frames()):
        assert many.features(shown)[1].shape == pooled[0].shape
    assert psutil.Process().num_fds() - before < 100  # else it is a handle a part
    again = pickle.loads(pickle.dumps(many))
    torch.testing.assert_close(again.features(key), cache.features(key))


def test_a_cache_of_something_else_is_refused(cached, archive, tmp_path):
    _, settings = cached
    frames = stream(archive, POOL)
    for other, named in (
        (wanted_identity(frames, TeacherConfig("ViT-B-32", "random"), settings), "ViT-B-32"),
        (wanted_identity(frames, LITE2, replace(settings, dtype="float16")), "dtype"),
        (wanted_identity(stream(archive, POOL, seed=1), LITE2, settings), "5 in the cache, 1 now"),
    ):
        with pytest.raises(FeatureCacheError, match=named):
            FeatureCache(settings.path, other)
    with pytest.raises(FeatureCacheError, match=r"missing or not finished"):
        FeatureCache(str(tmp_path), {})
    with pytest.raises(ValueError, match=r"frames.pool=N"):
        cache_features(stream(archive), LITE2, settings, 0, pytest.fail)
    with pytest.raises(ValueError, match="dtype: int8 was given"):
        replace(settings, dtype="int8")


@pytest.mark.slow
def test_ray_makes_what_is_missing_and_nothing_else(cached, archive, tmp_path):
    cache, settings = cached
    again = replace(settings, path=str(tmp_path / "cache"))
    (tmp_path / "cache" / "features").mkdir(parents=True)
    for name in ("cache.json", "features/part-00000.parquet"):
        data = (tmp_path.__class__(settings.path) / name).read_bytes()
        (tmp_path / "cache" / name).write_bytes(data)
    kept = (tmp_path / "cache" / "features" / "part-00000.parquet").stat().st_mtime_ns
    counts = []
    with ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR"):
        frames = stream(archive, POOL)
        found = cache_features(frames, LITE2, again, 1, pytest.fail, counts.append)
    assert (tmp_path / "cache" / "features" / "part-00000.parquet").stat().st_mtime_ns == kept
    assert sum(counts) == 40 and found.frames() == cache.frames()
    for key in cache.frames()[::7]:
        for mine, theirs in zip(found.features(key), cache.features(key), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "cache" / "statistics.json").read_text())
