"""Shot cuts: found between scenes, and nowhere else."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.video.cuts import CutDetector, likeness
from pipeline.video.decode import FrameStream
from pipeline.video.place import DecodeState
from tests import videos
from tests.pipeline.video.test_decode import look

HEIGHT, WIDTH = 144, 240


def scene(seed: int) -> np.ndarray:
    """Surfaces, edges and texture: (288, 480) levels from 20 to 220, larger than a picture."""
    draw = np.random.default_rng(seed)
    levels = np.zeros((2 * HEIGHT, 2 * WIDTH))
    for size in (6, 15, 40):
        coarse = draw.integers(0, 256, (2 * HEIGHT // size + 1, 2 * WIDTH // size + 1), np.uint8)
        picture = Image.fromarray(coarse).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC)
        levels += np.asarray(picture) / 3
    return 20 + 200 / 255 * levels


def view(seed: int, x: int = 0, y: int = 0) -> np.ndarray:
    """A picture of a scene by a camera that points to (x, y)."""
    return scene(seed)[y : y + HEIGHT, x : x + WIDTH]


def picture(levels: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(levels.clip(0, 255).astype(np.uint8), format="gray")


def cuts_in(pictures) -> list[int]:
    """Numbers of the frames of levels that begin a shot."""
    detector = CutDetector()
    return [number for number, levels in enumerate(pictures) if detector.is_cut(picture(levels))]


def noisy(levels: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    return levels + np.random.default_rng(seed).normal(0, sigma, levels.shape)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(2, 6)), min_size=1, max_size=6),
    st.floats(0.15, 1),
    st.floats(0, 20),
    st.integers(0, 99),
)
def test_cuts_between_scenes_are_found_in_light_dark_and_noise(shots, gain, sigma, seed):
    pictures, expected, last = [], [], None
    for number, length in shots:
        if last is not None and number != last:
            expected.append(len(pictures))
        last = number
        for _ in range(length):
            pictures.append(noisy(gain * view(number), gain * sigma, seed + len(pictures)))
    assert cuts_in(pictures) == expected


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(-12, 12), st.integers(-6, 6), st.floats(0, 25))
def test_a_camera_that_turns_makes_no_cut(seed, right, down, sigma):
    """By up to a twentieth of the picture in a frame, which is a fast turn."""
    whole, pictures = scene(seed), []
    for number in range(10):
        x, y = 120 + number * right, 72 + number * down
        x, y = min(max(x, 0), WIDTH), min(max(y, 0), HEIGHT)
        pictures.append(noisy(whole[y : y + HEIGHT, x : x + WIDTH], sigma, number))
    assert cuts_in(pictures) == []


@settings(max_examples=25)
@given(st.integers(0, 99), st.floats(0.08, 3), st.floats(-30, 60), st.booleans())
def test_flashes_and_light_switches_make_no_cut(seed, gain, offset, half):
    levels, other = view(seed), gain * view(seed) + offset
    if half:  # a rolling shutter catches a part of a flash
        other = np.concatenate([other[: HEIGHT // 2], levels[HEIGHT // 2 :]])
    steady = [levels] * 3
    assert cuts_in([*steady, other, *steady]) == []
    assert cuts_in([*steady, *[other] * 4, *steady]) == []


def test_large_people_who_pass_make_no_cut():
    pictures = []
    for number in range(30):
        levels = view(3).copy()
        x = 12 * number - 100
        levels[20:, max(0, x) : max(0, x + 100)] = 200
        pictures.append(levels)
    assert cuts_in(pictures) == []


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_without_structure_is_no_shot(level):
    blank = [np.full((HEIGHT, WIDTH), level)] * 4
    shot, other = [view(1)] * 4, [view(2)] * 4
    assert cuts_in([*shot, *blank, *shot]) == []
    assert cuts_in([*shot, *blank, *other]) == [8]
    assert cuts_in([*blank, *shot]) == []


def test_noise_alone_has_no_cut():
    assert cuts_in(noisy(np.full((HEIGHT, WIDTH), 60), 60, seed) for seed in range(20)) == []


def test_the_size_of_the_picture_may_change_in_mid_stream():
    small = [np.asarray(Image.fromarray(view(4).astype(np.uint8)).resize((80, 48)))] * 3
    assert cuts_in([*[view(4)] * 3, *small, *[view(5)] * 3]) == [6]


def test_likeness_is_symmetric_and_of_a_picture_with_itself_one():
    draw = np.random.default_rng(0)
    one, other = draw.integers(0, 240, (2, 24, 40), np.uint8)
    assert likeness(one, one) == pytest.approx(1, abs=1e-6)
    assert likeness(one, other) == pytest.approx(likeness(other, one), abs=1e-6)
    assert abs(likeness(one, other)) < 0.3
    assert likeness(one, np.zeros_like(one)) is None


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=14), st.data())
def test_from_a_state_the_same_frames_are_cuts_as_in_one_pass(numbers, data):
    pictures = [view(number) for number in numbers]
    broken = data.draw(st.integers(1, len(pictures) - 1))
    detector = CutDetector()
    found = [number for number in range(broken) if detector.is_cut(picture(pictures[number]))]
    again = CutDetector(detector.state())
    found += [n for n in range(broken, len(pictures)) if again.is_cut(picture(pictures[n]))]
    assert found == cuts_in(pictures)


SHOTS = {0: 1, 14: 2, 40: 3, 41: 4, 70: 1}  # first frame of each shot, and its scene


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """A real video of five shots, two of them without motion."""
    path = tmp_path_factory.mktemp("edited") / "v.mp4"
    draw = np.random.default_rng(0)

    def shown(number: int, width: int, height: int) -> np.ndarray:
        first = max(start for start in SHOTS if start <= number)
        moved = 2 * (number - first) if SHOTS[first] % 2 else 0
        levels = view(SHOTS[first], moved, 0)[:height, :width]
        grain = draw.normal(0, 2, levels.shape)
        return np.repeat((levels + grain).clip(0, 255).astype(np.uint8)[..., None], 3, 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "picture", shown)
        return look(videos.write_video(path, frames=90, width=WIDTH, height=HEIGHT))


def read(info, start: DecodeState | None = None):
    with FrameStream(info, 96, 160, skip_still=True, start=start, keep_states=True) as stream:
        return list(stream)


def test_stream_flags_cuts_and_never_takes_them_for_still(edited):
    frames = read(edited)
    # Shots of one frame are not told from the next one: 40 begins a shot, 41 goes on.
    assert [f.index for f in frames if f.cut] == [14, 40, 70]
    assert any(f.still for f in frames)
    assert not any(f.cut and f.still for f in frames)


@pytest.mark.parametrize("index", [3, 13, 14, 39, 40, 41, 69, 88])
def test_stream_from_a_packed_state_flags_the_same_frames(edited, index):
    frames = read(edited)
    state = DecodeState.unpack(*frames[index].state.pack())
    rest = read(edited, state)
    assert [(f.index, f.cut, f.still) for f in rest] == [
        (f.index, f.cut, f.still) for f in frames[index + 1 :]
    ]
