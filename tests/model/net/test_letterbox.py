import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Letterbox(0, 10, 384, 640)
