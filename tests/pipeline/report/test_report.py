"""The report of a run: what it holds, also of a run that goes on, and with names that try."""

import json
import re
from html.parser import HTMLParser

import pytest

from pipeline.compaction.config import CompactConfig
from pipeline.compaction.run import compact
from pipeline.report import run_figures as figures
from pipeline.report import trust_figures
from pipeline.report.config import ReportConfig
from pipeline.report.html import clock, lasting, money, size
from pipeline.report.make import UnknownVideoError, chosen_rows, make_report, report_at_end
from pipeline.report.run_tables import NoRunError, read_run
from pipeline.runtime.stop import StopRequest
from pipeline.storage.files import StorageError
from tests.pipeline.report.runs import Clip, write_run

HOSTILE = """<img src=x onerror=alert(1)> & "it's" {{ 7 * 7 }} </script>.mp4"""


class Read(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.links = [], "", []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_data(self, data):
        self.text += f"{data} "


def data_of(path):
    """The value that a data script sets."""
    return json.loads(re.fullmatch(r"report\.\w+=(.*);\n", path.read_text(), re.DOTALL)[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of two videos, one whose name tries to be markup, and a dead letter."""
    folder = tmp_path_factory.mktemp("made")
    quality = [0.9] * 25 + [0.2] * 25
    clips = [
        Clip(f"cams/{HOSTILE}", quality=quality, cuts=(1.0,), made=False, trust=(0.8, 0.3)),
        Clip("b.mp4", status="partial", error="the file ends <early>"),
    ]
    output = write_run(folder, clips, dead=[f"{HOSTILE}2"])
    report = make_report(ReportConfig(output=str(output), price_per_hour=3.6))
    return output / "report", report


def page_of(folder, name):
    (path,) = (p.parent for p in (folder / "videos").glob("*/index.html") if name in p.read_text())
    return path


def test_the_page_of_the_run_says_what_was_done(made):
    folder, report = made
    assert (report.videos, report.pages, report.failed, report.left) == (2, 2, {}, 0)
    page = Read(folder / "index.html")
    text = " ".join(page.text.split())
    for words in (
        "videos done 2 1 break off early", "dead letters 1", "footage 4.0 s 100 frames",
        "people 4", "tracks to trust 50 % 1 of low trust", "25 % of frames below 0.5",
        "25.0 frames/s each", "encoding frames 50 %",
        "retry_dead_letters=true", "Each video has a page", "waiting for frames 25 %",
    ):  # fmt: skip
        assert words in text, words
    assert "0.004 USD" in text  # four seconds at 3.60 an hour
    assert "Partial" not in text
    assert "low_quality_below" not in text and "cluster.streams" in text


def test_all_that_a_page_refers_to_is_there(made):
    folder, _ = made
    pages = [folder / "index.html", *folder.glob("videos/*/index.html")]
    assert len(pages) == 3
    for path in pages:
        for link in Read(path).links:
            if not link.startswith(("data:", "#")):
                assert "://" not in link
                assert (path.parent / link).is_file(), f"{path}: {link}"


def test_the_page_opens_with_the_best_view(tmp_path):
    clips = [
        Clip("many.mp4", tracks=((0, 50),) * 5, trust=(0.45,) * 5),  # nobody of enough trust
        Clip("sure.mp4", trust=(0.9, 0.8)),
        Clip("dark.mp4", trust=(0.9, 0.9), quality=0.1),
        Clip("gone.mp4", tracks=((0, 50),) * 9, made=False),
    ]
    output = write_run(tmp_path, clips)
    make_report(ReportConfig(output=str(output)))
    page = (output / "report" / "index.html").read_text()
    best = re.search(r'id="best" href="videos/([^/]+)/', page)
    assert best[1].startswith("sure") and page.index("Watch <b>sure") < page.index("videos done")
    assert "boxes: 2 people in this frame" in page
    write_run(tmp_path / "doubtful", [Clip("a.mp4", trust=(0.1, 0.9))])
    make_report(ReportConfig(output=str(tmp_path / "doubtful" / "run")))
    doubtful = (tmp_path / "doubtful" / "run" / "report" / "index.html").read_text()
    assert "boxes: 1 person in this frame" in doubtful


def test_names_are_text_everywhere(made):
    folder, _ = made
    for path in folder.rglob("*.html"):
        page = Read(path)
        assert not [
            given for _, given in page.tags if "onerror" in given or given.get("src") == "x"
        ]
    assert Read(folder / "index.html").text.count(HOSTILE) >= 2
    assert HOSTILE in Read(page_of(folder, "onerror") / "index.html").text
    assert data_of(folder / "data.js")["name"] == ["b.mp4", f"cams/{HOSTILE}"]
    assert "the file ends <early>" in Read(page_of(folder, "b.mp4</h1>") / "index.html").text


def test_data_of_a_video(made):
    folder, _ = made
    place = page_of(folder, "onerror")
    value = data_of(place / "data.js")
    assert value["source"] is None
    assert "not where it was tracked" in (place / "index.html").read_text()
    assert value["low"] == [[1.0, 2.0]] and value["cuts"] == [1.0]
    tracks = value["tracks"]
    assert (tracks["id"], tracks["start"], tracks["end"]) == ([1, 2], [0.0, 0.4], [2.0, 1.6])
    assert tracks["frames"] == [50, 30] and tracks["tile"] == [-1, -1]
    assert (tracks["trust"], value["lowTrust"]) == ([0.8, 0.3], 0.5)
    assert "1 of 2 tracks of low trust" in (place / "index.html").read_text()
    assert value["bars"] == {"track": [0, 1], "start": [0.0, 0.4], "end": [2.0, 1.6]}
    seen = data_of(page_of(folder, "b.mp4</h1>") / "data.js")
    assert seen["source"] == "../../../../archive/b.mp4"
    assert sorted(seen["tracks"]["tile"]) == [0, 1]
    assert seen["tracks"]["trust"] == [None, None]
    assert "low trust" not in (page_of(folder, "b.mp4</h1>") / "index.html").read_text()
    assert {"still.jpg", "crops-0.jpg", "boxes-0.js"} <= {
        p.name for p in page_of(folder, "b.mp4</h1>").iterdir()
    }


def test_a_run_under_way_is_partial_and_can_be_made_again(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)], listed=3)
    config = ReportConfig(output=str(output))
    assert make_report(config).left == 2
    page = output / "report" / "index.html"
    assert "2 of 3 files without a result yet" in Read(page).text
    write_run(tmp_path, [Clip("b.mp4", made=False), Clip("c.mp4", made=False)])
    assert make_report(config).left == 0
    assert "Partial" not in Read(page).text and len(list(output.glob("report/videos/*"))) == 3


@pytest.mark.parametrize(("listed", "words"), [(-1, "still being listed"), (2, "2 of 2 files")])
def test_a_run_without_results(tmp_path, listed, words):
    output = write_run(tmp_path, [], listed=listed)
    report = make_report(ReportConfig(output=str(output)))
    assert (report.videos, report.pages) == (0, 0)
    text = Read(output / "report" / "index.html").text
    assert words in text and "No video is done yet" in text
    assert any("partial" in line for line in report.closing_lines())


def test_compacted_tables_give_the_same_report(tmp_path):
    clips = [Clip("a.mp4", made=False), Clip("b.mp4", 70, quality=0.4, made=False)]
    output = write_run(tmp_path, clips)
    before, after = tmp_path / "before", tmp_path / "after"
    make_report(ReportConfig(output=str(output), report=str(before)))
    compact(CompactConfig(output=str(output), keep_s=0), StopRequest())
    assert not list(output.glob("videos/*.parquet"))
    make_report(ReportConfig(output=str(output), report=str(after)))
    for path in before.rglob("*.js"):
        assert (after / path.relative_to(before)).read_bytes() == path.read_bytes()


def test_a_listing_under_way_is_partial(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)])
    assert read_run(str(output)).left == 0
    (output / "manifest" / "run-1.parquet").touch()  # a part, beside the manifest of before
    assert read_run(str(output)).left is None


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(NoRunError, match=r"no run\.json here.*vsdmot track INPUT"):
        make_report(ReportConfig(output=str(tmp_path)))
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(NoRunError, match="cannot be read"):
        read_run(str(tmp_path))
    for record, words in (
        ('{"job": "eval"}', "a run of eval"),
        ('{"job": "track", "schema_version": 1}', "schema version 1.*track the archive again"),
    ):
        (tmp_path / "run.json").write_text(record)
        with pytest.raises(NoRunError, match=words):
            read_run(str(tmp_path))
    assert not (tmp_path / "report").exists()


def test_a_broken_table_is_named(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)])
    (output / "videos" / "a.parquet").write_text("no")
    with pytest.raises(StorageError, match=r"videos/a\.parquet cannot be read as Parquet"):
        read_run(str(output))


def test_one_bad_video_leaves_the_others(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4", made=False), Clip("b.mp4", made=False)])
    (output / "tracks" / "a.parquet").write_text("no")
    (output / "frames" / "b.parquet").unlink()
    write_run(tmp_path, [Clip("c.mp4", made=False)])
    report = make_report(ReportConfig(output=str(output)))
    assert report.pages == 1 and sorted(report.failed) == ["a.mp4", "b.mp4"]
    text = Read(output / "report" / "index.html").text
    assert "2 pages could not be made" in text and "no row of the video b" in text
    assert "ArrowInvalid" in report.failed["a.mp4"]


def test_a_video_with_a_row_is_no_dead_letter(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)], dead=["b.mp4"])
    (output / "dead_letters" / "dead-5.parquet").rename(output / "dead_letters" / "a.parquet")
    run = read_run(str(output))
    assert (run.dead, run.letters.num_rows) == (0, 0)


def test_pages_go_to_the_extremes_first_and_to_those_named(tmp_path):
    names = "abcdefgh"
    clips = [Clip(f"{name}.mp4", quality=n / 10, made=False) for n, name in enumerate(names, 1)]
    videos = read_run(str(write_run(tmp_path, clips))).videos

    def chosen(**settings):
        rows = chosen_rows(videos, ReportConfig(output="x", **settings))
        return "".join(names[row] for row in rows)

    assert chosen() == names
    assert (chosen(pages=1), chosen(pages=2), chosen(pages=4)) == ("a", "ah", "abgh")
    assert chosen(pages=0, videos=("c.mp4", "d")) == "cd"
    with pytest.raises(UnknownVideoError, match=r"nobody is none of the 8"):
        chosen(videos=("nobody",))


def test_fewer_pages_leave_the_rest_in_the_table(tmp_path):
    clips = [Clip(f"{n}.mp4", quality=n / 10, made=False) for n in range(1, 6)]
    output = write_run(tmp_path, clips)
    make_report(ReportConfig(output=str(output), report=str(tmp_path / "else"), pages=2))
    assert "2 of 5 videos have a page" in Read(tmp_path / "else" / "index.html").text
    assert data_of(tmp_path / "else" / "data.js")["page"] == ["1", "", "", "", "5"]
    assert not (output / "report").exists()


def test_no_time_for_pictures_is_said(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4"), Clip("b.avi", codec="mpeg4")])
    make_report(ReportConfig(output=str(output), seconds=0))
    texts = [path.read_text() for path in output.glob("report/videos/*/index.html")]
    assert all("the time given was used up" in text for text in texts)
    assert sum("No copy was made in the time given" in text for text in texts) == 1


def test_the_report_at_the_end_of_a_run_is_bounded(tmp_path):
    clips = [Clip(f"{n:02}.mp4", 2, ((0, 2),), n / 20, made=False) for n in range(14)]
    output = write_run(tmp_path, [*clips, Clip("z.avi", codec="mpeg4", quality=0.99)])
    report = report_at_end(str(output))
    assert (report.videos, report.pages) == (15, 12)
    assert not list(output.glob("report/videos/*/video.mp4"))


def test_the_longest_tracks_get_the_crops(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4", tracks=((0, 50), (0, 5), (5, 45)))])
    make_report(ReportConfig(output=str(output), crops=2))
    (place,) = output.glob("report/videos/*")
    first, second, third = data_of(place / "data.js")["tracks"]["tile"]
    assert second == -1 and {first, third} == {0, 1}
    assert "the 2 tracks seen longest" in (place / "index.html").read_text()


def test_a_thousand_tracks_in_a_minute_are_small(tmp_path):
    tracks = [(start, start + 100) for start in (1400 * n // 1000 for n in range(1000))]
    clip = Clip("crowd.mp4", frames=1500, tracks=tracks, made=False)
    output = write_run(tmp_path, [clip])
    make_report(ReportConfig(output=str(output)))
    data = sum(path.stat().st_size for path in (output / "report").rglob("*") if path.is_file())
    assert len(list(output.glob("report/videos/*/boxes-*.js"))) > 1
    assert data < 4_000_000  # leaves room for ten sheets of crops within 10 MB


def test_a_report_in_a_bucket(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4")])
    import fsspec

    make_report(ReportConfig(output=str(output), report="memory://report", player="link"))
    system = fsspec.filesystem("memory")
    page = next(p for p in system.find("/report/videos") if p.endswith("index.html"))
    assert "lies in a bucket" in system.cat_file(page).decode()
    system.rm("/report", recursive=True)


def test_figures_of_a_run(tmp_path):
    clips = [Clip("a.mp4", quality=0.2, made=False), Clip("b.mp4", frames=3000, made=False)]
    run = read_run(str(write_run(tmp_path, clips)))
    sums = figures.totals(run)
    assert (sums.frames, sums.people, sums.worker_s) == (3050, 4, pytest.approx(4.0))
    assert sums.quality == pytest.approx((0.2 * 50 + 0.9 * 3000) / 3050)
    assert sums.low_share == pytest.approx(50 / 3050)
    shares = figures.time_shares(run.videos)
    assert sum(share.share for share in shares) == pytest.approx(1)
    assert [line.split(":")[0] for line in figures.advice(shares)] == [
        "25 % of the time went to waiting for frames"
    ]
    # Two seconds count as a minute, two minutes as themselves.
    assert figures.people_per_hour(run.videos).tolist() == pytest.approx([120, 60])
    assert sum(figures.quality_hours(run.videos)) == pytest.approx(122 / 3600)
    assert figures.by_quality(run.videos) == ([0], [1])


def test_trust_over_a_run(tmp_path, monkeypatch):
    clips = [
        Clip("a.mp4", made=False, trust=(0.95, 0.02)),
        Clip("b.mp4", made=False, trust=(0.51, 1.0)),
        Clip("c.mp4", made=False),
        Clip("d.mp4", made=False, summary=False),
    ]
    output = str(write_run(tmp_path, clips))
    found = trust_figures.trust_figures(output)
    assert (found.tracks, found.low, found.low_share) == (4, 1, 0.25)
    assert [n for n, count in enumerate(found.bins) if count] == [0, 10, 19]
    assert found.bins[19] == 2 and (found.files, found.of) == (3, 3)
    monkeypatch.setattr(trust_figures, "_FILES", 2)
    assert trust_figures.trust_figures(output).files == 2
    assert trust_figures.trust_figures(str(write_run(tmp_path / "n", clips[2:]))) is None
    make_report(ReportConfig(output=output, pages=0))
    assert "Of 2 of 3 files" in (tmp_path / "run" / "report" / "index.html").read_text()


def test_workers_with_several_videos_at_a_time_are_counted_once(tmp_path):
    run = read_run(str(write_run(tmp_path, [Clip("a.mp4", made=False)])))
    run.record["config"]["cluster"]["streams"] = 4
    assert figures.totals(run).worker_s == pytest.approx(0.5)


def test_each_kind_of_dead_letter_has_a_remedy():
    kinds = ("input", "poison", "deadline", "new kind")
    remedies = {figures.what_to_do({"kind": kind}) for kind in kinds}
    assert len(remedies) == 4 and all("retry_dead_letters=true" in text for text in remedies)


def test_numbers_for_people():
    assert (clock(0), clock(59.96), clock(3723.44), clock(None)) == (
        "0:00.0", "1:00.0", "1:02:03.4", "unknown",
    )  # fmt: skip
    assert (lasting(3), lasting(600), lasting(360_000)) == ("3.0 s", "10.0 min", "100.0 h")
    assert (size(12), size(2_500_000), size(4e15)) == ("12 bytes", "2.5 MB", "4,000.0 TB")
    assert (money(1234.5), money(0.00123), money(0)) == ("1,234.50", "0.00123", "0.00")
