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
    with RunDisplay(Console(file=said, width=20), 1, 10, lambda display: None) as display:
        display.say("converting [the model], once, about 10 s")
    assert "converting [the model], once, about 10 s" in said.getvalue().splitlines()
