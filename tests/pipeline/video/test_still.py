"""Still frames: noise is none of a person's doing, and a faint person is no noise."""

from itertools import groupby

import av
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.video.decode import FrameStream
from pipeline.video.picture import luma_patches
from pipeline.video.still import StillDetector
from tests import videos
from tests.pipeline.video.test_decode import look

FPS = 25
HEIGHT, WIDTH = 240, 320


def scene(seed):
    """Walls, edges and texture, as levels."""
    draw = np.random.default_rng(seed)
    coarse = draw.uniform(30, 200, (HEIGHT // 40, WIDTH // 40))
    return np.kron(coarse, np.ones((40, 40))) + draw.normal(0, 4, (HEIGHT, WIDTH))


def still_frames(pictures, fps=FPS):
    """For each picture of levels, whether the detector takes it for still."""
    detector, found = StillDetector(), []
    for number, levels in enumerate(pictures):
        pixels = levels.clip(0, 255).astype(np.uint8)
        picture = av.VideoFrame.from_ndarray(pixels, format="gray")
        found.append(detector.is_still(picture, number / fps, luma_patches(picture)))
    return np.array(found)


def noisy(background, sigma, seed, count):
    draw = np.random.default_rng(seed)
    for _ in range(count):
        yield background + draw.normal(0, sigma, background.shape)


@settings(max_examples=10)
@given(st.floats(0, 25), st.integers(0, 99))
def test_noise_alone_is_encoded_once_a_second(sigma, seed):
    found = still_frames(noisy(scene(seed), sigma, seed, 4 * FPS))
    settled = found[2 * FPS :]
    assert (~settled).nonzero()[0].tolist() == [0, FPS]


@settings(max_examples=10)
@given(st.floats(0, 15), st.integers(0, 99), st.booleans())
def test_a_small_faint_walker_is_seen_as_soon_as_he_moves(sigma, seed, darker):
    """Of 12 by 24 pixels, and as far above the background as an eye can see in such noise."""
    background, count = scene(seed), 3 * FPS
    contrast = (10 + 2 * sigma) * (-1 if darker else 1)

    # A walker who is darker than black, or lighter than white, is fainter than was meant.
    way = background[120:144, 100:162] + np.random.default_rng(seed).normal(0, sigma, (24, 62))
    shown = (way + contrast).clip(0, 255) - way.clip(0, 255)
    assume(abs(shown.mean()) > 0.9 * abs(contrast))

    def pictures():
        for number, levels in enumerate(noisy(background, sigma, seed, count)):
            # He stands there for two seconds, then walks, two pixels a frame.
            x = 100 + 2 * max(0, number - 2 * FPS)
            levels[120:144, x : x + 12] += contrast
            yield levels

    found = still_frames(pictures())
    assert found[2 * FPS - 10 : 2 * FPS].all()
    moved = found[2 * FPS :].tolist()
    # Where noise hides a step, one of the next steps shows.
    assert max((len(list(run)) for still, run in groupby(moved) if still), default=0) <= 6, moved
    assert sum(moved) <= len(moved) / 2


@given(st.lists(st.floats(0.001, 3), min_size=1, max_size=60))
@settings(max_examples=50)
def test_the_first_frame_of_every_second_is_encoded(gaps):
    detector = StillDetector()
    picture = av.VideoFrame.from_ndarray(np.full((64, 64), 90, np.uint8), format="gray")
    patches = luma_patches(picture)
    last = -1
    for time_s in np.cumsum(gaps):
        still = detector.is_still(picture, float(time_s), patches)
        assert not (still and int(time_s) > last)
        last = int(time_s)


def test_the_picture_is_compared_with_the_last_encoded_one():
    """A walker of a quarter pixel a frame differs from the last frame by nothing to be seen."""
    background = scene(3)

    def pictures():
        for number in range(4 * FPS):
            levels = background.copy()
            levels[100:140, 100 + number // 4 : 116 + number // 4] = 20
            yield levels

    found = still_frames(pictures())
    gaps = np.diff((~found).nonzero()[0])
    assert gaps.max() <= 4


def test_light_on_the_whole_picture_is_no_change_and_a_cut_is():
    background = scene(5)
    brighter = [background + 0.2 * number for number in range(2 * FPS)]
    assert still_frames(brighter).sum() >= 2 * FPS - 12
    cut = [*[background] * 40, *[scene(6)] * 20]
    found = still_frames(cut)
    assert found[30:40].all() and not found[40:45].any()


def test_a_change_is_followed_by_a_fifth_of_a_second_of_encoded_frames():
    background = scene(7)
    lit = background.copy()
    lit[40:80, 40:80] += 60
    found = still_frames([*[background] * 30, *[lit] * 19])
    assert found[27:30].all()
    assert (~found[30:]).nonzero()[0].tolist() == list(range(6))


def test_a_new_size_starts_anew():
    detector = StillDetector()
    for number, side in enumerate((64, 64, 128, 128)):
        picture = av.VideoFrame.from_ndarray(np.full((64, side), 90, np.uint8), format="gray")
        still = detector.is_still(picture, 0.3 * number, luma_patches(picture))
        assert still == (number in (1, 3))


@pytest.mark.parametrize("skip", [True, False])
def test_stream_gives_still_frames_without_picture(tmp_path, monkeypatch, skip):
    monkeypatch.setattr(videos, "picture", lambda number, width, height: PICTURES[number // 40])
    info = look(videos.write_video(tmp_path / "v.mp4", frames=80))
    with FrameStream(info, 96, 160, skip_still=skip) as stream:
        frames = list(stream)
    assert [f.index for f in frames] == list(range(80))
    still = [f.index for f in frames if f.still]
    assert bool(still) == skip
    assert not {0, 25, 40, 50, 75} & set(still)
    for frame in frames:
        assert (frame.image.size == frame.patches.size == 0) == frame.still


PICTURES = [videos.picture(0, 160, 96), videos.picture(9, 160, 96)]
