"""The pages in headless Chromium: they open without errors, and what is pressed does something."""

import numpy as np
import pytest
from PIL import Image

from pipeline.report.config import ReportConfig
from pipeline.report.make import make_report
from tests.browser import MISSING, PROGRAM, Browser
from tests.pipeline.report.runs import Clip, write_run
from tests.videos import rectangle

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

NAME = """cams/<img src=x onerror="console.error('markup')">.mp4"""


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of 124 videos, four of them with a page: played, copied, missing, and of nobody."""
    folder = tmp_path_factory.mktemp("report")
    quality = [0.9] * 30 + [0.2] * 30 + [0.9] * 40
    crowd = [(n // 2, n // 2 + 10) for n in range(100)]
    clips = [
        Clip(NAME, 100, ((0, 100), (10, 30)), quality, cuts=(2.0,), trust=(0.93, 0.31)),
        Clip("copied.avi", 50, codec="mpeg4", quality=0.8),
        Clip("gone.mp4", 100, crowd, made=False),
        Clip("nobody.mp4", 10, (), 0.3, status="partial", error="the file ends early"),
    ]
    clips += [Clip(f"more/{n:03}.mp4", 2, ((0, 1),), n / 200, made=False) for n in range(120)]
    output = write_run(folder, clips, dead=["broken.mp4"])
    names = tuple(clip.name for clip in clips[:4])
    make_report(ReportConfig(output=str(output), pages=0, videos=names))
    return output / "report"


def page_of(report, words):
    """The page of the video whose name has these words."""
    return next(p for p in report.glob("videos/*/index.html") if words in p.read_text())


@pytest.fixture
def opened(browser, report):
    """Opens pages, and at the end looks for errors in them."""
    pages = []

    def open_page(path, **how):
        page = browser.open(path, **how)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        assert page.errors == []
        assert page.run("document.querySelectorAll('[src=x], [onerror]').length") == 0
        page.close()


def names(page):
    return page.run("[...document.querySelectorAll('#table tbody td.name')].map(e => e.innerText)")


def played(opened, report, words, **how):
    """The page of a video that is played, ready."""
    page = opened(page_of(report, words), **how)
    page.wait("document.getElementById('video').readyState >= 2")
    page.wait("report.boxesAt(report.player.now())")
    return page


@pytest.mark.parametrize(("width", "dark"), [(390, True), (820, False), (1400, True)])
def test_pages_fit_every_width_in_both_schemes(opened, report, width, dark):
    for path in (
        report / "index.html",
        page_of(report, "onerror="),
        page_of(report, "gone.mp4</h1>"),
    ):
        page = opened(path, width=width, dark=dark)
        assert page.run("document.documentElement.scrollWidth") <= width
        ground = page.run("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(21, 23, 26)" if dark else "rgb(255, 255, 255)")


def test_a_column_sorts_up_then_down(opened, report):
    page = opened(report / "index.html")
    shown = names(page)
    assert len(shown) == 100 and shown[0] == "more/000.mp4"  # the poorest first
    page.click("th[data-key=people] button")
    page.click("th[data-key=people] button")
    assert names(page)[0] == "gone.mp4"
    order = "document.querySelector('th[data-key=people]').getAttribute('aria-sort')"
    assert page.run(order) == "descending"
    page.click("th[data-key=name] button")
    assert names(page) == sorted(names(page), key=str.lower)
    assert names(page)[0] == NAME


def test_filters_work_together(opened, report):
    page = opened(report / "index.html")
    page.type("#text", "MORE/01")
    assert names(page) == [f"more/{n:03}.mp4" for n in range(10, 20)]
    assert page.run("document.getElementById('shown').textContent") == "10 of 124 videos"
    page.run("document.getElementById('text').value = ''")
    for key, value in (("quality", "0.25-0.5"), ("status", "partial")):
        page.run(
            f"(e => {{e.value = '{value}'; e.dispatchEvent(new Event('input'))}})"
            f"(document.getElementById('{key}'))"
        )
    assert names(page) == ["nobody.mp4"]


def test_more_rows_on_demand(opened, report):
    page = opened(report / "index.html")
    page.click("#more")
    assert len(names(page)) == 124
    assert page.run("document.getElementById('more').hidden")


def test_a_name_leads_to_its_page(opened, report):
    page = opened(report / "index.html")
    page.type("#text", "copied")
    page.click("#table tbody a")
    page.wait("document.querySelector('h1')?.textContent === 'copied.avi'")
    assert page.run("document.getElementById('curves') !== null")


def test_a_click_on_the_curves_seeks_the_player(opened, report):
    page = played(opened, report, "onerror=")
    for share in (0.75, 0.25):
        place = page.run(f"report.timeline.across({4 * share})")
        page.click("#curves", x=place, y=60)
        page.wait(f"Math.abs(document.getElementById('video').currentTime - {4 * share}) < 0.05")
        assert page.run("report.player.now()") == pytest.approx(4 * share, abs=0.05)
        assert page.run("document.getElementById('now').value") == f"0:0{int(4 * share)}.0"


def test_a_click_on_a_bar_chooses_its_track(opened, report):
    page = played(opened, report, "onerror=")
    page.click("#lanes", x=page.run("report.timeline.across(0.8)"), y=27)
    assert page.run("report.player.chosen()") == 2
    assert page.run("report.player.now()") == pytest.approx(0.8, abs=0.05)
    pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map(e => e.innerText)"
    assert page.run(pressed)[0].startswith("track 2")


def test_boxes_are_those_of_the_frame_that_is_shown(opened, report, tmp_path):
    page = played(opened, report, "onerror=")
    page.click("#boxes")  # the picture alone
    for number in (5, 20, 77):
        page.run(f"report.player.seek({number / 25})")
        page.wait("!document.getElementById('video').seeking")
        page.run("new Promise(done => setTimeout(done, 150))")
        assert page.run("report.player.now()") == pytest.approx(number / 25, abs=0.001)
        boxes = page.run("report.boxesAt(report.player.now()).boxes")
        assert [box["id"] for box in boxes] == ([1, 2] if number == 20 else [1])
        # The rectangle of the picture is white, and the box of track 1 is this rectangle.
        light = white_of(page, tmp_path / "shot.png")
        left = rectangle(number, 160, 96)[0] / 160
        assert [boxes[0]["left"], boxes[0]["right"]] == pytest.approx(light, abs=0.01)
        assert boxes[0]["left"] == pytest.approx(left, abs=0.001)


def white_of(page, path):
    """Left and right end of what is white in the picture of the player, as shares of it."""
    page.run("scrollTo({top: 0, behavior: 'instant'})")
    left, top, width, height = page.run(
        "(b => [b.left, b.top, b.width, b.height])(document.getElementById('stage')"
        ".getBoundingClientRect())"
    )
    image = np.asarray(Image.open(page.screenshot(path, whole=False)).convert("L"))
    line = image[round(top + 0.2 * height), round(left) : round(left + width)]
    white = np.flatnonzero(line > 160)
    return [white[0] / width, (white[-1] + 1) / width]


def test_playing_moves_time_and_boxes(opened, report):
    page = played(opened, report, "copied.avi</h1>")
    page.run("report.player.seek(0)")
    page.click("#play")
    page.wait("report.player.now() > 0.5")
    assert page.run("document.getElementById('play').getAttribute('aria-label')") == "Pause"
    page.click("#play")
    page.wait("document.getElementById('video').paused")
    drawn = "document.getElementById('overlay').getContext('2d').getImageData(0, 0, 400, 300).data"
    assert page.run(f"{drawn}.some(v => v > 0)")
    page.click("#boxes")
    assert not page.run(f"{drawn}.some(v => v > 0)")


def test_without_the_video_boxes_are_drawn_on_black(opened, report):
    page = opened(page_of(report, "gone.mp4</h1>"))
    assert page.run("document.getElementById('video')") is None
    page.wait("report.boxesAt(report.player.now())")
    page.run("report.player.seek(1)")
    assert page.run("report.boxesAt(1).boxes.length") == 20
    page.press(" ")
    page.wait("report.player.now() > 1.3")
    page.press(" ")
    assert "is not where it was tracked" in page.run("document.getElementById('note').innerText")
    # A hundred tracks share lanes, none of which has two at a time.
    assert page.run("report.timeline.lanes.length") < 30
    assert page.run("""report.timeline.lanes.every(lane => lane.every((track, i) => i === 0
        || report.video.tracks.end[lane[i - 1]] <= report.video.tracks.start[track]))""")


def test_keys(opened, report):
    page = played(opened, report, "onerror=")
    page.run("report.player.seek(1)")
    page.press("ArrowRight")
    assert page.run("report.player.now()") == pytest.approx(2)
    page.press(".")
    assert page.run("report.player.now()") == pytest.approx(2.04)
    page.press(",")
    page.press(",")
    assert page.run("report.player.now()") == pytest.approx(1.96)
    page.type("#track", "1")
    page.press("ArrowLeft")  # belongs to the field
    assert page.run("report.player.now()") == pytest.approx(1.96)


def test_zoom_and_stretches(opened, report):
    page = played(opened, report, "onerror=")
    page.click(".chip[data-seek='1.2']")  # where quality becomes low
    assert page.run("report.player.now()") == pytest.approx(1.2, abs=0.05)
    page.click(".chip[data-seek='2.0']")  # the cut
    assert page.run("report.player.now()") == pytest.approx(2.0, abs=0.05)
    page.click("#nearer")
    page.run("new Promise(requestAnimationFrame)")
    assert page.run("report.timeline.across(3) - report.timeline.across(2)") > page.run(
        "(document.getElementById('plot').clientWidth - 40) / 3"
    )
    page.click("#whole")


def test_a_crop_jumps_to_its_track(opened, report):
    page = played(opened, report, "onerror=")
    page.click("#tracks li:nth-child(2) button")
    view = page.run("report.video.tracks.view[1]")
    assert page.run("report.player.now()") == pytest.approx(view, abs=0.05)
    assert page.run("report.player.chosen()") == 2
    picture = "document.querySelector('#tracks .crop').style.backgroundImage"
    assert page.run(picture).startswith('url("crops-0.jpg')


def test_low_trust_is_marked_and_filtered(opened, report):
    page = played(opened, report, "onerror=")
    shown = "[...document.querySelectorAll('#tracks b')].map(e => e.innerText)"
    marked = "[...document.querySelectorAll('#tracks .low-trust b')].map(e => e.innerText)"
    assert (page.run(shown), page.run(marked)) == (["track 1", "track 2"], ["track 2"])
    page.run("report.player.seek(0.8)")
    page.wait("!document.getElementById('video').seeking")
    pixels = (
        "(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter("
        "(v, i) => i % 4 === 3 && v > 0).length)(document.getElementById('{}'))"
    )
    both = [page.run(pixels.format(name)) for name in ("overlay", "lanes")]
    page.run(
        "(e => {e.value = '0.8-1.01'; e.dispatchEvent(new Event('input'))})"
        "(document.getElementById('trust'))"
    )
    page.run("new Promise(done => setTimeout(done, 200))")
    assert page.run(shown) == ["track 1"]
    one = [page.run(pixels.format(name)) for name in ("overlay", "lanes")]
    assert all(fewer < more for fewer, more in zip(one, both, strict=True))
    plain = opened(page_of(report, "gone.mp4</h1>"))
    assert plain.run("document.getElementById('trust')") is None
    assert plain.run("document.querySelectorAll('.low-trust').length") == 0


def test_tracks_are_found_and_sorted(opened, report):
    page = opened(page_of(report, "gone.mp4</h1>"))
    shown = "[...document.querySelectorAll('#tracks b')].map(e => e.innerText)"
    assert len(page.run(shown)) == 60
    page.click("#more-tracks")
    assert len(page.run(shown)) == 100
    page.type("#track", "77")
    assert page.run(shown) == ["track 77"]


def test_an_address_may_name_a_time(opened, report):
    page = opened(page_of(report, "gone.mp4</h1>"), fragment="#t=2.5")
    assert page.run("report.player.now()") == pytest.approx(2.5)


def test_a_video_that_moved_after_the_page_was_made(browser, tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4")])
    make_report(ReportConfig(output=str(output)))
    (tmp_path / "archive" / "a.mp4").unlink()
    page = browser.open(page_of(output / "report", "a.mp4"))
    page.wait("!document.getElementById('trouble').hidden")
    assert "player=copy" in page.run("document.getElementById('trouble').innerText")
    page.close()
