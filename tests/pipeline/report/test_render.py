"""Overlays: what is drawn is where the tables say, at the source's times, and what is hidden is."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.report.playable import browser_plays
from pipeline.storage.files import list_videos
from pipeline.video.errors import DecodeError
from pipeline.video.probe import probe
from tests.videos import TURN_CLOCKWISE, cut, picture, read_number, set_matrix, upright, write_video

pytest.importorskip("cv2")

from pipeline.report.overlays.ahead import ahead
from pipeline.report.overlays.artist import Look
from pipeline.report.overlays.hidden import Hidden
from pipeline.report.overlays.planes import Planes, colour
from pipeline.report.overlays.render import render
from pipeline.report.overlays.rows import (
    EmptyRangeError,
    OverlayRows,
    RenderError,
    UnknownTrackError,
)

WIDTH, HEIGHT, RATE = 480, 360, 25


def rows_of(tracks, count=20, times=None, trust=None, quality=0.8, cuts=()):
    """Rows of frames, and of tracks as {id: {frame: (x, y, w, h)}}."""
    times = np.arange(count) / RATE if times is None else np.array(times, np.float64)
    count = len(times)
    found = [(n, at, *box) for n in sorted(tracks) for at, box in sorted(tracks[n].items())]
    table = np.array(found, np.float64).reshape(-1, 6)
    return OverlayRows(
        np.arange(count), times, np.full(count, quality, np.float32), np.ones(count, bool),
        np.isin(np.arange(count), cuts), table[:, 1].astype(int), table[:, 0].astype(int),
        table[:, 2:].astype(np.float32), np.full(len(table), 0.9, np.float32), trust or {},
    )  # fmt: skip


def walker(frames, y=200, dx=4, x=40):
    """Boxes of 30 by 60 that walk right."""
    return {at: (x + dx * at, y, 30, 60) for at in frames}


def info_of(path):
    return probe(next(list_videos(str(path))))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Twenty numbered frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return info_of(write_video(path, frames=20, width=WIDTH, height=HEIGHT))


def drawn(tmp_path, info, rows, within=None, tracks=None, blur="none"):
    """Decoded frames of an overlay, their times, and what was said of it."""
    shown = frozenset(rows.chosen((), 0)) if tracks is None else frozenset(tracks)
    within = range(len(rows.time_s)) if within is None else within
    video = tmp_path / "drawn.mp4"
    overlay = render(info, rows, within, Look(shown, blur), video, tmp_path / "drawn.png")
    with av.open(str(video)) as container:
        frames = list(container.decode(video=0))
    return [f.to_ndarray(format="rgb24") for f in frames], [float(f.time) for f in frames], overlay


def changed(shown, number):
    """Where a frame differs from its source by more than the codec does."""
    source = picture(number, shown.shape[1], shown.shape[0])
    return np.abs(shown.astype(int) - source).max(axis=2) > 60


def test_boxes_trails_and_bar_are_drawn(tmp_path, clip):
    frames, _, overlay = drawn(tmp_path, clip, rows_of({3: walker(range(20))}))
    assert (overlay.frames, overlay.boxes, overlay.missing, overlay.error) == (20, 20, 0, None)
    marks = changed(frames[19], 19)
    left = 40 + 4 * 19
    assert marks[210:250, left : left + 2].mean() > 0.9  # the left edge of the box
    assert not marks[212:250, left + 8 : left + 22].any()  # within the box nothing
    assert marks[258:262, 60 : left - 4].any(axis=0).mean() > 0.9  # the trail of its feet
    assert marks[170:200, left : left + 60].any()  # the label
    assert marks[7:10, 8:100].mean() > 0.9  # the bar of quality
    assert not marks[280:, 240:].any()


def test_the_bar_is_as_long_as_the_quality(tmp_path, clip):
    lengths = []
    for quality in (0.25, 1.0):
        frames, _, _ = drawn(tmp_path, clip, rows_of({}, quality=quality), range(1))
        bar = frames[0][8, 6 : 6 + WIDTH // 4].astype(int)
        lengths.append((bar[:, 0] - bar[:, 2] > 60).mean())  # yellow
    assert lengths == pytest.approx([0.25, 1.0], abs=0.04)


def test_times_are_those_of_the_source_and_begin_at_zero(tmp_path):
    milliseconds = [0, 40, 60, 700, 740, 1500]
    path = write_video(
        tmp_path / "a.mkv", frames=6, width=WIDTH, height=HEIGHT, milliseconds=milliseconds
    )
    rows = rows_of({1: walker(range(6))}, times=np.array(milliseconds) / 1000)
    frames, times, _ = drawn(tmp_path, info_of(path), rows)
    np.testing.assert_allclose(times, np.array(milliseconds) / 1000, atol=1e-3)
    assert [read_number(frame) for frame in frames] == list(range(6))
    frames, times, _ = drawn(tmp_path, info_of(path), rows, rows.within(0.06, 1.0))
    np.testing.assert_allclose(times, [0, 0.64, 0.68], atol=1e-3)
    assert [read_number(frame) for frame in frames] == [2, 3, 4]


def test_a_range_of_a_long_video_is_found(tmp_path):
    path = write_video(tmp_path / "long.mp4", frames=250, width=WIDTH, height=HEIGHT)
    rows = rows_of({1: {at: (5, 150, 30, 60) for at in range(250)}}, 250)
    frames, _, overlay = drawn(tmp_path, info_of(path), rows, rows.within(9.0, 9.2))
    assert [read_number(frame) for frame in frames] == list(range(225, 230))
    assert overlay.boxes == 5


def test_equal_times_and_untracked_frames(tmp_path, clip):
    """Of tables whose frames were sampled, only those frames are shown, with their boxes."""
    kept = [0, 3, 5, 19]
    rows = rows_of({1: walker([0, 1, 2, 3])}, times=np.array(kept) / RATE)
    frames, times, overlay = drawn(tmp_path, clip, rows)
    assert [read_number(frame) for frame in frames] == kept
    assert overlay.boxes == 4
    np.testing.assert_allclose(times, np.array(kept) / RATE, atol=1e-3)


@pytest.mark.parametrize("degrees", TURN_CLOCKWISE)
def test_rotation_is_applied(tmp_path, degrees):
    path = write_video(tmp_path / "turned.mp4", frames=3, width=WIDTH, height=HEIGHT)
    set_matrix(path, TURN_CLOCKWISE[degrees])
    frames, _, _ = drawn(tmp_path, info_of(path), rows_of({}, 3))
    expected = upright(picture(1, WIDTH, HEIGHT), degrees)
    assert frames[1].shape == expected.shape
    away = np.abs(frames[1].astype(int) - expected).max(axis=2)[40:, 140:]
    assert np.median(away) < 8 and (away > 60).mean() < 0.02


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuv444p", "gray", "yuv420p10le"])
def test_other_formats_keep_their_brightness(tmp_path, pixel_format):
    codec = "mjpeg" if pixel_format == "yuvj420p" else "ffv1"
    path = write_video(
        tmp_path / "a.mkv", frames=2, width=WIDTH, height=HEIGHT, codec=codec,
        pixel_format=pixel_format,
    )  # fmt: skip
    frames, _, _ = drawn(tmp_path, info_of(path), rows_of({}, 2))
    expected = picture(1, WIDTH, HEIGHT)[100:, 200:]
    assert np.abs(np.median(frames[1][100:, 200:], axis=(0, 1)) - np.median(expected)).max() < 6


@pytest.mark.parametrize(("height", "width", "scale"), [(145, 211, 2), (362, 401, 1)])
def test_small_pictures_are_enlarged_and_odd_sides_made_even(tmp_path, height, width, scale):
    path = write_video(
        tmp_path / "odd.mkv", frames=2, width=width, height=height, codec="ffv1",
        pixel_format="yuv444p",
    )  # fmt: skip
    frames, _, _ = drawn(tmp_path, info_of(path), rows_of({1: walker(range(2), y=60)}, 2))
    sides = scale * height, scale * width
    assert frames[0].shape[:2] == tuple(side + side % 2 for side in sides)
    box = frames[1][scale * 62 : scale * 118, scale * 44 : scale * 44 + 2].astype(int)
    assert (box[..., 0] - box[..., 1] > 50).mean() > 0.8  # the red of track 1 in BT.601 or 709


def test_browsers_play_it_before_all_of_it_is_there(tmp_path, clip):
    drawn(tmp_path, clip, rows_of({1: walker(range(20))}))
    assert browser_plays(info_of(tmp_path / "drawn.mp4"))
    data = (tmp_path / "drawn.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_contact_sheet_has_twelve_tiles_at_most(tmp_path, clip):
    _, _, overlay = drawn(tmp_path, clip, rows_of({}))
    assert overlay.tiles == 12
    with Image.open(tmp_path / "drawn.png") as sheet:
        assert sheet.size == (1600, 3 * (300 + 16))
    _, _, overlay = drawn(tmp_path, clip, rows_of({}), range(4, 9))
    assert overlay.tiles == 5


def test_only_chosen_tracks_are_drawn(tmp_path, clip):
    rows = rows_of(
        {1: walker(range(20)), 2: walker(range(20), y=280), 7: walker([3], y=100)},
        trust={1: 0.9, 2: 0.2},
    )
    assert rows.chosen((), 0.5) == {1, 7}  # an unknown trust is no low one
    assert rows.chosen((2,), 0.5) == set()
    assert rows.chosen((2, 7), 0) == {2, 7}
    frames, _, overlay = drawn(tmp_path, clip, rows, tracks=[1])
    assert overlay.boxes == 20
    marks = changed(frames[10], 10)
    assert marks[200:262, 80:112].any() and not marks[275:345, 60:130].any()
    with pytest.raises(UnknownTrackError, match="tracks: 5, 9 are not in this video; it has 1, 2,"):
        rows.chosen((9, 1, 5), 0)
    with pytest.raises(UnknownTrackError, match="tracks: 4 is not in this video; it has no track"):
        rows_of({}).chosen((4,), 0)


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (2, None), (None, 0), (0.6, 0.2)])
def test_a_range_without_frames_says_where_they_are(start, end):
    with pytest.raises(EmptyRangeError, match=r"no frame to draw; .* from 0\.00 to 0\.76 s"):
        rows_of({}).within(start, end)


def test_people_are_hidden_beyond_recognition(tmp_path, clip):
    """In the box of track 1 lies the coded number, and after hiding it cannot be read."""
    boxes = {at: (0, 40, 240, 130) for at in range(20)}
    rows = rows_of({1: boxes})
    seen, _, _ = drawn(tmp_path, clip, rows, tracks=[])
    assert read_number(seen[19]) == 19
    hidden, _, _ = drawn(tmp_path, clip, rows, tracks=[], blur="people")
    region = hidden[19][60:165, 4:236].astype(int).mean(axis=2)
    # Few flat cells: nearly every pixel is that of the pixel beside it.
    assert (np.abs(np.diff(region, axis=1)) < 4).mean() > 0.96
    assert len(np.unique(region[::8, ::8].round(-1))) <= 9
    assert not changed(hidden[19], 19)[220:, :].any()  # all else is as it was


def test_tracks_that_are_not_drawn_are_hidden_too(tmp_path, clip):
    rows = rows_of({1: {at: (0, 40, 240, 130) for at in range(20)}, 2: walker(range(20), y=280)})
    frames, _, overlay = drawn(tmp_path, clip, rows, tracks=[2], blur="people")
    assert overlay.boxes == 20
    region = frames[19][60:165, 4:236].astype(int).mean(axis=2)
    assert (np.abs(np.diff(region, axis=1)) < 4).mean() > 0.96


def test_heads_are_the_upper_part_and_more_of_those_who_sit(tmp_path):
    rows = rows_of({1: {0: (100, 100, 40, 160)}, 2: {0: (300, 100, 160, 120)}}, 1)
    planes = Planes(HEIGHT, WIDTH)
    random = np.random.default_rng(0)
    noise = random.integers(16, 235, planes.luma.shape)
    planes.luma[:] = noise
    for plane in planes.colours:
        plane[:] = 128
    Hidden(rows, "heads").hide(planes, 0, 1)
    touched = planes.luma != noise
    assert touched[100:135, 100:140].mean() > 0.95  # head and shoulders of who stands
    assert not touched[160:, 90:150].any()
    assert touched[100:220, 300:460].mean() > 0.95


@given(
    st.sets(st.integers(0, 39), min_size=1, max_size=12),
    st.sets(st.integers(0, 39), max_size=6),
    st.integers(0, 39),
)
@settings(max_examples=60, deadline=None)
def test_a_person_stays_hidden_from_the_first_to_the_last_box(first, second, cut_at):
    rows = rows_of({4: walker(first), 9: walker(second, y=20)}, 40, cuts=(cut_at,))
    hidden = Hidden(rows, "people")
    shot = np.cumsum(rows.cut)
    for at in range(40):
        boxes = hidden.boxes(at)
        for frames, y in ((first, 200), (second, 20)):
            if not frames:
                continue
            centre = np.array([40 + 4 * at + 15, y + 30])
            inside = [
                (box[:2] <= centre).all() and (centre <= box[:2] + box[2:]).all() for box in boxes
            ]
            if min(frames) <= at <= max(frames):
                assert any(inside), f"frame {at} of {sorted(frames)}"
            end = min(frames) if at < min(frames) else max(frames)
            if not min(frames) <= at <= max(frames) and abs(end - at) <= 12:
                there = np.array([40 + 4 * end + 15, y + 30])
                held = [(b[:2] <= there).all() and (there <= b[:2] + b[2:]).all() for b in boxes]
                assert any(held) or shot[end] != shot[at]


def test_a_source_that_breaks_off_is_told(tmp_path):
    path = write_video(tmp_path / "a.ts", frames=60, width=WIDTH, height=HEIGHT, container="mpegts")
    cut(path, 0.5)
    frames, _, overlay = drawn(tmp_path, info_of(path), rows_of({1: walker(range(60))}, 60))
    assert 10 < len(frames) < 50 and overlay.missing == 60 - len(frames)
    with pytest.raises(DecodeError, match=r"the video ends at 1\.\d+ s"):
        drawn(tmp_path, info_of(path), rows_of({}, times=[100.0, 100.04]))
    with pytest.raises(RenderError, match=r"a\.ts: no frame to draw; .* from 0\.02 to 0\.05 s"):
        drawn(tmp_path, info_of(path), rows_of({}, times=[0.02, 0.05]))  # another video's
    assert not (tmp_path / "drawn.mp4").exists()


def test_colours_are_those_of_bt_709():
    assert colour("#ffffff") == (235, 128, 128) and colour("#000000") == (16, 128, 128)
    assert colour("#ff0000") == (63, 102, 240)


def test_what_is_computed_ahead_comes_in_order_and_raises_in_place():
    def items():
        yield from range(5)
        raise ValueError("broken")

    broken = ahead(items(), 2)
    assert [next(broken) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="broken"):
        next(broken)
    some = ahead(iter(range(1000)), 2)
    assert [next(some) for _ in range(3)] == [0, 1, 2]
    some.close()
