"""A page in which people are blurred: in its player, its still and its pictures of tracks."""

import time
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.report.blurred import blurred_pictures
from pipeline.report.config import ReportConfig
from pipeline.report.make import OtherReportError, make_report
from pipeline.report.playable import OutOfTimeError
from tests.pipeline.report.runs import Clip, write_run
from tests.pipeline.report.test_pictures import info_of
from tests.pipeline.report.test_render import rows_of
from tests.pipeline.report.test_report import data_of
from tests.videos import picture, read_number, write_video

WIDTH, HEIGHT, FRAMES = 480, 320, 20
AROUND = (0, 40, 240, 130)
"""A box round all that tells the number of a frame; see `tests.videos`."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return info_of(write_video(path, frames=FRAMES, width=WIDTH, height=HEIGHT))


def taken(info, rows, path, times=(), blur="people", deadline=None):
    """Pictures by time, and the decoded frames of the copy with their times."""
    pictures = dict(blurred_pictures(info, rows, blur, times, path, deadline))
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return pictures, [(float(f.time), f.to_ndarray(format="rgb24")) for f in frames]


def flat(image):
    """Whether a region has the few flat cells of a mosaic."""
    region = image[60:165, 4:236].astype(int).mean(axis=2)
    return (np.abs(np.diff(region, axis=1)) < 4).mean() > 0.96


def test_neither_the_copy_nor_its_pictures_show_a_person(tmp_path, clip):
    rows = rows_of({1: {at: AROUND for at in range(FRAMES)}})
    times = (float(rows.time_s[3]), float(rows.time_s[17]))
    pictures, copy = taken(clip, rows, tmp_path / "a.mp4", times)
    assert [t for t, _ in copy] == pytest.approx(rows.time_s.tolist(), abs=1e-4)
    assert set(pictures) == set(times)
    for image in [*pictures.values(), *(image for _, image in copy)]:
        assert image.shape == (HEIGHT, WIDTH, 3) and flat(image)
    # All else is as it was.
    below = pictures[times[1]][220:].astype(int) - picture(17, WIDTH, HEIGHT)[220:]
    assert np.abs(below).max() < 60


def test_frames_without_rows_are_not_in_the_copy(tmp_path, clip):
    """Their boxes are not known."""
    rows = rows_of({1: {at: (400, 280, 40, 30) for at in range(FRAMES)}})
    kept = np.arange(0, FRAMES, 4)
    sampled = replace(
        rows, index=rows.index[kept], time_s=rows.time_s[kept], quality=rows.quality[kept],
        encoded=rows.encoded[kept], cut=rows.cut[kept], frame=np.arange(5),
        track_id=rows.track_id[:5], boxes=rows.boxes[:5], score=rows.score[:5],
    )  # fmt: skip
    _, copy = taken(clip, sampled, tmp_path / "a.mp4")
    assert [read_number(image) for _, image in copy] == kept.tolist()


def test_a_copy_has_at_most_720_lines_and_pictures_the_size_of_the_video(tmp_path):
    path = write_video(tmp_path / "big.mp4", frames=2, width=1280, height=1088)
    rows = rows_of({1: {0: (0, 0, 1280, 1088), 1: (0, 0, 1280, 1088)}}, 2)
    pictures, copy = taken(info_of(path), rows, tmp_path / "a.mp4", [0.0])
    assert copy[0][1].shape[0] == 720
    assert pictures[0.0].shape == (1088, 1280, 3)
    assert len(np.unique(pictures[0.0].mean(axis=2).round(-1))) <= 9  # a mosaic of the whole


def test_a_copy_keeps_to_its_time(tmp_path, clip):
    rows = rows_of({1: {0: AROUND}})
    with pytest.raises(OutOfTimeError):
        taken(clip, rows, tmp_path / "a.mp4", deadline=time.monotonic() - 1)


@pytest.fixture(scope="module")
def blurred(tmp_path_factory):
    clips = [Clip("a.mp4", cuts=(1.0,)), Clip("b.avi", codec="mpeg4"), Clip("c.mp4", made=False)]
    output = write_run(tmp_path_factory.mktemp("blurred"), clips)
    report = make_report(ReportConfig(output=str(output), blur="people"))
    return output / "report-blurred", report


def test_a_page_plays_the_copy_and_nothing_else(blurred):
    folder, report = blurred
    assert report.page == f"{folder}/index.html" and not report.failed
    pages = sorted(folder.glob("videos/*"))
    assert [page.name[0] for page in pages] == ["a", "b", "c"]
    for page in pages[:2]:
        assert data_of(page / "data.js")["source"] == "blurred.mp4"
        media = sorted(p.name for p in page.iterdir() if p.suffix in (".mp4", ".avi", ".jpg"))
        assert media == ["blurred.mp4", "crops-0.jpg", "still.jpg"]
        assert set(data_of(page / "data.js")["tracks"]["tile"]) == {0, 1}
        assert "People are blurred where the tracker found" in (page / "index.html").read_text()
    assert data_of(pages[2] / "data.js")["source"] is None
    assert "The video is not where it was tracked" in (pages[2] / "index.html").read_text()
    text = (folder / "index.html").read_text()
    assert "are blurred</b> in pictures and players. Whoever the tracker did not find" in text


def test_still_and_crops_are_of_the_copy(blurred, tmp_path):
    """Of the same run without blur they show the white rectangle sharply."""
    folder, _ = blurred
    plain = tmp_path / "plain"
    make_report(ReportConfig(output=str(folder.parent), report=str(plain)))

    def sharpest(report, name):
        (path,) = report.glob(f"videos/a*/{name}")
        grey = np.asarray(Image.open(path).convert("L")).astype(int)
        return np.abs(np.diff(grey[:120, :80], axis=1)).max()

    assert sharpest(folder, "crops-0.jpg") < sharpest(plain, "crops-0.jpg")


def test_no_time_for_copies_is_said_and_nothing_is_shown(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4")])
    make_report(ReportConfig(output=str(output), blur="heads", seconds=0))
    (page,) = output.glob("report-blurred/videos/*")
    assert "No copy was made in the time given" in (page / "index.html").read_text()
    assert not [p for p in page.iterdir() if p.suffix in (".mp4", ".jpg")]


@pytest.mark.parametrize(("first", "then"), [("none", "people"), ("people", "heads")])
def test_reports_of_another_blur_are_not_mixed(tmp_path, first, then):
    output = write_run(tmp_path, [Clip("a.mp4")])
    folder = str(tmp_path / "shown")
    make_report(ReportConfig(output=str(output), report=folder, blur=first))
    with pytest.raises(OtherReportError, match=f"made with blur={first}, whose pictures"):
        make_report(ReportConfig(output=str(output), report=folder, blur=then))
    (tmp_path / "shown" / "index.html").unlink()  # as of a report that was left half made
    with pytest.raises(OtherReportError):
        make_report(ReportConfig(output=str(output), report=folder, blur=then))
    make_report(ReportConfig(output=str(output), report=folder, blur=first))


def test_a_report_of_an_earlier_version_counts_as_not_blurred(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4")])
    make_report(ReportConfig(output=str(output)))
    (output / "report" / "blur.txt").unlink()
    blurred = ReportConfig(output=str(output), report=str(output / "report"), blur="people")
    with pytest.raises(OtherReportError, match="made with blur=none"):
        make_report(blurred)
    make_report(ReportConfig(output=str(output)))


def test_a_link_to_the_video_is_refused():
    with pytest.raises(ValueError, match="in which nobody is blurred; with blur=people"):
        ReportConfig(output="x", blur="people", player="link")
