"""Hostile input: files that lie, refer to others, ask for too much, or carry odd names."""

import math
import os
import struct

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.track.checkpoint import CheckpointError
from model.track.tracker import Tracker
from pipeline.storage import files as storage
from pipeline.storage.files import list_videos
from pipeline.storage.identity import video_id
from pipeline.storage.schema import TABLES, table_uri
from pipeline.storage.secrets import mask_secrets, secret_values
from pipeline.video.decoder import Decoder
from pipeline.video.errors import DecodeError
from pipeline.video.limits import Limits
from pipeline.video.probe import ProbeError, probe
from tests.faults import invariant
from tests.faults.corpus import CONTAINERS, MUTATIONS, write_corpus
from tests.videos import write_video


def hostile(drivers, command, tmp_path, stopwatch, each, seed):
    folder, output = tmp_path / "corpus", tmp_path / "out"
    folder.mkdir()
    files = write_corpus(folder, each, seed)
    argv = command(output, "decode.window=16", source=folder)
    code, said = drivers.run(argv)  # headers in their own process, as in earnest
    seconds = stopwatch()
    assert code == 3, said[-3000:]
    seen = invariant.read(str(output))
    done = [row["video_id"] for row in seen["videos"]]
    dead = [row["video_id"] for row in seen["dead_letters"]]
    lost = files - len({*done, *dead})
    twice = len(done) + len(dead) - len({*done, *dead})
    for table, key in invariant.KEYS.items():
        keys = [tuple(row[name] for name in key) for row in seen[table]]
        twice += len(keys) - len(set(keys))
    assert {row["video_id"] for row in seen["frames"]} <= set(done)
    assert {row["video_id"] for row in seen["tracks"]} <= set(done)
    for row in seen["tracks"]:
        assert row["w"] > 0 and row["h"] > 0 and math.isfinite(row["x"] + row["y"]), row
    partial = sum(row["status"] == "partial" for row in seen["videos"])
    injected = f"{files} files: {len(done)} tracked, {partial} of them in part, {len(dead)} dead"
    invariant.ROWS.append(("hostile corpus", injected, lost, twice, seconds))
    assert (lost, twice) == (0, 0)
    whole = {row["relative_path"] for row in seen["videos"] if row["status"] == "ok"}
    assert {f"whole.{suffix}" for suffix in CONTAINERS} <= whole
    poison = [row for row in seen["dead_letters"] if row["kind"] != "input"]
    assert not poison, poison[:3]  # bad input is told as bad input, not as an accident
    return files, len(dead)


def test_hostile_files(drivers, command, tmp_path, stopwatch):
    """Each mutation of each container once."""
    hostile(drivers, command, tmp_path, stopwatch, each=len(MUTATIONS), seed=3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hostile_corpus(drivers, command, tmp_path, stopwatch):
    files, dead = hostile(drivers, command, tmp_path, stopwatch, each=34, seed=0)
    assert files >= 200
    assert 20 < dead < files - 20  # it reaches both ends


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hostile_corpus_of_another_seed(drivers, command, tmp_path, stopwatch):
    hostile(drivers, command, tmp_path, stopwatch, each=34, seed=1)


def look(path, limits=None):
    return probe(next(list_videos(str(path))), limits or Limits())


def playlists(secret):
    """What libav can be made to open by a text file, all aimed at one video beside it."""
    name = secret.name
    return {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "relative.ts": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{name}\n#EXT-X-ENDLIST\n",
        "http.mkv": "#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "concat.avi": f"ffconcat version 1.0\nfile {name}\n",
        "dash.mp4": '<?xml version="1.0"?><MPD type="static" profiles="urn:mpeg:dash:profile:'
        f'isoff-on-demand:2011"><BaseURL>{name}</BaseURL></MPD>',
        "sdp.mpg": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "image%03d.mp4": "image sequence\n",
        "ismv.mp4": f'<SmoothStreamingMedia MajorVersion="2"><c>{name}</c></SmoothStreamingMedia>',
        "vobsub.mpg": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n",
    }


def test_what_refers_to_other_files_opens_nothing(tmp_path, monkeypatch):
    secret = write_video(tmp_path / "secret.ts", frames=5)
    opened = []
    real = storage.open_binary
    from pipeline.video import probe as module

    monkeypatch.setattr(module, "open_binary", lambda uri: (opened.append(uri), real(uri))[1])
    for name, text in playlists(secret).items():
        path = tmp_path / name
        path.write_text(text)
        opened.clear()
        with pytest.raises(ProbeError):
            look(path)
        assert set(opened) == {str(path)}, name


def test_data_reference_inside_an_mp4_is_not_followed(tmp_path):
    """A `dref` of type `url ` that names another file is how QuickTime keeps media outside."""
    path = write_video(tmp_path / "a.mp4", frames=6)
    data = path.read_bytes()
    place = data.index(b"url \0\0\0\1")
    path.write_bytes(data[:place] + b"url \0\0\0\0" + data[place + 8 :])
    (tmp_path / "other.mp4").write_bytes(data)
    info = look(path)  # the flag says "elsewhere"; the samples in this very file are read
    assert info.frames_expected == 6


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(max_pixels=160 * 96 - 1), "limits.max_pixels is 15359"),
        (Limits(max_frames=23), "declares 24 frames; limits.max_frames is 23"),
        (Limits(max_fps=24.0), "25 frames a second; limits.max_fps is 24"),
    ],
)
def test_beyond_a_limit_is_refused(tmp_path, limits, said):
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(ProbeError, match=said):
        look(path, limits)
    assert look(path).width == 160


def test_frames_beyond_the_limit_are_cut_off(tmp_path):
    info = look(write_video(tmp_path / "a.h264", container="h264"))  # declares no number
    decoder = Decoder(info, Limits(max_frames=7))
    assert sum(1 for _ in decoder.frames()) == 7
    assert "limits.max_frames is 7" in decoder.error


def test_picture_that_grows_beyond_the_limit_does_not_decode(tmp_path):
    info = look(write_video(tmp_path / "a.mp4"))
    with pytest.raises(DecodeError):
        list(Decoder(info, Limits(max_pixels=1000)).frames())


def test_billion_declared_frames_are_refused(tmp_path):
    path = write_video(tmp_path / "a.avi", codec="mpeg4", frames=5)
    data = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):  # total frames, length of the stream
        struct.pack_into("<I", data, data.index(name) + offset, 1_000_000_000)
    path.write_bytes(data)
    with pytest.raises(ProbeError, match=r"declares 1000000000 frames"):
        look(path)


def test_huge_declared_picture_takes_no_memory(tmp_path):
    import resource

    path = write_video(tmp_path / "a.avi", codec="mpeg4", frames=5)
    data = bytearray(path.read_bytes())
    place = data.index(b"strf") + 8
    struct.pack_into("<ii", data, place + 4, 32000, 32000)
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert look(path, Limits(max_pixels=100_000)).width == 160  # the stream's own word counts
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


@given(st.text(min_size=1), st.text(), st.sampled_from(sorted(TABLES)))
def test_no_name_leads_out_of_the_output(path, identity, table):
    name = video_id(path.encode("utf-8", "replace").decode(), identity)
    uri = table_uri("/out", table, name)
    assert os.path.normpath(uri) == uri
    assert os.path.dirname(uri) == f"/out/{table}"
    assert name.split("-")[0].upper() != name.upper() or len(name) >= 12  # CON, NUL: never bare


@pytest.mark.parametrize("path", ["../../etc/x.mp4", "/etc/x.mp4", "a\0b.mp4", "CON.mp4", "..mp4"])
def test_names_that_try(path):
    name = video_id(path, "1-a")
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(name.rpartition("-")[2]) == 12


def test_a_link_out_of_the_output_is_replaced_not_followed(tmp_path):
    outside = tmp_path / "outside.parquet"
    outside.write_bytes(b"untouched")
    (tmp_path / "out" / "tracks").mkdir(parents=True)
    link = tmp_path / "out" / "tracks" / "v.parquet"
    link.symlink_to(outside)
    storage.write_atomic(str(link), b"rows")
    assert outside.read_bytes() == b"untouched"
    assert link.read_bytes() == b"rows" and not link.is_symlink()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_pickled_weights_are_refused_unread(tmp_path, name):
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        Tracker.load(path, "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://user:hunter2pass@host/mlflow", "hunter2pass"),
        ("s3://b/x?X-Amz-Signature=abcdef0123&a=1", "abcdef0123"),
        ("Authorization: Bearer eyJhbGciOi.J9abc", "eyJhbGciOi.J9abc"),
        ("key AKIAIOSFODNN7EXAMPLE was refused", "AKIAIOSFODNN7EXAMPLE"),
        ("token=ghp_aaaaaaaaaaaaaaaaaaaa", "ghp_aaaaaaaaaaaaaaaaaaaa"),
        ("the value s3cr3t-of-env-123 leaked", "s3cr3t-of-env-123"),
    ],
)
def test_secrets_are_masked(monkeypatch, text, hidden):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-of-env-123")
    secret_values.cache_clear()
    assert hidden not in mask_secrets(text)
    assert mask_secrets("/data/cams/gate 3/token ring.mp4") == "/data/cams/gate 3/token ring.mp4"


def test_secrets_do_not_reach_what_a_run_leaves(drivers, command, tmp_path):
    secret = "mlflow-Passw0rd"
    uri = f"http://me:{secret}@127.0.0.1:9/"
    argv = [*command(tmp_path), "mlflow.enabled=true", f"mlflow.uri={uri}"]
    code, said = drivers.run(
        argv, ("probe_here", ()), API_TOKEN="tok-0123456789", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"
    )
    assert code == 3, said
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in said
    assert pq.read_table(next(tmp_path.glob("videos/*.parquet"))).num_rows == 1
