"""Decoding: the right frames, at the right times, the right way up, whatever the file is like."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.storage.files import StorageError, list_videos
from pipeline.video import probe as probe_module
from pipeline.video.by_index import read_frames
from pipeline.video.decode import Frame, FrameStream, iterate_frames
from pipeline.video.decoder import Decoder
from pipeline.video.errors import DecodeError
from pipeline.video.info import VideoInfo
from pipeline.video.picture import stored_luma
from pipeline.video.probe import probe
from tests import ROOT, videos

HEIGHT, WIDTH = 96, 160  # the model's canvas in these tests


def look(path: Path) -> VideoInfo:
    return probe(next(list_videos(str(path))))


def decode(path: Path, height: int = HEIGHT, width: int = WIDTH) -> tuple[list[Frame], FrameStream]:
    with FrameStream(look(path), height, width, queue_size=4) as stream:
        return list(stream), stream


def numbers(frames: list[Frame]) -> list[int]:
    return [videos.read_number(frame.image) for frame in frames]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mp4", {}),
        ("bframes.mp4", {"codec_options": {"crf": "12", "bf": "3"}}),
        ("mpeg4.avi", {"codec": "mpeg4"}),
        ("a.mkv", {}),
        ("a.ts", {}),
        ("444.mp4", {"pixel_format": "yuv444p"}),
        ("10bit.mp4", {"pixel_format": "yuv420p10le"}),
        ("rgb.mkv", {"codec": "ffv1", "pixel_format": "bgr0"}),
        ("one.mp4", {"frames": 1}),
        ("a b 'c' \"d\"\n東京.mp4", {}),
    ],
)
def test_every_frame_once_in_order(tmp_path: Path, name: str, options: dict) -> None:
    frames, stream = decode(videos.write_video(tmp_path / name, **options))
    count = options.get("frames", 24)
    assert numbers(frames) == list(range(count))
    assert [frame.index for frame in frames] == list(range(count))
    assert [frame.time_s for frame in frames] == pytest.approx(
        [number / 25 for number in range(count)], abs=2e-3
    )
    assert (stream.error, stream.decoded, stream.damaged) == (None, count, 0)
    assert stream.decode_seconds > 0
    for frame in frames:
        stored = videos.picture(frame.index, 160, 96)
        assert np.abs(frame.image.astype(int) - stored).mean() < 4
        assert frame.patches.shape == (8, 64, 64)
        assert frame.patches.dtype == np.uint8


@pytest.mark.parametrize("size", [(161, 97), (1, 1), (1, 50), (50, 1), (3, 2), (96, 160)])
def test_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    suffix, codec = ("mov", "png") if 1 in size else ("mkv", "ffv1")
    layout = "rgb24" if 1 in size else "yuv420p"
    path = videos.write_video(tmp_path / f"v.{suffix}", 3, width, height, codec, layout)
    frames, stream = decode(path)
    box = stream.letterbox
    assert (box.source_width, box.source_height) == size
    assert len(frames) == 3
    for frame in frames:
        assert frame.image.shape == (HEIGHT, WIDTH, 3)
        assert frame.image[: box.scaled_height, : box.scaled_width].min() >= 0
        assert not frame.image[box.scaled_height :].any()
        assert not frame.image[:, box.scaled_width :].any()
        assert frame.patches.shape == (8, 64, 64)
    if min(size) > 50:
        picture = frames[2].image[: box.scaled_height, : box.scaled_width]
        assert videos.read_number(picture) == 2


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_rotated_as_a_player_shows_it(tmp_path: Path, clockwise: int) -> None:
    path = videos.write_video(tmp_path / "r.mp4", frames=3)
    info = look(videos.set_matrix(path, videos.TURN_CLOCKWISE[clockwise]))
    for index, _, image in iterate_frames(info):
        shown = videos.upright(videos.picture(index, 160, 96), clockwise)
        assert image.shape == shown.shape
        assert np.abs(image.astype(int) - shown).mean() < 4
    with FrameStream(info, 80, 80) as stream:
        for frame in stream:
            box = stream.letterbox
            picture = frame.image[: box.scaled_height, : box.scaled_width]
            stored = np.rot90(picture, clockwise // 90)
            x0, y0, x1, y1 = videos.rectangle(frame.index, 160, 96)
            assert stored[(3 * y0 + y1) // 8, (x0 + x1) // 4].mean() > 200
            assert abs(int(stored[-2, -2].mean()) - videos.GREY) < 12
    batch = read_frames(info.uri, [1], info.width, info.height)[0]
    assert (
        np.abs(batch.astype(int) - videos.upright(videos.picture(1, 160, 96), clockwise)).mean() < 4
    )


def test_rotation_agrees_with_opencv(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for clockwise, matrix in videos.TURN_CLOCKWISE.items():
        path = videos.write_video(tmp_path / f"{clockwise}.mp4", frames=1)
        info = look(videos.set_matrix(path, matrix))
        capture = cv2.VideoCapture(info.uri)
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        shown = capture.read()[1][:, :, ::-1]
        capture.release()
        ((_, _, image),) = iterate_frames(info)
        assert np.abs(image.astype(int) - shown).mean() < 4


def test_mirrored(tmp_path: Path) -> None:
    path = videos.set_matrix(videos.write_video(tmp_path / "m.mp4", frames=1), videos.MIRROR)
    ((_, _, image),) = iterate_frames(look(path))
    assert np.abs(image.astype(int) - videos.picture(0, 160, 96)[:, ::-1]).mean() < 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_keeps_the_files_own_times(tmp_path: Path, suffix: str) -> None:
    times = [0, 40, 80, 500, 1000, 1020]
    path = videos.write_video(tmp_path / f"v.{suffix}", frames=6, milliseconds=times)
    frames, stream = decode(path)
    assert [frame.time_s for frame in frames] == pytest.approx([t / 1000 for t in times], abs=2e-3)
    assert stream.error is None


def test_times_start_at_zero_and_go_on_when_the_clock_restarts(tmp_path: Path) -> None:
    # Two recordings in one file, as recorders leave them: the second starts its clock anew.
    first = videos.write_video(tmp_path / "a.ts", frames=75)
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() * 2)
    frames, _ = decode(both)
    times = np.array([frame.time_s for frame in frames])
    assert len(frames) == 150
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(149 / 25, abs=0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"container_options": {"movflags": "faststart"}}),
        ("a.mkv", {}),
        ("a.avi", {"codec": "mpeg4"}),
    ],
)
def test_truncated_gives_what_is_readable_and_says_so(
    tmp_path: Path, name: str, options: dict
) -> None:
    path = videos.cut(videos.write_video(tmp_path / name, frames=90, **options), 0.6)
    frames, stream = decode(path)
    assert 20 < len(frames) < 80
    assert numbers(frames)[:20] == list(range(20))
    assert stream.error is not None
    assert "ends early" in stream.error


def test_truncated_transport_stream_is_a_shorter_video(tmp_path: Path) -> None:
    path = videos.cut(videos.write_video(tmp_path / "a.ts", frames=90), 0.6)
    frames, _ = decode(path)
    assert 20 < len(frames) < 80


def test_damaged_packets_are_skipped(tmp_path: Path) -> None:
    path = videos.write_video(
        tmp_path / "a.mp4", frames=90, container_options={"movflags": "faststart"}
    )
    frames, stream = decode(videos.damage(path, 0.5, 0.6))
    assert stream.damaged > 0
    assert stream.error is None
    assert numbers(frames)[-5:] == [85, 86, 87, 88, 89]
    assert numbers(frames)[:30] == list(range(30))


def test_not_one_frame_is_an_error(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    info = look(path)
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    with FrameStream(info, HEIGHT, WIDTH) as stream, pytest.raises(DecodeError, match="damaged"):
        list(stream)
    path.write_text("overwritten since it was listed".ljust(info.size_bytes))
    with (
        FrameStream(info, HEIGHT, WIDTH) as stream,
        pytest.raises(DecodeError, match="not a video"),
    ):
        list(stream)


def test_failing_storage_is_not_a_short_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = videos.write_video(
        tmp_path / "a.mp4", frames=90, container_options={"movflags": "faststart"}
    )
    info = look(path)
    monkeypatch.setattr(probe_module, "_READ_SIZE", 4096)
    read = probe_module.Source.read

    def fail_late(source: probe_module.Source, size: int = -1) -> bytes:
        if source.tell() > info.size_bytes / 2:
            source.failure = ConnectionResetError("connection reset by peer")
            raise source.failure
        return read(source, size)

    monkeypatch.setattr(probe_module.Source, "read", fail_late)
    with FrameStream(info, HEIGHT, WIDTH) as stream, pytest.raises(StorageError, match="reset"):
        list(stream)


def test_size_may_change_in_mid_stream(tmp_path: Path) -> None:
    parts = [
        videos.write_video(tmp_path / "a.h264", 10, 160, 96, container="h264"),
        videos.write_video(tmp_path / "b.h264", 10, 320, 192, container="h264"),
    ]
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, stream = decode(both)
    assert stream.letterbox.source_width == 160
    assert numbers(frames) == [*range(10), *range(10)]


def test_luma_is_the_stored_plane() -> None:
    gradient = np.tile(np.arange(100, 137, dtype=np.uint8), (21, 1))
    frame = av.VideoFrame.from_ndarray(gradient, format="gray")
    deep = av.VideoFrame.from_ndarray(gradient.astype(np.uint16) << 8, format="gray16le")
    planes = av.VideoFrame(37, 21, "yuv420p10le")
    plane = np.frombuffer(memoryview(planes.planes[0]), np.uint16).reshape(21, -1)
    plane[:, :37] = gradient.astype(np.uint16) << 2
    for picture, is_limited in ((frame, False), (deep, False), (planes, True)):
        values, limited = stored_luma(picture)
        assert (values == gradient).all()
        assert limited == is_limited
    colour = av.VideoFrame.from_ndarray(np.full((21, 37, 3), 255, np.uint8), format="rgb24")
    values, limited = stored_luma(colour)
    assert values.shape == (21, 37)
    assert (values == 255).all() and not limited


@pytest.mark.parametrize(
    ("name", "options", "black"),
    [
        ("limited.mp4", {}, 16),
        ("deep.mp4", {"pixel_format": "yuv420p10le"}, 16),
        ("full.mp4", {"pixel_format": "yuvj420p"}, 0),
        ("full.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, 0),
        ("rgb.mkv", {"codec": "ffv1", "pixel_format": "bgr0"}, 0),
    ],
)
def test_patches_are_on_one_scale_whatever_range_the_file_stores(
    tmp_path: Path, name: str, options: dict, black: int
) -> None:
    path = videos.write_video(tmp_path / name, frames=2, **options)
    stored = [stored_luma(picture)[0] for _, _, picture in Decoder(look(path)).frames()]
    assert np.median(stored[1][stored[1] < 40]) == pytest.approx(black, abs=2)
    (_, frame), _ = decode(path)
    dark, light = frame.patches[frame.patches < 40], frame.patches[frame.patches > 180]
    assert np.median(dark) == pytest.approx(0, abs=2)
    assert np.median(frame.patches) == pytest.approx(videos.GREY, abs=2)
    assert np.median(light) == pytest.approx(videos.WHITE, abs=2)


def test_thread_stops_when_the_reader_leaves(tmp_path: Path) -> None:
    info = look(videos.write_video(tmp_path / "a.mp4", frames=60))
    before = threading.active_count()
    with FrameStream(info, HEIGHT, WIDTH, queue_size=2) as stream:
        assert next(iter(stream)).index == 0
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="model broke"), FrameStream(info, HEIGHT, WIDTH):
        raise RuntimeError("model broke")
    assert threading.active_count() == before


def test_queue_is_bounded(tmp_path: Path) -> None:
    info = look(videos.write_video(tmp_path / "a.mp4", frames=60))
    with FrameStream(info, HEIGHT, WIDTH, queue_size=3) as stream:
        time.sleep(0.5)
        assert stream.decoded <= 4
        assert numbers(list(stream)) == list(range(60))


def test_read_frames_by_index(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "a.mp4", frames=40)
    frames = read_frames(str(path), [30, 3, 17], 320, 192)
    assert frames.shape == (3, 192, 320, 3)
    assert [videos.read_number(frame) for frame in frames] == [30, 3, 17]
    with pytest.raises(DecodeError, match="cannot read frames"):
        read_frames(str(path), [40], 160, 96)
    with pytest.raises(DecodeError, match="cannot read frames"):
        read_frames(str(videos.write_text(tmp_path / "t.mp4")), [0], 160, 96)


def test_reading_by_index_leaves_torch_its_blas(tmp_path: Path) -> None:
    """decord loads NVBLAS if it is let: then one picture in one thread is a segmentation fault."""
    path = videos.write_video(tmp_path / "a.mp4", frames=4)
    code = (
        "import sys, torch\n"
        "from pipeline.video.by_index import read_frames\n"
        "read_frames(sys.argv[1], [1], 160, 96)\n"
        "torch.set_num_threads(1)\n"
        "with torch.inference_mode():\n"
        "    torch.nn.Conv2d(3, 8, 3)(torch.zeros(1, 3, 32, 32))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
