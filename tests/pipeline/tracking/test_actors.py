"""How many actors a run has: all cores, unless memory or the user says less."""

from types import SimpleNamespace

import numpy as np
import pytest

from model.net.config import SIZES
from pipeline.runtime import machine
from pipeline.runtime.settings import Pool
from pipeline.storage.files import list_videos
from pipeline.tracking import memory_estimate as memory
from pipeline.tracking import on_ray
from pipeline.tracking.track_video import TrackSettings
from pipeline.video.decoder import Decoder
from pipeline.video.probe import probe
from tests.videos import write_video


@pytest.fixture
def cluster(monkeypatch):
    """Set the resources that Ray tells of."""

    def have(**resources):
        told = SimpleNamespace(cluster_resources=lambda: resources)
        monkeypatch.setattr(on_ray, "ray", told)

    return have


def test_there_is_an_actor_for_each_cpu_or_gpu_unless_the_user_says_otherwise(cluster):
    cluster(CPU=8.0)
    assert on_ray.cluster_actors(None) == (0, 8)
    assert on_ray.cluster_actors(3) == (0, 3)
    cluster(CPU=8.0, GPU=2.0)
    assert on_ray.cluster_actors(None) == (2, 2)
    cluster(CPU=0.0)
    assert on_ray.cluster_actors(None) == (0, 1)


@pytest.mark.parametrize(("workers", "cpus"), [(None, 4), (2, 4), (6, 6), (0, 4)])
def test_a_cluster_of_our_own_has_room_for_its_actors(monkeypatch, workers, cpus):
    asked = []

    class Cluster:
        def __init__(self, address, count, environment):
            asked.append(count)

        def __enter__(self):
            return True

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(on_ray, "usable_cores", lambda: 4)
    monkeypatch.setattr(on_ray.ray_cluster, "connected", Cluster)
    with on_ray.connected("", workers):
        assert asked == [cpus]


def test_short_memory_makes_actors_fewer_but_never_none(monkeypatch):
    need = memory.MemoryEstimate(process=80, encode=20, queue=0, decoder=0, rows=0)
    monkeypatch.setattr(memory, "machine_memory", lambda: 350)
    assert memory.fitting_actors(need, 8, on_gpu=False) == 3
    assert memory.fitting_actors(need, 8, on_gpu=True) == 4
    assert memory.fitting_actors(need, 2, on_gpu=False) == 2
    memory.check_memory(need, 3, on_gpu=False)
    with pytest.raises(memory.MemoryRefused, match=r"4 actors need .*Lower cluster\.workers"):
        memory.check_memory(need, 4, on_gpu=False)
    monkeypatch.setattr(memory, "machine_memory", lambda: 50)
    assert memory.fitting_actors(need, 8, on_gpu=False) == 1


def test_later_chunks_get_the_memory_of_the_first_one(monkeypatch):
    def need(size):
        return memory.MemoryEstimate(process=size, encode=0, queue=0, decoder=0, rows=0)

    run = memory.RunMemory(SIZES["nano"], TrackSettings("", device="cpu"))
    monkeypatch.setattr(memory, "machine_memory", lambda: 350)
    assert run.fitting_actors(need(100), Pool(1, 8, None)) == 3
    # Actors of the first chunk still have it, so that free memory says nothing.
    monkeypatch.setattr(memory, "machine_memory", lambda: 0)
    assert run.fitting_actors(need(100), Pool(1, 8, None)) == 3
    assert run.fitting_actors(need(150), Pool(1, 8, None)) == 2
    assert run.fitting_actors(need(999), Pool(1, 8, None)) == 1
    assert run.fitting_actors(need(10), Pool(1, 2, None)) == 2
    other = memory.RunMemory(SIZES["nano"], TrackSettings("", device="cpu"))
    monkeypatch.setattr(memory, "machine_memory", lambda: 350)
    with pytest.raises(memory.MemoryRefused, match="4 actors need"):
        other.fitting_actors(need(100), Pool(4, 4, 4))


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4)],
)
def test_a_quota_of_the_container_is_kept(monkeypatch, tmp_path, text, cores):
    quota = tmp_path / "cpu.max"
    quota.write_text(f"{text}\n")
    monkeypatch.setattr(machine, "_QUOTA", quota)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: range(4), raising=False)
    assert machine.usable_cores() == cores
    quota.unlink()
    assert machine.usable_cores() == 4


def test_threads_of_libav_do_not_change_a_frame(tmp_path):
    video = write_video(tmp_path / "a.mp4", frames=30)
    info = probe(next(list_videos(str(video))))
    by_threads = [
        [
            (i, t, frame.to_ndarray(format="rgb24"))
            for i, t, frame in Decoder(info, None, n).frames()
        ]
        for n in (0, 1, 3)
    ]
    for frames in by_threads[1:]:
        for (i, t, picture), (j, s, other) in zip(by_threads[0], frames, strict=True):
            assert (i, t) == (j, s)
            assert np.array_equal(picture, other)
