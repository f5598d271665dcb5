"""Make the report of a run: the pages of videos, then, as the last file, the page of the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from model.settings import flat
from pipeline.report import run_figures as figures
from pipeline.report.config import Blur, ReportConfig
from pipeline.report.html import ASSETS, asset, render
from pipeline.report.run_tables import RunTables, read_run
from pipeline.report.scripts import assigned, rounded
from pipeline.report.trust_figures import trust_figures
from pipeline.report.video_page import VideoPage, write_video_page
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError, describe_error
from pipeline.storage.files import write_atomic
from pipeline.storage.reading import read_video
from pipeline.storage.secrets import mask_secrets

_END_PAGES, _END_SECONDS = 12, 60.0
_BLUR_FILE = "blur.txt"  # says what is blurred; written before any picture
_TABLE_ROWS = 50_000  # videos that the page lists; more would make it slow

Progress = Callable[[int, int, str], object]


class UnknownVideoError(ValueError):
    """A video that should get a page is not in the run."""


class OtherReportError(ValueError):
    """A report would be mixed with one in which people are blurred otherwise, or not."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        page: path or URL of its first page.
        videos: videos that are done.
        pages: those of them that have a page of their own.
        failed: reason why a page is missing, by path of the video.
        left: videos without a result; None if the archive is still being listed.
    """

    page: str
    videos: int
    pages: int
    failed: dict[str, str]
    left: int | None

    def closing_lines(self) -> list[str]:
        """What was made, whether it is partial, and where to look at it."""
        lines = [f"{self.videos} videos, {self.pages} of them with a page of their own"]
        if self.left != 0:
            left = "files" if self.left is None else f"{self.left} of the files"
            lines.append(f"partial: {left} without a result yet; make the page again later")
        local = "://" not in self.page
        return [*lines, Path(self.page).resolve().as_uri() if local else self.page]


def make_report(config: ReportConfig, progress: Progress = lambda at, of, name: None) -> Report:
    """Write the report of a run, also of one that goes on; it may be made again at any time.

    Args:
        config: what to write.
        progress: called before each video's page with the pages made, their number and its name.

    Raises:
        NoRunError: there is no run in `config.output`.
        OtherReportError: the folder has a report with other pictures of people.
        UnknownVideoError: a name in `config.videos` is not in the run.
        StorageError: the output cannot be read, or the report cannot be written.
    """
    deadline = None if config.seconds is None else time.monotonic() + config.seconds
    run = read_run(config.output)
    name = "report" if config.blur == "none" else "report-blurred"
    folder = (config.report or f"{run.output}/{name}").rstrip("/")
    _refuse_others(folder, config.blur)
    write_atomic(f"{folder}/{_BLUR_FILE}", config.blur.encode())
    for name in ASSETS:
        write_atomic(f"{folder}/assets/{name}", asset(name))
    chosen = chosen_rows(run.videos, config)
    ids = run.videos["video_id"].take(pa.array(chosen, pa.int64())).to_pylist()
    pages: dict[str, VideoPage] = {}
    failed: dict[str, str] = {}
    for at, place in enumerate(chosen):
        name = run.videos["relative_path"][place].as_py()
        progress(at, len(chosen), name)
        neighbours = {
            "before": ids[at - 1] if at else None,
            "after": ids[at + 1] if at + 1 < len(ids) else None,
        }
        try:
            row = read_video(run.output, "videos", ids[at]).to_pylist()[0]
            pages[ids[at]] = write_video_page(
                row, f"{folder}/videos/{ids[at]}", config, run.low_quality_below, deadline,
                neighbours,
            )  # fmt: skip
        except Exception as error:  # whatever it is, the other videos get their pages
            reason = str(error) if isinstance(error, StorageError) else describe_error(error)
            failed[name] = mask_secrets(reason)
    listed = run.videos.slice(0, _TABLE_ROWS)
    write_atomic(f"{folder}/data.js", assigned("run", _table_value(listed, pages)))
    write_atomic(f"{folder}/index.html", _run_page(run, config, pages, failed))
    return Report(f"{folder}/index.html", len(run.videos), len(pages), failed, run.left)


def _refuse_others(folder: str, blur: Blur) -> None:
    """Refuse a folder with a report whose people are blurred otherwise, or not at all.

    Its pictures of videos that get no page now would stay. It may have been left half made.

    Raises:
        OtherReportError: there is such a report.
        StorageError: the folder cannot be read.
    """
    if storage.exists(said := f"{folder}/{_BLUR_FILE}"):
        before = storage.read_bytes(said).decode(errors="replace")
    elif storage.exists(f"{folder}/assets/{ASSETS[0]}"):
        before = "none"  # a report of an earlier version
    else:
        return
    if before != blur:
        raise OtherReportError(
            f"{folder}: has a report that was made with blur={before}, whose pictures would stay "
            f"beside those of blur={blur}; give another folder with report="
        )


def report_at_end(output: str) -> Report:
    """Write the report at the end of a run: few pages in bounded time, and no copies of videos.

    Raises:
        StorageError: the output cannot be read, or the report cannot be written.
    """
    return make_report(
        ReportConfig(output=output, pages=_END_PAGES, player="link", seconds=_END_SECONDS)
    )


def chosen_rows(videos: pa.Table, config: ReportConfig) -> list[int]:
    """Rows of the videos that get a page, in the order of the table.

    Raises:
        UnknownVideoError: a name in `config.videos` is not in the run.
    """
    worst, best = figures.by_quality(videos)
    extremes = [row for pair in zip_longest(worst, best) for row in pair if row is not None]
    order = dict.fromkeys([*extremes, *range(len(videos))])
    chosen = set(list(order)[: config.pages])
    names: dict[str, int] = {}
    for field in ("relative_path", "video_id"):
        names |= {name: row for row, name in enumerate(videos[field].to_pylist())}
    for name in config.videos:
        if name not in names:
            raise UnknownVideoError(
                f"videos: {name} is none of the {len(videos)} videos that are done; give the "
                "video_id or the path in the archive, as in the table `videos`"
            )
        chosen.add(names[name])
    return sorted(chosen)


def _run_page(
    run: RunTables,
    config: ReportConfig,
    pages: Mapping[str, VideoPage],
    failed: Mapping[str, str],
) -> bytes:
    sums = figures.totals(run)
    shares = figures.time_shares(run.videos)
    worst, best = figures.by_quality(run.videos)
    hours = figures.quality_hours(run.videos)
    price = config.price_per_hour
    return render(
        "index.html",
        run=run,
        begun=_minute(datetime.fromisoformat(run.record["created"])),
        made=_minute(datetime.now(UTC)),
        totals=sums,
        cost=None if price is None else price * sums.worker_s / 3600,
        price=price,
        currency=config.currency,
        shares=shares,
        advice=figures.advice(shares),
        hours=hours,
        most_hours=max(hours, default=0.0),
        best_page=_best_page(run.videos, pages),
        worst=[_card(run.videos, row, pages) for row in worst],
        best=[_card(run.videos, row, pages) for row in best],
        busiest=figures.busiest(run.videos),
        trust=trust_figures(run.output),
        table_rows=_TABLE_ROWS,
        pages=pages,
        failed=failed,
        dead=[
            {**letter, "remedy": figures.what_to_do(letter)} for letter in run.letters.to_pylist()
        ],
        settings=flat(run.record["config"]),
        blur=config.blur,
    )


def _best_page(videos: pa.Table, pages: Mapping[str, VideoPage]) -> dict[str, Any] | None:
    """The page that shows most, with the name of its video; None where no page shows anybody."""
    page = max(
        pages.values(), key=lambda page: (page.still, page.people > 0, page.merit), default=None
    )
    if page is None or not page.still or not page.people:
        return None
    place = videos["video_id"].to_pylist().index(page.video_id)
    name = videos["relative_path"][place].as_py()
    return {"video_id": page.video_id, "name": name, "people": page.people}


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _card(videos: pa.Table, place: int, pages: Mapping[str, VideoPage]) -> dict[str, Any]:
    row: dict[str, Any] = videos.slice(place, 1).to_pylist()[0]
    page = pages.get(row["video_id"])
    return {**row, "page": page is not None, "still": page is not None and page.still}


def _table_value(videos: pa.Table, pages: Mapping[str, VideoPage]) -> dict[str, Any]:
    """The table of videos for `table.js`, by column."""
    cuts = videos["cut_times_s"].to_pylist()
    numbers = {
        "seconds": ("video_s", 2),
        "frames": ("frames_decoded", 0),
        "people": ("num_tracks", 0),
        "quality": ("quality_p50", 5),
        "low": ("low_quality_share", 4),
        "rate": ("frames_per_second", 1),
    }
    columns: dict[str, Any] = {
        name: rounded(videos[field].to_numpy().astype(np.float64), digits)
        for name, (field, digits) in numbers.items()
    }
    return {
        "name": videos["relative_path"].to_pylist(),
        "page": [number if number in pages else "" for number in videos["video_id"].to_pylist()],
        "status": videos["status"].to_pylist(),
        **columns,
        "perHour": rounded(figures.people_per_hour(videos), 1),
        "cuts": [len(times or []) for times in cuts],
        "note": [
            "; ".join(filter(None, pair))
            for pair in zip(videos["error"].to_pylist(), videos["repairs"].to_pylist(), strict=True)
        ],
    }
