"""How videos share a worker's student, and how workers share a GPU."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from model.settings import build
from pipeline.archive.plan import Segment
from pipeline.inference.batched_model import BatchedModel
from pipeline.inference.stream_batcher import DeviceLost, OneAtATime, StreamBatcher
from pipeline.inference.stream_plan import ONE_AT_A_TIME, StreamPlan
from pipeline.runtime.settings import ClusterConfig
from pipeline.storage.files import list_stems, list_videos
from pipeline.storage.schema import table_uri
from pipeline.tracking import on_ray
from pipeline.tracking import worker as worker_module
from pipeline.tracking.memory_estimate import estimate, fitting_streams, machine_memory
from pipeline.tracking.sharing import Shared, open_shared, stream_plan
from pipeline.tracking.track_video import TrackSettings, open_tracker
from pipeline.tracking.worker import VideoTracker
from pipeline.video.limits import Limits
from pipeline.video.probe import probe
from tests.tiny import TINY
from tests.videos import write_video


@pytest.fixture
def settings(weights, tmp_path):
    return TrackSettings(str(weights), str(tmp_path / "out"), runtime="torch")


@pytest.mark.parametrize(("share", "actors"), [(1.0, 2), (0.5, 4), (0.3, 6)])
def test_workers_share_a_gpu(monkeypatch, share, actors):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 2.0, "CPU": 16.0})
    assert on_ray.cluster_actors(None, share) == (2, actors)
    assert on_ray.cluster_actors(3, share) == (2, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpu_share": 0}, r"gpu_share: 0.* allowed is a number, more than 0"),
        ({"gpu_share": 1.5}, "gpu_share: 1.5 was given"),
        ({"streams": 0}, "streams: 0 was given"),
    ],
)
def test_shares_have_bounds(values, message):
    with pytest.raises(ValueError, match=message):
        build(ClusterConfig, values)


def test_one_video_at_a_time_on_a_cpu_unless_it_is_said(settings):
    assert stream_plan(settings, ClusterConfig()) == ONE_AT_A_TIME
    assert stream_plan(settings, ClusterConfig(streams=5)) == StreamPlan(5)
    shared = open_shared(settings, StreamPlan(5))
    assert isinstance(shared.model, OneAtATime) and shared.settings == settings
    assert shared.runtime.startswith("torch")


def test_a_number_that_is_given_is_not_measured(settings):
    on_gpu, cluster = replace(settings, device="cuda"), ClusterConfig(streams=6, gpu_share=0.5)
    plan = on_ray.plan_on_ray(on_gpu, cluster)
    assert (plan.streams, plan.rows, plan.frames, plan.gpu_share) == (6, 3, 24, 0.5)


def test_as_many_videos_as_fit_into_ram(tmp_path):
    video = probe(next(list_videos(str(write_video(tmp_path / "v.mp4", frames=3)))))

    def estimated(streams):
        found = estimate(TINY, 8, 32, [video], Limits(), streams)
        # As if each video needed a quarter of the memory, and the process none.
        return replace(found, process=0, encode=0, decoder=streams * machine_memory() // 4)

    assert fitting_streams(estimated, 16, 1, on_gpu=True) == 3
    assert fitting_streams(estimated, 2, 1, on_gpu=True) == 2
    assert fitting_streams(estimated, 16, 8, on_gpu=True) == 1
    one, many = (estimate(TINY, 8, 32, [video], Limits(), n) for n in (1, 5))
    assert many.queue == 5 * one.queue and many.decoder == 5 * one.decoder
    assert many.process == one.process and many.encode == one.encode


def test_a_lost_gpu_ends_the_run_and_blames_no_video(settings, tmp_path, monkeypatch):
    video = probe(next(list_videos(str(write_video(tmp_path / "v.mp4", frames=3)))))

    def track_video(*arguments):
        raise DeviceLost("the GPU failed: unspecified launch failure")

    worker = VideoTracker(replace(settings, in_process=True))
    monkeypatch.setattr(worker_module, "track_video", track_video)
    result = worker.track(Segment(video))
    assert (result.outcome, result.message[:14]) == ("unwritten", "the GPU failed")
    assert list_stems(f"{settings.output}/dead_letters") == set()


def test_videos_in_one_batch_have_the_rows_of_each_alone(settings, tmp_path, monkeypatch):
    """From files to tables, as on a GPU: ids are equal, boxes within a hundredth of a pixel."""
    files = [write_video(tmp_path / f"{n}.mp4", frames=n) for n in (19, 7, 12, 3)]
    videos = [probe(next(list_videos(str(path)))) for path in files]
    alone = replace(settings, output=str(tmp_path / "alone"))
    one = VideoTracker(alone)
    assert {one.track(Segment(video)).outcome for video in videos} == {"ok"}

    def joined(settings, plan, notice):
        model = BatchedModel(open_tracker(settings), plan.rows, plan.frames, "fp32")
        return Shared(StreamBatcher(model), "batched", settings)

    monkeypatch.setattr(worker_module, "open_shared", joined)
    many = VideoTracker(settings, plan=StreamPlan(streams=3, rows=2, frames=16))
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(many.track, map(Segment, videos)))
    assert [(r.outcome, r.runtime) for r in results] == [("ok", "batched")] * 4
    for video in videos:
        found, wanted = (
            pq.read_table(table_uri(output, "tracks", video.video_id)).to_pandas()
            for output in (settings.output, alone.output)
        )
        assert len(wanted)
        exact = ["frame_index", "track_id", "class_name"]
        assert found[exact].equals(wanted[exact])
        close = ["x", "y", "w", "h", "score"]
        np.testing.assert_allclose(found[close], wanted[close], rtol=0, atol=1e-2)
