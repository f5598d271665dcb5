import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.net.config import ModelConfig
from model.net.letterbox import Letterbox

side = st.integers(1, 5000)


@given(side, side, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_boxes_come_back_and_stay_in_the_frame(height, width, x1, y1, x2, y2):
    letterbox = Letterbox(height, width, 384, 640)
    assert 1 <= letterbox.scaled_height <= 384 and 1 <= letterbox.scaled_width <= 640
    assert letterbox.scaled_height == 384 or letterbox.scaled_width == 640
    box = np.array([[x1 * width, y1 * height, x2 * width, y2 * height]])
    np.testing.assert_allclose(
        letterbox.to_source(letterbox.to_canvas(box)), box, atol=1e-6 * max(height, width)
    )
    outside = letterbox.to_source(np.array([[-50.0, -50, 9999, 9999]]))
    np.testing.assert_allclose(outside, [[0, 0, width, height]])


@given(side, side, st.sampled_from([(384, 640), (64, 96), (640, 1088), (640, 384), (320, 320)]))
def test_the_least_canvas_has_the_same_picture_with_less_padding(height, width, canvas):
    whole = Letterbox(height, width, *canvas)
    least = Letterbox(height, width, *whole.least_canvas(64, 32))
    assert (least.scaled_height, least.scaled_width) == (whole.scaled_height, whole.scaled_width)
    for side, picture, most in (
        (least.input_height, least.scaled_height, canvas[0]),
        (least.input_width, least.scaled_width, canvas[1]),
    ):
        assert side % 32 == 0 and 64 <= side <= most
        # A picture that is rounded down to a multiple of 32 keeps the row that is left.
        assert side == 64 or side - picture <= 32


@pytest.mark.parametrize(
    ("height", "width", "canvas"),
    [
        (480, 640, (384, 512)),
        (576, 720, (384, 480)),
        (1080, 1920, (384, 640)),
        (800, 1920, (288, 640)),
        (1920, 1080, (384, 224)),
        (100, 5000, (64, 640)),
    ],
)
def test_canvases_of_common_shapes(height, width, canvas):
    assert ModelConfig().canvas_for(height, width) == canvas


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Letterbox(0, 10, 384, 640)
