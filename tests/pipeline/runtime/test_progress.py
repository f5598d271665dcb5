"""What workers tell the driver, and what the user sees of it."""

import io

from rich.console import Console

from pipeline.runtime.progress import FrameCounter, RunDisplay


def test_the_same_notice_of_several_workers_is_told_once():
    counter = FrameCounter()
    for text in ("converting", "converting", "another"):
        counter.notice(text)
    assert counter.notices(0) == ["converting", "another"]
    assert counter.notices(1) == ["another"]


def test_a_notice_is_a_line_of_its_own():
    said = io.StringIO()
    with RunDisplay(Console(file=said, width=20), lambda display: None) as display:
        display.expect(1, 10)
        display.say("converting [the model], once, about 10 s")
    assert "converting [the model], once, about 10 s" in said.getvalue().splitlines()


def test_frames_of_a_finished_video_and_its_windows_stay_counted_and_are_forgotten():
    counter = FrameCounter()
    counter.report("a w0of2", 5)
    counter.report("a w1of2", 7)
    counter.report("ab", 3)
    counter.report("a w0of2", 2)  # its worker died, and it is tracked again
    assert counter.total() == 12
    counter.forget("a")
    assert counter.total() == 12
    assert counter.latest(9) == {"ab": 3}


def test_more_videos_may_follow():
    said = io.StringIO()
    with RunDisplay(Console(file=said, width=80), lambda display: None) as display:
        display.expect(2, 20, more=True)
        display.video_finished(10, 10)
        assert display._title() == "1/2 videos so far"
        display.expect(1, 10)
        assert display._title() == "1/3 videos"
    assert "1/3 videos, 10/30 frames" in said.getvalue()
