"""Decoding that begins anywhere gives what one pass gives, whatever the file is like."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.storage.errors import StorageError
from pipeline.video.decode import Frame, FrameStream
from pipeline.video.decoder import Decoder
from pipeline.video.errors import DecodeError, FileChanged, NothingThere, PlaceLost
from pipeline.video.fingerprint import fingerprint
from pipeline.video.info import VideoInfo
from pipeline.video.place import DecodeState
from tests import videos
from tests.pipeline.video.test_decode import look

FRAMES = 120
FAST_START = {"container_options": {"movflags": "faststart"}}
VARIABLE = np.cumsum([0] + [(10, 20, 40, 40, 200)[n * n % 5] for n in range(FRAMES - 1)]).tolist()
REPEATED = [40 * (n - (n % 5 == 3)) for n in range(FRAMES)]


def x264(**given: Any) -> dict[str, Any]:
    """Key frames every half second, B-frames between; `given` are more parameters of x264."""
    given = {"keyint": 12, "bframes": 3, "b_adapt": 0, "scenecut": 0, **given}
    names = ":".join(f"{name.replace('_', '-')}={value}" for name, value in given.items())
    return {"codec_options": {"crf": "12", "preset": "ultrafast", "x264-params": names}}


def plain(name: str, **given: Any) -> Callable[[Path], Path]:
    return lambda folder: videos.write_video(folder / name, FRAMES, **given)


def twice(folder: Path) -> Path:
    """Two recordings in one file: the clock restarts, and the pictures are the same again."""
    one = videos.write_video(folder / "one.ts", FRAMES // 2, **x264()).read_bytes()
    (folder / "twice.ts").write_bytes(one * 2)
    return folder / "twice.ts"


def damaged(name: str, **given: Any) -> Callable[[Path], Path]:
    return lambda folder: videos.damage(plain(name, **given)(folder), 0.35, 0.42)


def cut(name: str, **given: Any) -> Callable[[Path], Path]:
    return lambda folder: videos.cut(plain(name, **given)(folder), 0.7)


MAKERS = {
    "b.mp4": plain("b.mp4", **x264()),
    "open.mp4": plain("open.mp4", **x264(open_gop=1)),
    "b.mkv": plain("b.mkv", **x264()),
    "b.ts": plain("b.ts", **x264()),
    "b.avi": plain("b.avi", **x264()),
    "raw.h264": plain("raw.h264", container="h264", **x264()),
    "refresh.mp4": plain("refresh.mp4", **x264(bframes=0, keyint=30, intra_refresh=1)),
    "one_key.mkv": plain("one_key.mkv", **x264(keyint=250)),
    "mpeg4.avi": plain("mpeg4.avi", codec="mpeg4"),
    "mpeg2.mpg": plain("mpeg2.mpg", codec="mpeg2video"),
    "mjpeg.avi": plain("mjpeg.avi", codec="mjpeg", pixel_format="yuvj420p"),
    "vp9.webm": plain(
        "vp9.webm",
        codec="libvpx-vp9",
        codec_options={"g": "30", "deadline": "realtime", "cpu-used": "8"},
    ),
    "variable.mp4": plain("variable.mp4", milliseconds=VARIABLE, **x264()),
    "repeated.flv": plain("repeated.flv", milliseconds=REPEATED, **x264(bframes=0)),
    "twice.ts": twice,
    "damaged.mp4": damaged("damaged.mp4", **FAST_START, **x264()),
    "damaged.ts": damaged("damaged.ts", **x264()),
    "damaged.avi": damaged("damaged.avi", codec="mpeg4"),
    "cut.mp4": cut("cut.mp4", **FAST_START, **x264()),
    "cut.mkv": cut("cut.mkv", **x264()),
}
# In a damaged AVI file libav counts the lost frames only after a seek. Where the clock restarts, a
# time comes twice.
NO_WINDOWS = {"damaged.avi", "twice.ts"}
OPTIONS = [{}, {"skip_still": True}, {"fps": 6.0}, {"fps": 6.0, "skip_still": True}]


class Archive:
    """The files, made when they are asked for, and what one pass over them gives."""

    def __init__(self, folder: Path) -> None:
        self.info = cache(lambda name: look(MAKERS[name](folder)))
        self.one_pass = cache(lambda name, number: self.read(name, number, keep_states=True))

    def read(self, name: str, number: int, **given: Any) -> tuple[list[Frame], FrameStream]:
        return read(self.info(name), **OPTIONS[number], **given)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("archive"))


def read(info: VideoInfo, threads: int = 1, **given: Any) -> tuple[list[Frame], FrameStream]:
    with FrameStream(info, 96, 160, queue_size=4, threads=threads, **given) as stream:
        return list(stream), stream


def content(frames: list[Frame], first: int = 0) -> list[tuple]:
    """All of the frames that has to be equal, their indices counted from `first`."""
    return [
        (f.index - first, f.time_s, f.still, f.image.tobytes(), f.patches.tobytes()) for f in frames
    ]


def packed(state: DecodeState) -> DecodeState:
    """A state after its way through a file."""
    arrays, values = state.pack()
    copies = {name: array.copy() for name, array in arrays.items()}
    return DecodeState.unpack(copies, json.loads(json.dumps(values)))


def assert_same_state(a: DecodeState, b: DecodeState) -> None:
    assert (a.place.pts, a.place.progress) == (b.place.pts, b.place.progress)
    assert (a.still is None) == (b.still is None)
    if a.still is not None and b.still is not None:
        assert np.array_equal(a.still.reference, b.still.reference)
        assert np.array_equal(a.still.noise, b.still.noise)
        assert (a.still.second, a.still.changed_s) == (b.still.second, b.still.changed_s)


many = settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data(), number=st.integers(0, len(OPTIONS) - 1))
@many
def test_taken_up_anywhere_as_in_one_pass(archive: Archive, name: str, number: int, data) -> None:
    frames, whole = archive.one_pass(name, number)
    cut = data.draw(st.integers(0, len(frames) - 1))
    again = data.draw(st.integers(cut, len(frames) - 1))
    rest, stream = archive.read(name, number, start=packed(frames[cut].state), keep_states=True)
    assert content(rest) == content(frames[cut + 1 :])
    for one, other in zip(rest, frames[cut + 1 :], strict=True):
        assert_same_state(one.state, other.state)
    end = (whole.error, whole.decoded, whole.damaged)
    assert (stream.error, stream.decoded, stream.damaged) == end
    if again > cut:  # and once more, from a state of a stream that was taken up itself
        state = packed(rest[again - cut - 1].state)
        last, stream = archive.read(name, number, start=state)
        assert content(last) == content(frames[again + 1 :])
        assert (stream.error, stream.decoded, stream.damaged) == end


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in NO_WINDOWS])
@given(data=st.data(), fps=st.sampled_from([None, 6.0]))
@many
def test_windows_by_time_are_those_of_one_pass(archive: Archive, name: str, fps, data) -> None:
    number = 0 if fps is None else 2
    frames, whole = archive.one_pass(name, number)
    end = frames[-1].time_s
    border = st.sampled_from([frame.time_s for frame in frames]) | st.floats(0, end)
    start_s = data.draw(border)
    end_s = data.draw(st.none() | border.filter(lambda time_s: time_s > start_s))
    wanted = [f for f in frames if start_s <= f.time_s < (end + 1 if end_s is None else end_s)]
    try:
        found, stream = archive.read(name, number, start=start_s, end_s=end_s)
    except NothingThere:
        assert not wanted
        return
    # Indices count from the first frame, also if sampling does not take it.
    first = wanted[0].index - found[0].index
    assert content(found) == content(wanted, first)
    assert found[0].index == 0 or fps is not None
    assert stream.error == (whole.error if end_s is None else None)


@pytest.mark.parametrize("name", ["b.mp4", "open.mp4", "b.ts", "b.mkv", "vp9.webm"])
def test_several_threads_change_nothing(archive: Archive, name: str) -> None:
    frames, _ = archive.one_pass(name, 2)
    for cut in (0, len(frames) // 2, len(frames) - 2):
        rest, _ = archive.read(name, 2, start=frames[cut].state, threads=3)
        assert content(rest) == content(frames[cut + 1 :])
    windows = [archive.read(name, 2, start=s, end_s=s + 1.0, threads=3)[0] for s in range(4)]
    times = [frame.time_s for window in windows for frame in window]
    assert times == [frame.time_s for frame in frames if frame.time_s < 4]


@pytest.mark.parametrize(
    ("name", "seeks"),
    [
        ("b.mp4", True),
        ("open.mp4", True),
        ("b.mkv", True),
        ("b.ts", True),
        ("twice.ts", True),
        ("mpeg4.avi", True),
        ("repeated.flv", True),
        ("raw.h264", False),
        ("one_key.mkv", False),
    ],
)
def test_only_what_is_near_the_place_is_decoded_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, name: str, seeks: bool
) -> None:
    frames, _ = archive.one_pass(name, 0)
    sizes: list[int] = []
    decode = Decoder._decode
    monkeypatch.setattr(
        Decoder, "_decode", lambda self, packet: sizes.append(packet.size) or decode(self, packet)
    )
    cut = FRAMES - 10
    archive.read(name, 0, start=packed(frames[cut].state))
    assert (len(sizes) < 10 + 64 + 12 + 5) == seeks


def test_a_window_of_a_window(archive: Archive) -> None:
    """A state counts frames as its stream does, which began by time."""
    window, _ = archive.read("b.mkv", 0, start=2.5, end_s=4.0, keep_states=True)
    assert [frame.index for frame in window] == list(range(len(window)))
    for cut in (0, 20):
        rest, _ = archive.read("b.mkv", 0, start=packed(window[cut].state), end_s=4.0)
        assert content(rest) == content(window[cut + 1 :])
        far = window[cut].state.place._replace(anchor=None)  # from the start of the file
        rest, _ = archive.read("b.mkv", 0, start=DecodeState(far), end_s=4.0)
        assert content(rest) == content(window[cut + 1 :])


def test_keeping_states_changes_nothing(archive: Archive) -> None:
    for number in range(len(OPTIONS)):
        kept, _ = archive.one_pass("b.mp4", number)
        frames, _ = archive.read("b.mp4", number)
        assert content(frames) == content(kept)
        assert all(frame.state is None for frame in frames)


def same_size(folder: Path, shift: int) -> VideoInfo:
    path = folder / "v.avi"
    picture = videos.picture
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "picture", lambda n, w, h: picture(n + shift, w, h))
        videos.write_video(path, 40, codec="mpeg4")
    path.write_bytes(path.read_bytes().ljust(100_000, b"\0"))
    return look(path)


def test_another_video_of_the_same_size_has_no_such_place(tmp_path: Path) -> None:
    frames, _ = read(same_size(tmp_path, 0), keep_states=True)
    info = same_size(tmp_path, 5)
    with pytest.raises(PlaceLost, match=r"v\.avi.*not found.*from its start"):
        read(info, start=frames[30].state)
    assert len(read(same_size(tmp_path, 0), start=frames[30].state)[0]) == 9


def test_states_of_other_versions_and_damaged_ones_are_refused(archive: Archive) -> None:
    state = archive.one_pass("b.mp4", 1)[0][5].state
    arrays, values = state.pack()
    with pytest.raises(PlaceLost, match=r"format 99.*from its start"):
        DecodeState.unpack(arrays, values | {"format": 99})
    with pytest.raises(PlaceLost, match=r"damaged.*still\.noise"):
        DecodeState.unpack({k: v for k, v in arrays.items() if k != "still.noise"}, values)
    with pytest.raises(PlaceLost, match="damaged"):
        DecodeState.unpack(arrays, values | {"place": {"pts": 3}})


def test_a_file_that_has_changed_since_its_header_was_read(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "v.ts", 20)
    info = look(path)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(FileChanged, match=r"v\.ts has changed.*run again") as raised:
        read(info)
    assert isinstance(raised.value, StorageError)  # so the next run tries again


def test_where_nothing_is(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(NothingThere, match=r"between 50 s and the end: the video ends at 4\.80 s"):
        archive.read("b.mp4", 0, start=50.0)
    gap = [40 * n + 60_000 * (n >= 20) for n in range(40)]
    info = look(videos.write_video(tmp_path / "gap.mkv", 40, milliseconds=gap, **x264()))
    with pytest.raises(NothingThere, match="between 10 s and 20 s: there is a gap"):
        read(info, start=10.0, end_s=20.0)
    frames, _ = read(info, start=10.0, end_s=61.0)
    assert [round(frame.time_s, 2) for frame in frames] == [60.8, 60.84, 60.88, 60.92, 60.96]


def test_damage_alone_in_a_window_is_not_damage_of_the_video(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "v.mp4", FRAMES, **FAST_START, **x264())
    info = look(path)
    data = path.read_bytes()
    half = (data.index(b"mdat") + len(data)) // 2
    path.write_bytes(data[:half] + bytes(len(data) - half))
    assert 20 < len(read(info)[0]) < 100
    with pytest.raises(NothingThere):
        read(info, start=4.5)
    path.write_bytes(bytes(len(data)))
    with pytest.raises(DecodeError, match="not a video"):
        read(info, start=4.5)


def test_key_frames_tell_whether_two_windows_meet(archive: Archive) -> None:
    """In a recording whose clock restarts, a time comes twice; the keys say which one was read."""
    first, second = (archive.read("b.mkv", 0, start=s, end_s=s + 1.5)[1] for s in (2.5, 3.5))
    assert second.entered in first.keys and second.entered is not None
    assert not first.clock_restarted
    _, whole = archive.read("twice.ts", 0)
    assert whole.clock_restarted
    starts = {key.pts for key in whole.keys}
    assert len(starts) == len(whole.keys) / 2
    assert len({key.position for key in whole.keys}) == len(whole.keys)


def test_a_fingerprint_sees_every_block_and_the_order(tmp_path: Path) -> None:
    info = look(videos.write_video(tmp_path / "v.mp4", 3, 320, 192))
    pictures = [picture for _, _, picture in Decoder(info).frames()]
    values = [fingerprint(picture, 0) for picture in pictures]
    assert len(set(values)) == 3
    assert fingerprint(pictures[0], values[1]) != fingerprint(pictures[1], values[0])
    base = pictures[0].to_ndarray(format="gray")
    whole = fingerprint(pictures[0].from_ndarray(base, format="gray"), 0)
    for y in range(0, 192, 16):
        for x in range(0, 320, 16):
            changed = base.copy()
            changed[y : y + 16, x : x + 16] ^= 1
            assert fingerprint(pictures[0].from_ndarray(changed, format="gray"), 0) != whole


@pytest.mark.parametrize(
    ("layout", "samples"),
    [
        ("gray", [100]),
        ("yuv420p", [100, 50, 50]),
        ("yuv420p10le", [200, 100, 100]),
        ("nv12", [100, 100]),
        ("rgb24", [300]),
    ],
)
def test_a_fingerprint_leaves_out_what_lies_between_rows(layout: str, samples: list[int]) -> None:
    """Of each plane, `samples` is the number of bytes in a row that belong to the picture."""

    def made(inside: int, outside: int) -> int:
        picture = av.VideoFrame(100, 50, layout)
        for plane, size in zip(picture.planes, samples, strict=True):
            assert plane.line_size > size
            rows = np.full((plane.height, plane.line_size), outside, np.uint8)
            rows[:, :size] = 90
            rows[:, size - 1] = inside
            plane.update(rows.tobytes())
        return fingerprint(picture, 0)

    assert made(90, 0) == made(90, 255) != made(91, 255)
