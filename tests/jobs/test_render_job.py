"""`vsdmot render`: which video is meant, where the overlay goes, and what is refused."""

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.render import VideoNotFoundError, find_video
from jobs.render import main as render_job
from pipeline.storage.files import list_videos, write_atomic
from pipeline.storage.schema import (
    FRAMES,
    TRACK_SUMMARY,
    TRACKS,
    VIDEOS,
    rows_table,
    table_uri,
    to_parquet_bytes,
)
from pipeline.video.probe import probe
from tests.videos import write_video

pytest.importorskip("cv2")


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


@pytest.fixture
def run(tmp_path):
    """An output of one video with two tracks, and its archive."""
    (tmp_path / "in").mkdir()
    path = write_video(tmp_path / "in" / "walk.mp4", frames=6, width=480, height=360)
    info, output = probe(next(list_videos(str(path)))), tmp_path / "out"
    tracks = [
        {"video_id": info.video_id, "frame_index": t, "time_s": t / 25, "track_id": number,
         "x": 40.0 + 4 * t, "y": 60.0 * number, "w": 30.0, "h": 60.0, "score": 0.9,
         "class_name": "person", "semantic_weight": 0.5}
        for t in range(6) for number in (3, 5)
    ]  # fmt: skip
    statistics = dict.fromkeys(
        ("quality", "sharpness", "noise", "blockiness", "luma", "contrast", "semantic_weight"), 0.5
    )
    frames = [
        {"video_id": info.video_id, "frame_index": t, "time_s": t / 25, **statistics,
         "num_tracks": 2, "encoded": True, "cut": False}
        for t in range(6)
    ]  # fmt: skip
    summary = [
        {**dict.fromkeys(TRACK_SUMMARY.names, 0), "video_id": info.video_id, "track_id": number,
         "class_name": "person", "rejoined": False, "trust": trust}
        for number, trust in ((3, 0.9), (5, 0.1))
    ]  # fmt: skip
    kept = {
        "tracks": rows_table(tracks, TRACKS),
        "frames": rows_table(frames, FRAMES),
        "track_summary": rows_table(summary, TRACK_SUMMARY),
        "videos": pa.Table.from_pylist([{**dict.fromkeys(VIDEOS.names), **asdict(info)}]),
    }
    for table, rows in kept.items():
        write_atomic(table_uri(str(output), table, info.video_id), to_parquet_bytes(rows))
    return output, info


def left_with(capsys, *arguments):
    """Exit code and message of the job."""
    with pytest.raises(SystemExit) as left:
        render_job([str(argument) for argument in arguments])
    return left.value.code, capsys.readouterr().err


def test_the_job_writes_video_and_sheet_beside_the_tables(run, capsys):
    output, info = run
    assert render_job([f"output={output}", "video=walk.mp4"]) == 0
    files = sorted(path.name for path in (output / "overlays").iterdir())
    assert files == [f"{info.video_id}.mp4", f"{info.video_id}.png"]
    assert "6 frames, 12 boxes" in capsys.readouterr().out
    settings = ["min_trust=0.5", "start_s=0.08", "blur=heads"]
    assert render_job([f"output={output}", "video=walk.mp4", *settings]) == 0
    said = capsys.readouterr().out
    assert "4 frames, 4 boxes" in said and "not found are not blurred" in said
    assert f"{info.video_id}-blurred-heads.mp4" in said


def test_bad_requests_are_named(run, tmp_path, capsys):
    output, info = run
    video = "video=walk.mp4"
    assert left_with(capsys, f"output={tmp_path / 'none'}", "video=walk")[0] == 1
    code, said = left_with(capsys, f"output={output}", video, "tracks=[3,8]")
    assert code == 2 and "8 is not in this video; it has 3, 5" in said
    code, said = left_with(capsys, f"output={output}", video, "start_s=3")
    assert code == 2 and "from 0.00 to 0.20 s" in said
    Path(info.uri).rename(tmp_path / "in" / "moved.mp4")
    code, said = left_with(capsys, f"output={output}", video)
    assert code == 1 and "not where it was tracked" in said and "walk.mp4" in said


def test_an_overlay_never_replaces_its_source(run, tmp_path, capsys):
    output, info = run
    inside = tmp_path / "in" / f"{info.video_id}.mp4"
    Path(info.uri).rename(inside)
    moved = pa.Table.from_pylist(
        [{**dict.fromkeys(VIDEOS.names), **asdict(replace(info, uri=str(inside)))}]
    )
    write_atomic(table_uri(str(output), "videos", info.video_id), to_parquet_bytes(moved))
    before = inside.read_bytes()
    there = f"overlays={tmp_path / 'out' / '..' / 'in'}"
    code, said = left_with(capsys, f"output={output}", "video=walk.mp4", there)
    assert code == 2 and "is the video itself" in said
    assert inside.read_bytes() == before
