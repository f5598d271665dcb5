"""Tracks end at shot cuts, wherever a window begins and whatever runs the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.net.letterbox import Letterbox
from pipeline.degrade.conditions import Condition
from pipeline.inference.batched_model import BatchedModel
from pipeline.inference.shots import track_shots
from pipeline.inference.stream_batcher import StreamBatcher
from pipeline.trackers.runners import StudentRun
from pipeline.trackers.sequence_frames import Shot
from pipeline.tracking.track_video import TrackSettings
from pipeline.video.decode import Frame
from tests import videos
from tests.pipeline.tracking.test_track import info_of, tracked
from tests.pipeline.video.test_cuts import HEIGHT, WIDTH, view
from tests.tiny import tiny_inputs, tiny_tracker

FIRST, FRAMES = 11, 26
"""Frames of the first shot, and of the video."""


def shown(number, width, height):
    """Two shots, in each of which the camera turns."""
    scene, x = (1, 2 * number) if number < FIRST else (2, number)
    return np.repeat(view(scene, x)[:height, :width].astype(np.uint8)[..., None], 3, 2)


def write(path, start, stop):
    """A video without loss of these frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "picture", lambda n, w, h: shown(n + start, w, h))
        return info_of(
            videos.write_video(path, frames=stop - start, width=WIDTH, height=HEIGHT, codec="ffv1")
        )


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """The video of both shots, and those of each shot."""
    folder = tmp_path_factory.mktemp("shots")
    parts = ((0, FRAMES), (0, FIRST), (FIRST, FRAMES))
    return [write(folder / f"{start}-{stop}.mkv", start, stop) for start, stop in parts]


@pytest.fixture
def settings(weights):
    return TrackSettings(str(weights), skip_still=False)


def rows(info, settings):
    tracks, frames, row = tracked(info, settings)
    return tracks.to_pandas(), frames.to_pandas(), row


def test_each_shot_has_the_rows_that_it_has_alone(edited, settings):
    """But for ids, which go on, and frames and times, which are those of the whole video."""
    one_by_one = replace(settings, window=1)
    (both, frames, row), *alone = [rows(info, one_by_one) for info in edited]
    assert frames.frame_index[frames.cut].tolist() == [FIRST]
    assert row["cut_times_s"] == frames.time_s[frames.cut].tolist()
    halves = both[both.frame_index < FIRST], both[both.frame_index >= FIRST]
    exact = ["x", "y", "w", "h", "score", "semantic_weight"]
    for half, (tracks, _, _), start in zip(halves, alone, (0, FIRST), strict=True):
        assert len(half)
        assert half[exact].reset_index(drop=True).equals(tracks[exact])
        assert (half.frame_index.to_numpy() - start == tracks.frame_index).all()
    first, second = alone[0][0].track_id, halves[1].track_id
    assert second.min() > first.max()
    offset = second.to_numpy() - alone[1][0].track_id.to_numpy()
    assert len(set(offset)) == 1
    values = ["quality", "noise", "semantic_weight", "num_tracks"]
    together = np.concatenate([part[1][values] for part in alone])
    assert (frames[values].to_numpy() == together).all()


@pytest.mark.parametrize("window", [2, 8, 64])
def test_windows_with_a_cut_have_the_rows_of_single_frames(edited, settings, window):
    many, frames, _ = rows(edited[0], replace(settings, window=window))
    one, single_frames, _ = rows(edited[0], replace(settings, window=1))
    assert frames.cut.equals(single_frames.cut)
    assert many[["frame_index", "track_id"]].equals(one[["frame_index", "track_id"]])
    numbers = ["x", "y", "w", "h", "score"]
    assert np.allclose(many[numbers], one[numbers], atol=1e-2)


CUTS = ([], [0], [3], [0, 1, 5], [2, 7])


def marked(cuts, count=8):
    nothing = np.empty((0, 0, 3), np.uint8), np.empty((0, 0, 0), np.uint8)
    return [Frame(i, i / 25, *nothing, cut=i in cuts) for i in range(count)]


def ids_of(results):
    return [sorted(r.track_id[r.track_id >= 0].tolist()) for r in results]


@pytest.mark.parametrize("cuts", CUTS)
def test_model_for_many_videos_ends_tracks_as_the_tracker_does(cuts):
    tracker = tiny_tracker(lively=True)
    batcher = StreamBatcher(BatchedModel(tiny_tracker(lively=True), 2, 8, "fp32"))
    found = []
    flags = [frame.cut for frame in marked(cuts)]
    for model in (tracker, batcher):
        with torch.inference_mode():
            encoded = model.encode(*tiny_inputs(8))
            state = model.initial_state(1)
            results = []
            for window in (slice(0, 4), slice(4, 8)):
                part, state = track_shots(model, encoded[window], flags[window], state)
                results += part
            found.append((ids_of(results), int(state.next_id)))
    batcher.close()
    assert found[0] == found[1]
    last: set[int] = set()
    for number, ids in enumerate(found[0][0]):
        if number in cuts:
            assert not last & set(ids) and (not last or min(ids) > max(last))
        last |= set(ids)


def test_a_benchmark_cell_ends_tracks_at_the_same_frames():
    images, _, patches = (x.numpy() for x in tiny_inputs(8))
    shots = []
    for frame in marked([3]):
        picture = images[frame.index].transpose(1, 2, 0)
        frame = replace(frame, image=picture, patches=patches[frame.index])
        shots.append(Shot(frame.index, {(64, 96): frame}, None, 0.0, 0.0, 0.0))
    box = Letterbox(64, 96, 64, 96)
    run = StudentRun(tiny_tracker(lively=True), ["full"], "S", Condition(), box, "cpu")
    for window in (shots[:2], shots[2:]):
        run.process(window)
    tracks = run.outputs["full"].tracks
    before, after = (
        {int(i) for part in tracks for f, i in zip(part.frame, part.track_id, strict=True)
         if (f <= 3) == first}
        for first in (True, False)
    )  # fmt: skip
    assert before and after and not before & after
