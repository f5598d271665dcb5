"""Some frames a second: the same ones whether or not frames between them need decoding."""

import math
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.storage.files import list_videos
from pipeline.video.decode import FrameStream
from pipeline.video.decoder import Decoder
from pipeline.video.probe import probe
from pipeline.video.sampling import PacketFilter, TimeGrid
from tests import videos


@given(
    st.floats(0.05, 120),
    st.lists(st.integers(0, 400), min_size=1, max_size=80),
    st.sampled_from([1 / 90_000, 1 / 1000, 1 / 25]),
)
def test_the_first_frame_of_each_interval_is_taken(fps, gaps, tick_s):
    times = np.cumsum(gaps) * tick_s
    grid = TimeGrid(fps, tick_s)
    cells = [grid.cell(t) for t in times]
    taken = [t for t in times if grid.takes(t)]
    assert [grid.cell(t) for t in taken] == sorted(set(cells))
    for time, cell in zip(times, cells, strict=True):
        early = min(tick_s, 0.25 / fps)
        assert cell / fps - early - 1e-9 <= time < (cell + 1) / fps + 1e-9
        first = next(t for t in taken if grid.cell(t) == cell)
        assert first <= time


@given(
    st.sampled_from([1.0, 7.0, 24000 / 1001, 25.0, 30000 / 1001, 60.0]),
    st.just(1.0) | st.floats(1, 4),
    st.sampled_from([None, 1 / 1000, 1 / 90_000]),
    st.sampled_from([math.floor, round, math.ceil]),
)
def test_a_rate_of_the_video_or_above_takes_every_frame(rate, times, tick_s, rounded):
    exact = [n / rate for n in range(300)]
    shown = exact if tick_s is None else [rounded(t / tick_s) * tick_s for t in exact]
    # Rounded times may come closer than the interval of a rate that is a little higher.
    assume(times == 1 or np.diff(shown).min() >= 1 / (rate * times))
    grid = TimeGrid(rate * times, tick_s or 1e-9)
    assert all(grid.takes(t) for t in shown)


GAPS = [20, 15, 90, 35, 40, 10, 130, 40, 33, 34]
VARIABLE = np.cumsum([0, *GAPS * 4]).tolist()


def x264(**options):
    text = ":".join(f"{name.replace('_', '-')}={value}" for name, value in options.items())
    return {"codec_options": {"crf": "12", "preset": "fast", "x264-params": text}}


CODECS = {
    "b.mp4": x264(bframes=3, b_adapt=0),
    "pyramid.mkv": x264(bframes=5, b_adapt=0, b_pyramid="normal"),
    "open.ts": x264(bframes=3, open_gop=1, keyint=20),
    "variable.mkv": {**x264(bframes=3), "milliseconds": VARIABLE},
    "mpeg4.mp4": {"codec": "mpeg4", "codec_options": {"qmin": "2", "qmax": "3", "bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.ts": {"codec": "mpeg2video", "codec_options": {"qmin": "2", "qmax": "3", "bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "mjpeg.mkv": {"codec": "mjpeg", "pixel_format": "yuvj420p", "milliseconds": VARIABLE},
    "prores.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le"},
}
DECODED_WHOLE = {
    "interlaced.mp4": x264(interlaced=1, bframes=3),
    "raw.h264": x264(bframes=3),
    "lossless.mkv": {"codec": "ffv1"},
}


def sampled(path, fps, threads=1):
    """Index, time and picture of the sampled frames, and the decoder."""
    info = probe(next(list_videos(str(path))))
    decoder = Decoder(info, threads=threads, fps=fps)
    return [(i, t, frame.to_ndarray(format="rgb24")) for i, t, frame in decoder.frames()], decoder


@pytest.mark.parametrize("fps", [3.0, 10.0])
@pytest.mark.parametrize("name", [*CODECS, *DECODED_WHOLE])
def test_the_same_frames_whether_or_not_others_are_decoded(tmp_path, monkeypatch, name, fps):
    given = CODECS.get(name) or DECODED_WHOLE[name]
    path = videos.write_video(tmp_path / name, frames=41, **given)
    whole, _ = sampled(path, None)
    with monkeypatch.context() as patch:
        patch.setattr(PacketFilter, "_is_unneeded", lambda self, packet: False)
        expected, all_decoded = sampled(path, fps)
    real, left_out = PacketFilter._is_unneeded, []

    def noted(self, packet):
        unneeded = real(self, packet)
        left_out.append(unneeded)
        return unneeded

    monkeypatch.setattr(PacketFilter, "_is_unneeded", noted)
    for threads in (1, 4):
        left_out.clear()
        found, decoder = sampled(path, fps, threads)
        assert any(left_out) == (name in CODECS)
        assert [f[:2] for f in found] == [f[:2] for f in expected]
        assert (decoder.error, decoder.decoded, decoder.damaged) == (None, 41, 0)
        assert all_decoded.decoded == len(whole) == 41
        for index, time_s, picture in found:
            assert whole[index][1] == time_s
            assert np.array_equal(whole[index][2], picture)
            assert videos.read_number(picture) == index


def test_a_codec_of_whole_pictures_decodes_only_what_is_taken(tmp_path, monkeypatch):
    path = videos.write_video(tmp_path / "v.mkv", 50, codec="mjpeg", pixel_format="yuvj420p")
    given = []
    real = Decoder._decode
    monkeypatch.setattr(
        Decoder, "_decode", lambda self, packet: given.append(packet.size) or real(self, packet)
    )
    found, _ = sampled(path, 5.0)
    assert [index for index, _, _ in found] == list(range(0, 50, 5))
    # Before the first frame is shown nothing is left out.
    assert len([size for size in given if size]) <= len(found) + 4


def test_recordings_that_restart_their_clock(tmp_path: Path):
    first = videos.write_video(tmp_path / "a.ts", frames=75, **x264(bframes=3, b_adapt=0))
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() * 2)
    whole, _ = sampled(both, None)
    found, decoder = sampled(both, 5.0)
    assert decoder.decoded == len(whole)
    assert [(i, t) for i, t, _ in found] == [
        (i, t) for (i, t, _), taken in zip(whole, taken_of(whole, 5.0), strict=True) if taken
    ]


def taken_of(frames, fps):
    grid = TimeGrid(fps, 1 / 90_000)
    return [grid.takes(time_s) for _, time_s, _ in frames]


def test_a_file_cut_short_says_so_and_an_interval_beyond_its_end_does_not(tmp_path):
    options = {"container_options": {"movflags": "faststart"}, **x264(bframes=3)}
    whole = videos.write_video(tmp_path / "a.mp4", frames=100, **options)
    assert sampled(whole, 0.1)[1].error is None
    found, decoder = sampled(videos.cut(whole, 0.6), 5.0)
    assert found and "ends early" in decoder.error


def test_stream_gives_the_sampled_frames(tmp_path):
    path = videos.write_video(tmp_path / "v.mp4", frames=50)
    info = probe(next(list_videos(str(path))))
    with FrameStream(info, 96, 160, fps=10.0) as stream:
        frames = list(stream)
    assert [f.index for f in frames] == [0, 3, 5, 8] + [n + d for n in range(10, 50, 10)
                                                       for d in (0, 3, 5, 8)]  # fmt: skip
    assert stream.decoded == 50
    assert [videos.read_number(f.image) for f in frames] == [f.index for f in frames]


def test_intra_only_is_known_of_the_decoder():
    """The filter drops packets of these codecs; of the others each may be needed by later ones."""
    known = {name: av.codec.Codec(name, "r").intra_only for name in ("mjpeg", "prores", "h264")}
    assert known == {"mjpeg": True, "prores": True, "h264": False}
