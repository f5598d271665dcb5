"""Regions: what lies in them, what is cropped, and how a crop is cut out of stored pictures."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from model.net.letterbox import Letterbox
from pipeline.video.decode import FrameStream
from pipeline.video.picture import Cropper, fit, stored_luma
from pipeline.video.region import Crop, Region, RegionError, in_shares, problem_of
from tests import videos
from tests.pipeline.video.test_decode import look

SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
WHOLE = ((0, 0), (1, 0), (1, 1), (0, 1))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_a_rectangle_holds_what_is_between_its_sides(points):
    region = Region.of([SQUARE], 200, 100)
    points = np.array(points) * (100, 200)
    x, y = points.T
    away = (abs(x - 25) > 0.1) & (abs(x - 75) > 0.1) & (abs(y - 50) > 0.1) & (abs(y - 150) > 0.1)
    expected = (x > 25) & (x < 75) & (y > 50) & (y < 150)
    assert (region.holds(points) == expected)[away].all()


def test_concave_and_several_polygons():
    l_shape = ((10, 10), (90, 10), (90, 30), (30, 30), (30, 90), (10, 90))
    region = Region.of([l_shape, ((60, 60), (95, 60), (95, 95))], 100, 100)
    inside = [(20, 20), (80, 20), (20, 80), (90, 70)]
    outside = [(50, 50), (75, 85), (5, 20), (62, 90)]
    assert region.holds(np.array(inside)).all() and not region.holds(np.array(outside)).any()


def test_whoever_stands_on_the_border_of_the_picture_is_in_it():
    region = Region.of([WHOLE], 90, 160)
    corners = [(0, 0), (160, 0), (0, 90), (160, 90), (80, 90), (-3, 95)]
    assert region.holds(np.array(corners)).all()
    assert region.crop is None


def test_crop_has_room_for_people_at_its_edge_and_stays_in_the_picture():
    crop = Region.of([((0.5, 0.5), (0.6, 0.5), (0.6, 0.7))], 480, 640).crop
    assert crop == Crop(280, 120, 144, 246)
    assert Region.of([((0, 0.9), (0.2, 0.9), (0.2, 1))], 101, 163).crop == Crop(0, 64, 44, 37)


@pytest.mark.parametrize("points", [((0, 0), (641, 10), (10, 300)), ((0, 0), (50, 481), (90, 20))])
def test_a_region_in_pixels_beyond_the_picture_is_an_error_that_tells_both_sizes(points):
    Region.of([points], 500, 700)
    with pytest.raises(RegionError, match=r"only\.region reaches to .* 640x480 pixels; give"):
        Region.of([points], 480, 640)


def test_shares_and_pixels():
    assert in_shares([SQUARE]) and not in_shares([SQUARE, ((0, 0), (50, 0), (50, 50))])
    assert np.array_equal(Region.of([SQUARE], 40, 80).polygons[0][2], [60, 30])


@pytest.mark.parametrize(
    ("polygon", "words"),
    [
        ((), "0 corners"),
        (((0, 0), (1, 1)), "2 corners"),
        (((0, 0), (0.5, 0.5), (1, 1)), "on one line"),
        (((0.2, 0.2),) * 4, "on one line"),
        (((0, 0), (-0.1, 0.5), (1, 1)), "not 0 or more"),
        (((0, 0), (float("inf"), 0), (5, 50)), "not 0 or more"),
        (((0, 0), (1.2, 0), (0.5, 1)), "in fractions of the picture all numbers are at most 1"),
    ],
)
def test_polygons_that_are_no_region_are_refused(polygon, words):
    assert words in (problem_of([polygon]) or "")
    assert problem_of([SQUARE]) is None and problem_of([]) is None


def pictures(tmp_path, matrix, pixel_format="yuv420p", width=162, height=98):
    path = videos.write_video(
        tmp_path / "v.mp4", frames=3, width=width, height=height, pixel_format=pixel_format
    )
    videos.set_matrix(path, matrix)
    with av.open(str(path)) as container:
        return look(path), list(container.decode(video=0))


MATRICES = [*videos.TURN_CLOCKWISE.values(), videos.MIRROR, (0, 1, 1, 0), (0, -1, -1, 0)]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("crop", [Crop(10, 6, 40, 32), Crop(11, 7, 51, 33), Crop(40, 30, 57, 67)])
def test_the_crop_is_that_part_of_the_displayed_picture(tmp_path, matrix, crop):
    info, stored = pictures(tmp_path, matrix, "yuv444p", 161, 97)
    whole_box = Letterbox(info.height, info.width, info.height, info.width)
    crop_box = Letterbox(crop.height, crop.width, crop.height, crop.width)
    cropper, scaler = Cropper(crop, info.height, info.width), VideoReformatter()
    for picture in stored:
        whole = fit(picture, whole_box, scaler)
        part = fit(cropper.cut(picture), crop_box, scaler)
        expected = whole[crop.top :, crop.left :][: crop.height, : crop.width]
        assert np.array_equal(part, expected)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p10le"])
def test_luma_of_the_crop_is_that_of_the_picture_in_all_formats(tmp_path, pixel_format):
    info, stored = pictures(tmp_path, videos.TURN_CLOCKWISE[0], pixel_format)
    crop = Crop(31, 17, 77, 55)
    part = Cropper(crop, info.height, info.width).cut(stored[0])
    luma, limited = stored_luma(stored[0])
    cropped, still_limited = stored_luma(part)
    assert np.array_equal(cropped, luma[17:72, 31:108]) and limited == still_limited
    assert limited == (stored[0].color_range != ColorRange.JPEG)


def test_a_picture_that_changes_its_size_is_cut_at_the_same_place():
    cropper = Cropper(Crop(40, 20, 80, 60), 120, 160)
    for height, width in ((120, 160), (60, 80), (120, 160), (240, 320)):
        levels = np.add.outer(np.arange(height) / height, np.arange(width) / width)
        picture = av.VideoFrame.from_ndarray((120 * levels).astype(np.uint8), format="gray")
        part = cropper.cut(picture)
        assert (part.height, part.width) == (height // 2, width // 2)
        assert abs(int(part.to_ndarray()[0, 0]) - 120 * (1 / 6 + 1 / 4)) <= 2


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    """A real video."""
    path = tmp_path_factory.mktemp("region") / "v.mp4"
    return look(videos.write_video(path, frames=2, width=162, height=98))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100), st.integers(0, 60), st.integers(20, 62), st.integers(20, 38))
def test_the_stream_shows_the_crop(info, left, top, width, height):
    """By the share of it that the white rectangle of the test videos takes."""
    crop = Crop(left, top, width, height)
    with FrameStream(info, 64, 64, crop=crop) as stream:
        frame = next(iter(stream))
    box = stream.letterbox
    assert (box.source_height, box.source_width) == (height, width)
    seen = frame.image[: box.scaled_height, : box.scaled_width].mean(2) > 180
    x0, y0, x1, y1 = videos.rectangle(0, 162, 98)
    shown = np.zeros((98, 162))
    shown[y0:y1, x0:x1] = 1
    expected = shown[top : top + height, left : left + width].mean()
    assert seen.mean() == pytest.approx(expected, abs=0.1)
