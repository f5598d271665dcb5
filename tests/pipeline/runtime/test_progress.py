"""What workers tell the driver, and what the user sees of it."""

import io

import pytest
from rich.console import Console

from pipeline.runtime import reports
from pipeline.runtime.frame_counter import FrameCounter, Reached
from pipeline.runtime.progress import RunDisplay
from pipeline.runtime.reports import WorkerReports
from pipeline.tracking.resume import PassState


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


def told(counter, worker, **frames):
    counter.report(worker, {n: Reached(f, f / 25) for n, f in frames.items()}, 0, 0.0)


def test_frames_of_a_finished_video_and_its_windows_stay_counted_and_are_forgotten():
    counter = FrameCounter()
    told(counter, "w", **{"a w0of2": 5})
    told(counter, "w", **{"a w1of2": 7})
    told(counter, "w", ab=3)
    told(counter, "w", **{"a w0of2": 2})  # its worker died, and it is tracked again
    assert counter.total() == 12
    counter.forget("a")
    assert counter.total() == 12
    told(counter, "w", **{"a w1of2": 7})  # sent before the video was finished
    assert counter.total() == 12
    assert counter.latest(9) == {"ab": 3}


def test_a_window_is_forgotten_alone():
    counter = FrameCounter()
    told(counter, "w", **{"a w0of2": 5, "a w1of2": 7})
    counter.forget("a w0of2")
    assert [(at.name, at.worker, at.frames, at.second) for at in counter.news().under_way] == [
        ("a w1of2", "w", 7, 7 / 25)
    ]


def test_a_window_that_is_tracked_again_counts_again():
    counter = FrameCounter()
    told(counter, "w", **{"a w0of2": 50})
    counter.forget("a w0of2")
    told(counter, "w", **{"a w0of2": 50})  # sent before it was finished
    assert counter.news().under_way == []
    totals = []
    for frames in (8, 16, 50):
        told(counter, "v", **{"a w0of2": frames})
        totals.append(counter.total())
    assert totals == [8, 16, 50]
    (place,) = counter.news().under_way
    assert (place.worker, place.frames) == ("v", 50)


def test_a_worker_counts_what_it_has_tracked_itself(monkeypatch):
    sent = []
    monkeypatch.setattr(reports, "_EVERY_S", 0.0)
    report = WorkerReports(lambda *news: sent.append(news))
    for name, frames in (("a", 100), ("a", 108), ("b", 0), ("b", 8), ("b", 0), ("b", 8)):
        tracked_s = max(0, frames - 100) / 10 if name == "a" else frames / 10
        report(name, PassState(frames=frames, last_s=500 + frames / 10, video_s=tracked_s))
    # A pass that goes on from a saved place has not tracked the frames before it.
    assert [frames for _, _, frames, _ in sent] == [0, 8, 0, 8, 0, 8]
    assert sum(seconds for *_, seconds in sent) == pytest.approx(2.4)
    assert sent[-1][1] == {"b": Reached(8, 500.8)}


def test_a_worker_does_not_send_each_window():
    sent = []
    report = WorkerReports(lambda *news: sent.append(news))
    for frames in range(0, 80, 8):
        report("a", PassState(frames=frames, last_s=frames / 10))
    assert len(sent) == 1


def test_reports_that_lie_below_what_is_finished_still_move():
    with RunDisplay(Console(file=io.StringIO()), lambda display: None) as display:
        display.video_finished(100, 100)
        found = []
        for total in (40, 50):
            display.frames_at(total)
            found.append((display.frames_done, display.frames_reported))
    assert found == [(100, 40), (100, 50)]


def test_more_videos_may_follow():
    said = io.StringIO()
    with RunDisplay(Console(file=said, width=80), lambda display: None) as display:
        display.expect(2, 20, more=True)
        display.video_finished(10, 10)
        assert display._title() == "1/2 videos so far"
        display.expect(1, 10)
        assert display._title() == "1/3 videos"
    assert "1/3 videos, 10/30 frames" in said.getvalue()
