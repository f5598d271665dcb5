"""Pictures and copies of videos: the right frame and part of it, and what a browser plays."""

import io
import os
import time

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.report import crops
from pipeline.report.playable import (
    OutOfTimeError,
    browser_plays,
    encode,
    playable,
    relative_link,
)
from pipeline.report.source_pictures import pictures_at
from pipeline.storage.files import ArchiveFile
from pipeline.video.decode import iterate_frames
from pipeline.video.errors import DecodeError
from pipeline.video.probe import probe
from tests.videos import picture, read_number, write_text, write_video


def info_of(path):
    return probe(ArchiveFile(str(path), path.name, path.stat().st_size, None))


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """Ten seconds with numbered frames."""
    return write_video(tmp_path_factory.mktemp("video") / "long.mp4", frames=250)


@pytest.mark.parametrize("numbers", [[0], [3, 4, 90], [249], [10, 245], [2, 230, 249]])
def test_pictures_are_those_of_the_times(long_video, numbers):
    times = [number / 25 for number in numbers]
    shown = pictures_at(info_of(long_video), times)
    found = [(time_s, read_number(image)) for time_s, image in shown]
    assert found == list(zip(times, numbers, strict=True))


def test_pictures_of_a_file_without_an_index(tmp_path):
    path = write_video(tmp_path / "raw.ts", frames=250)
    times = [0.4, 9.6]
    found = [read_number(image) for _, image in pictures_at(info_of(path), times)]
    assert found == [10, 240]


def test_times_beyond_the_end_give_no_picture(long_video):
    assert [t for t, _ in pictures_at(info_of(long_video), [0.0, 60.0])] == [0.0]


def test_a_file_that_is_no_video_any_more(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=4)
    info = info_of(path)
    write_text(path)
    with pytest.raises(DecodeError, match="not a video"):
        list(pictures_at(info, [0.0]))


def test_a_crop_shows_its_box_in_the_middle():
    image = np.zeros((200, 300, 3), np.uint8)
    image[60:120, 100:130] = 255
    tile = np.asarray(crops.crop(image, (100, 60, 30, 60)))
    assert tile.shape == (crops.TILE_HEIGHT, crops.TILE_WIDTH, 3)
    middle = tile[crops.TILE_HEIGHT // 2, crops.TILE_WIDTH // 2]
    assert middle.min() > 250 and tile[2, 2].max() < 5
    assert 0.2 < (tile > 128).mean() < 0.8


@pytest.mark.parametrize(
    "box", [(0, 0, 10, 20), (290, 190, 10, 10), (0, 0, 300, 200), (150, 100, 0.1, 0.1),
            (0, 90, 300, 4), (140, 0, 4, 200)]
)  # fmt: skip
def test_crops_at_the_edge_are_of_the_same_size(box):
    tile = crops.crop(np.full((200, 300, 3), 200, np.uint8), box)
    assert tile.size == (crops.TILE_WIDTH, crops.TILE_HEIGHT)
    assert np.asarray(tile).max() > 190


def test_a_sheet_has_tiles_in_rows():
    colours = ["red", "lime", "blue"] + ["black"] * 8 + ["white"]
    tiles = [Image.new("RGB", (crops.TILE_WIDTH, crops.TILE_HEIGHT), c) for c in colours]
    image = np.asarray(Image.open(io.BytesIO(crops.sheet(tiles))))
    assert image.shape[:2] == (2 * crops.TILE_HEIGHT, crops.COLUMNS * crops.TILE_WIDTH)
    middle = (image[crops.TILE_HEIGHT // 2 :: crops.TILE_HEIGHT,
                    crops.TILE_WIDTH // 2 :: crops.TILE_WIDTH] > 128).tolist()  # fmt: skip
    assert middle[0][:3] == [[True, False, False], [False, True, False], [False, False, True]]
    assert middle[1][1] == [True] * 3


def test_a_still_is_small_and_has_boxes():
    grey = np.full((720, 1280, 3), 128, np.uint8)
    boxes = np.array([[400, 200, 200, 400]], np.float32)
    image = np.asarray(Image.open(io.BytesIO(crops.still(grey, boxes, np.array([7])))))
    assert image.shape == (270, 480, 3)
    assert abs(image[135, 150].astype(int) - 128).max() > 40  # the left edge of the box
    assert abs(image[10, 10].astype(int) - 128).max() < 8


def test_what_browsers_play(tmp_path):
    played = {
        "a.mp4": write_video(tmp_path / "a.mp4", frames=2),
        "b.MP4": write_video(tmp_path / "b.MP4", frames=2, container="mp4"),
        "c.webm": write_video(tmp_path / "c.webm", frames=2, codec="libvpx", codec_options={}),
    }
    refused = {
        "d.mkv": write_video(tmp_path / "d.mkv", frames=2),
        "e.avi": write_video(tmp_path / "e.avi", frames=2, codec="mpeg4"),
        "f.mp4": write_video(tmp_path / "f.mp4", frames=2, codec="mpeg4"),
        "g.mp4": write_video(tmp_path / "g.mp4", frames=2, pixel_format="yuv444p"),
    }
    assert [name for name, path in played.items() if not browser_plays(info_of(path))] == []
    assert [name for name, path in refused.items() if browser_plays(info_of(path))] == []


def test_a_link_leads_from_the_page_to_the_video(tmp_path):
    folder = tmp_path / "out" / "report" / "videos" / "a b"
    assert relative_link(str(tmp_path / "in" / "ü #1?.mp4"), str(folder)) == (
        "../../../../in/%C3%BC%20%231%3F.mp4"
    )
    assert relative_link("s3://bucket/a.mp4", str(folder)) is None
    assert relative_link(str(tmp_path / "a.mp4"), "memory://report") is None


def test_a_copy_has_each_frame_at_its_time(tmp_path):
    milliseconds = [0, 40, 200, 240, 1000, 1040]
    path = write_video(tmp_path / "a.mkv", frames=6, milliseconds=milliseconds)
    encode(info_of(path), str(tmp_path / "copy" / "video.mp4"))
    copy = info_of(tmp_path / "copy" / "video.mp4")
    assert browser_plays(copy)
    shown = iterate_frames(copy)
    frames = [(round(1000 * time_s), read_number(image)) for _, time_s, image in shown]
    assert frames == [(time_ms, number) for number, time_ms in enumerate(milliseconds)]


def test_a_copy_is_smaller_and_upright(tmp_path):
    path = write_video(
        tmp_path / "a.avi", frames=2, width=2001 // 2 * 2, height=1200, codec="mpeg4"
    )
    encode(info_of(path), str(tmp_path / "video.mp4"))
    with av.open(str(tmp_path / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (1200, 720, "yuv420p")
        shown = next(container.decode(stream)).to_ndarray(format="rgb24")
    small = np.asarray(Image.fromarray(picture(0, 2000, 1200)).resize((1200, 720)))
    assert abs(shown.astype(int) - small).mean() < 6


def test_a_copy_is_made_once_and_not_beyond_its_time(tmp_path):
    path = write_video(tmp_path / "a.mkv", frames=30)
    target = tmp_path / "video.mp4"
    with pytest.raises(OutOfTimeError):
        encode(info_of(path), str(target), time.monotonic() - 1)
    assert not target.exists()
    encode(info_of(path), str(target))
    before = os.stat(target)
    encode(info_of(path), str(target))
    assert os.stat(target).st_mtime_ns == before.st_mtime_ns


def test_what_a_page_plays(tmp_path):
    plays = info_of(write_video(tmp_path / "a.mp4", frames=4))
    other = info_of(write_video(tmp_path / "b.avi", frames=4, codec="mpeg4"))
    folder = str(tmp_path / "report" / "a")
    assert playable(plays, folder, "auto").source == "../../a.mp4"
    assert playable(plays, folder, "link").source == "../../a.mp4"
    assert playable(plays, folder, "copy").source == "video.mp4"
    assert (tmp_path / "report/a/video.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()
    refused = playable(other, folder, "link")
    assert refused.source is None and "mpeg4" in refused.note
    folder = str(tmp_path / "report" / "b")
    assert playable(other, folder, "auto", time.monotonic() - 1).source is None
    assert playable(other, folder, "auto").source == "video.mp4"
    (tmp_path / "a.mp4").unlink()
    gone = playable(plays, folder, "auto")
    assert gone.source is None and str(tmp_path / "a.mp4") in gone.note


def test_a_browser_counts_from_the_first_stream(tmp_path):
    path = tmp_path / "late.mp4"
    with av.open(str(path), "w") as output:
        sound = output.add_stream("aac", rate=16000)
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        tone.sample_rate, tone.pts = 16000, 0
        output.mux(sound.encode(tone))
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts = 12 + number
            output.mux(video.encode(frame))
        output.mux([*sound.encode(None), *video.encode(None)])
    shown = playable(info_of(path), str(tmp_path), "auto")
    assert shown.offset_s == pytest.approx(0.48, abs=0.1)
