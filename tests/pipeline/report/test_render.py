"""Overlays from hand-made tables: what is drawn is where the tables say, at the source's times."""

from dataclasses import asdict

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.render import VideoNotFoundError, find_video
from jobs.render import main as render_job
from pipeline.storage.files import list_videos, write_atomic
from pipeline.storage.schema import FRAMES, TRACKS, VIDEOS, rows_table, table_uri, to_parquet_bytes
from pipeline.video.probe import probe
from tests.videos import write_video

pytest.importorskip("supervision")
render_module = pytest.importorskip("pipeline.report.render")
render, RenderError = render_module.render, render_module.RenderError

GREY = 90


def tables(count: int, quality: float = 0.8, boxes: bool = True) -> tuple[pa.Table, pa.Table]:
    """One person who walks right, 4 pixels a frame."""
    tracks = [
        {
            "video_id": "v", "frame_index": t, "time_s": t / 10, "track_id": 3, "x": 40.0 + 4 * t,
            "y": 60.0, "w": 30.0, "h": 60.0, "score": 0.9, "class_name": "person",
            "semantic_weight": 0.5,
        }
        for t in range(count if boxes else 0)
    ]  # fmt: skip
    frames = [
        {
            "video_id": "v", "frame_index": t, "time_s": t / 10, "quality": quality,
            "sharpness": 0.0, "noise": 0.0, "blockiness": 0.0, "luma": 0.0, "contrast": 0.0,
            "semantic_weight": 0.5, "num_tracks": 1, "encoded": True, "cut": False,
        }
        for t in range(count)
    ]  # fmt: skip
    return rows_table(tracks, TRACKS), rows_table(frames, FRAMES)


def pictures(count: int, height: int = 180, width: int = 240, step: float = 0.1):
    for t in range(count):
        yield t, t * step, np.full((height, width, 3), GREY, np.uint8)


def decoded(path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        frames = list(container.decode(video=0))
    return [f.to_ndarray(format="rgb24") for f in frames], [float(f.time) for f in frames]


def test_tables_that_begin_in_mid_video_are_drawn_on_their_frames(tmp_path):
    """With only.start_s frames of the tables count from the first one that was tracked."""
    video, sheet = tmp_path / "a.mp4", tmp_path / "a.png"
    tracks, frames = (
        table.set_column(2, "time_s", pa.array([t + 0.7 for t in table["time_s"].to_pylist()]))
        for table in tables(5)
    )
    overlay = render(pictures(20), tracks, frames, video, sheet)
    assert (overlay.frames, overlay.boxes) == (5, 5)
    np.testing.assert_allclose(decoded(video)[1], np.arange(7, 12) / 10, atol=2e-3)


def test_boxes_tails_and_bar_are_drawn_and_times_kept(tmp_path):
    video, sheet = tmp_path / "a.mp4", tmp_path / "a.png"
    times = [0.0, 0.1, 0.15, 0.7, 0.8, 0.8, 0.9, 1.0, 1.1, 1.2]
    source = ((t, times[t], p) for t, _, p in pictures(10))
    overlay = render(source, *tables(10), video, sheet)
    assert (overlay.frames, overlay.boxes, overlay.tiles) == (10, 10, 10)
    shown, at = decoded(video)
    assert len(shown) == 10
    np.testing.assert_allclose(at, times, atol=2e-3)
    changed = np.abs(shown[9].astype(int) - GREY).max(-1) > 25
    assert changed[70:110, 40 + 36].mean() > 0.9  # left edge of the box in frame 9
    assert not changed[75:110, 82:100].any()  # within the box nothing
    assert changed[119:122, 62:85].any()  # the tail behind its foot
    assert changed[4:6, 5:40].all()  # the quality bar
    assert not changed[150:, 150:].any()


def test_the_contact_sheet_has_twelve_tiles_at_most(tmp_path):
    overlay = render(pictures(40), *tables(40), tmp_path / "a.mp4", tmp_path / "a.png")
    assert overlay.tiles == 12
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == (1600, 3 * (300 + 16))


def test_the_bar_says_the_quality(tmp_path):
    colours = []
    for quality in (0.05, 0.95):
        render(pictures(1), *tables(1, quality), tmp_path / "a.mp4", tmp_path / "a.png")
        colours.append(decoded(tmp_path / "a.mp4")[0][0][4, 4].astype(int))
    assert colours[0][0] > colours[0][1] + 50  # red
    assert colours[1][1] > colours[1][0] + 50  # green


@pytest.mark.parametrize(("height", "width"), [(37, 51), (20, 16), (2, 2)])
def test_odd_and_tiny_sizes_without_anyone_in_them(tmp_path, height, width):
    none, frames = tables(3, boxes=False)
    source = pictures(3, height, width)
    overlay = render(source, none, frames, tmp_path / "a.mp4", tmp_path / "a.png")
    assert (overlay.frames, overlay.boxes) == (3, 0)
    shown = decoded(tmp_path / "a.mp4")[0][0]
    assert shown.shape[:2] == (height + height % 2, width + width % 2)


def test_what_was_not_tracked_ends_the_video_and_nothing_is_an_error(tmp_path):
    overlay = render(pictures(9), *tables(4), tmp_path / "a.mp4", tmp_path / "a.png")
    assert overlay.frames == 4
    with pytest.raises(RenderError, match=r"b\.mp4: no frame to draw"):
        render(iter(()), *tables(4), tmp_path / "b.mp4", tmp_path / "b.png")
    assert not (tmp_path / "b.mp4").exists()


def video_row(video_id: str, path: str) -> dict[str, str]:
    return {"video_id": video_id, "relative_path": path, "uri": f"/archive/{path}"}


ROWS = [
    video_row("video-aa", "KITTI-17/video.mp4"),
    video_row("video-bb", "TUD-Campus/video.mp4"),
    video_row("bikes-cc", "bikes.mp4"),
]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("video-bb", "video-bb"),
        ("KITTI-17/video.mp4", "video-aa"),
        ("/archive/bikes.mp4", "bikes-cc"),
        ("bikes", "bikes-cc"),
        ("TUD-Campus", "video-bb"),
        ("KIT", "video-aa"),
    ],
)
def test_a_video_is_found_by_any_of_its_names(name, found):
    assert find_video(name, ROWS)["video_id"] == found


def test_an_ambiguous_or_unknown_video_lists_the_nearest():
    with pytest.raises(VideoNotFoundError, match=r"fits 2 videos.*\n  video-aa  \(KITTI-17/"):
        find_video("video.mp4", ROWS)
    with pytest.raises(
        VideoNotFoundError, match=r"none of the 3 videos; give one of the most similar:\n  bikes-cc"
    ):
        find_video("bices-cc", ROWS)


def test_the_job_writes_video_and_sheet_beside_the_tables(tmp_path, capsys):
    archive, output = tmp_path / "in", tmp_path / "out"
    archive.mkdir()
    write_video(archive / "walk.mp4", frames=6, width=240, height=180)
    info = probe(next(list_videos(str(archive))))
    tracks, frames = tables(6)
    row = {**dict.fromkeys(VIDEOS.names), **asdict(info)}
    kept = {"tracks": tracks, "frames": frames, "videos": pa.Table.from_pylist([row])}
    for table, rows in kept.items():
        write_atomic(table_uri(str(output), table, info.video_id), to_parquet_bytes(rows))
    assert render_job([f"output={output}", "video=walk.mp4"]) == 0
    assert len(decoded(output / "overlays" / f"{info.video_id}.mp4")[0]) == 6
    assert (output / "overlays" / f"{info.video_id}.png").exists()
    assert "6 frames, 6 boxes" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        render_job([f"output={tmp_path / 'none'}", "video=walk"])
    assert left.value.code == 1


def test_frames_between_sampled_ones_are_left_out_and_still_ones_are_told(tmp_path):
    tracks, frames = tables(10)
    kept = pa.array([0, 3, 5])
    frames = frames.take(kept)
    still = frames.set_column(
        frames.column_names.index("encoded"), "encoded", pa.array([True, False, False])
    )
    shown = {}
    for name, rows in (("sampled", frames), ("still", still)):
        video = tmp_path / f"{name}.mp4"
        overlay = render(pictures(10), tracks, rows, video, tmp_path / f"{name}.png")
        assert (overlay.frames, overlay.boxes) == (3, 3)
        shown[name], at = decoded(video)
        np.testing.assert_allclose(at, [0, 0.3, 0.5], atol=2e-3)
    first, second = (
        np.abs(a.astype(int) - b).max()
        for a, b in zip(shown["sampled"][:2], shown["still"][:2], strict=True)
    )
    assert first < 40 < 80 < second
