"""Probe: what a header says, and what is said of files that are no video."""

from pathlib import Path

import av
import pytest

from pipeline.storage.files import StorageError, list_videos
from pipeline.video import probe as probe_module
from pipeline.video.info import VideoInfo
from pipeline.video.probe import ProbeError, open_video, probe
from tests import videos


def look(path: Path) -> VideoInfo:
    return probe(next(list_videos(str(path))))


def test_mp4(tmp_path: Path) -> None:
    info = look(videos.write_video(tmp_path / "a.mp4"))
    assert info.video_id.startswith("a-")
    assert info.container.startswith("mov,mp4")
    assert (info.codec, info.pixel_format) == ("h264", "yuv420p")
    assert (info.width, info.height, info.rotation) == (160, 96, 0)
    assert (info.fps, info.time_base, info.variable_rate) == (25.0, "1/12800", False)
    assert (info.frames_expected, info.duration_s) == (24, pytest.approx(0.96))
    assert info.size_bytes == (tmp_path / "a.mp4").stat().st_size


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("a.avi", {"codec": "mpeg4"}, (160, 96)),
        ("a.mkv", {}, (160, 96)),
        ("a.ts", {}, (160, 96)),
        ("odd.avi", {"codec": "mpeg4", "width": 161, "height": 97}, (161, 97)),
        ("portrait.mp4", {"width": 96, "height": 160}, (96, 160)),
        ("444.mp4", {"pixel_format": "yuv444p"}, (160, 96)),
        ("10bit.mp4", {"pixel_format": "yuv420p10le"}, (160, 96)),
        ("one.mp4", {"frames": 1}, (160, 96)),
    ],
)
def test_size_and_frames(tmp_path: Path, name: str, options: dict, size: tuple[int, int]) -> None:
    info = look(videos.write_video(tmp_path / name, **options))
    assert (info.width, info.height) == size
    assert info.frames_expected == options.get("frames", 24)
    assert info.pixel_format == options.get("pixel_format", "yuv420p")
    assert not info.variable_rate


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_rotation_swaps_the_size(tmp_path: Path, clockwise: int) -> None:
    path = videos.write_video(tmp_path / "r.mp4", frames=2)
    info = look(videos.set_matrix(path, videos.TURN_CLOCKWISE[clockwise]))
    assert info.rotation == clockwise
    assert (info.width, info.height) == ((96, 160) if clockwise in (90, 270) else (160, 96))


def test_mirrored_is_not_a_half_turn(tmp_path: Path) -> None:
    path = videos.set_matrix(videos.write_video(tmp_path / "m.mp4", frames=2), videos.MIRROR)
    assert look(path).rotation == 0


def test_variable_rate(tmp_path: Path) -> None:
    times = [0, 40, 80, 500, 1000]
    path = videos.write_video(tmp_path / "vfr.mp4", frames=5, milliseconds=times)
    info = look(path)
    assert info.variable_rate
    assert info.frames_expected == 5


def test_elementary_stream_has_no_made_up_length(tmp_path: Path) -> None:
    info = look(videos.write_video(tmp_path / "raw.h264", container="h264"))
    assert info.duration_s is None
    assert info.frames_expected is None


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("empty.mp4", videos.write_empty, "empty"),
        ("text.mp4", videos.write_text, "not a video: Invalid data"),
        ("audio.mp4", videos.write_audio, "no picture track; the file holds: audio"),
        ("codec.mp4", videos.write_unsupported, "no decoder"),
        (
            "nomoov.mp4",
            lambda path: videos.cut(videos.write_video(path), 0.6),
            "moov atom not found",
        ),
    ],
)
def test_what_is_no_video(tmp_path: Path, name: str, write, message: str) -> None:
    with pytest.raises(ProbeError, match=message) as caught:
        look(write(tmp_path / name))
    assert caught.value.kind == "input"
    assert av.logging.get_level() is None


def test_truncated_with_header_tells_what_is_missing(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    info = look(videos.cut(path, 0.6))
    assert info.frames_expected == 24


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_playlists_open_nothing(tmp_path: Path, name: str) -> None:
    secret = videos.write_video(tmp_path / "secret.ts")
    concat = f"ffconcat version 1.0\nfile {secret.name}\n"
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    for text in (concat, hls):
        (tmp_path / name).write_text(text)
        with pytest.raises(ProbeError):
            look(tmp_path / name)


def test_failing_storage_is_not_a_bad_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = videos.write_video(tmp_path / "a.mp4")

    class Broken:
        def __init__(self) -> None:
            self.file = path.open("rb")

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            self.file.close()

        def read(self, size: int = -1) -> bytes:
            if self.file.tell() > 0:
                raise ConnectionResetError("connection reset by peer")
            return self.file.read(64)

        def seek(self, offset: int, whence: int = 0) -> int:
            return self.file.seek(offset, whence)

        def tell(self) -> int:
            return self.file.tell()

    monkeypatch.setattr(probe_module, "open_binary", lambda uri: Broken())
    with pytest.raises(StorageError, match="connection reset"), open_video(str(path)):
        pass
