"""Probing an archive and planning the work."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.archive.archive import find_videos, read_archive
from pipeline.archive.plan import Unreadable, expected_frames, plan, survey
from pipeline.storage import files as storage
from pipeline.storage.files import ArchiveFile, StorageError, list_stems
from pipeline.video.info import VideoInfo
from pipeline.video.probe import ProbeError
from tests.videos import write_empty, write_text, write_video

INFO = VideoInfo(
    video_id="a",
    uri="/a.mp4",
    relative_path="a.mp4",
    size_bytes=1,
    container="mp4",
    codec="h264",
    pixel_format="yuv420p",
    width=64,
    height=48,
    rotation=0,
    fps=25.0,
    time_base="1/25",
    variable_rate=False,
    frames_expected=10,
    duration_s=0.4,
)


def info(name, frames, **changes):
    return replace(INFO, video_id=name, frames_expected=frames, **changes)


def test_longest_first_unknown_before_all_done_dropped():
    infos = [info("a", 5), info("b", 50), info("c", None, duration_s=None), info("d", 500)]
    infos.append(info("e", None, duration_s=4.0))
    assert [s.video_id for s in plan(infos, {"d"})] == ["c", "e", "b", "a"]
    assert expected_frames(infos[-1]) == 100


LENGTHS = st.one_of(st.none(), st.integers(0, 10**7))
NAMES = st.text("abcdef0123456789", min_size=1, max_size=4)
ARCHIVES = st.dictionaries(NAMES, LENGTHS, max_size=30).map(
    lambda found: [info(name, frames, duration_s=None) for name, frames in found.items()]
)


def ids(segments):
    return [segment.video_id for segment in segments]


@given(ARCHIVES, st.sets(NAMES))
def test_each_video_is_planned_once_unless_it_is_done(infos, done):
    planned = ids(plan(infos, done))
    assert len(planned) == len(set(planned))
    assert set(planned) == {i.video_id for i in infos} - done


@given(ARCHIVES)
def test_longest_first_and_what_may_be_longest_before(infos):
    lengths = [expected_frames(segment.info) for segment in plan(infos, set())]
    known = [length for length in lengths if length is not None]
    assert lengths == [None] * (len(lengths) - len(known)) + sorted(known, reverse=True)


@given(ARCHIVES, st.randoms(use_true_random=False))
def test_plan_does_not_depend_on_the_order_of_the_listing(infos, chance):
    shuffled = list(infos)
    chance.shuffle(shuffled)
    assert plan(shuffled, set()) == plan(infos, set())


@given(ARCHIVES, st.data())
def test_run_that_goes_on_keeps_the_order(infos, data):
    """Whatever part is done, the rest comes as it would have come."""
    whole = ids(plan(infos, set()))
    done = data.draw(st.sets(st.sampled_from(whole))) if whole else set()
    assert ids(plan(infos, done)) == [name for name in whole if name not in done]


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["good", "bad", "unread"]), max_size=70),
    st.integers(1, 5),
)
def test_survey_gives_one_value_a_file_in_its_order(kinds, threads):
    """Its etag stands for the content, so no file has to be there."""
    listing = [ArchiveFile(f"/{n}.mp4", f"{n}.mp4", 1, str(n)) for n in range(len(kinds))]
    unread = []

    def probe(file):
        kind = kinds[int(file.etag)]
        if kind == "bad":
            raise ProbeError("no picture track")
        if kind == "unread":
            raise StorageError("connection lost")
        return replace(INFO, video_id=file.relative_path, relative_path=file.relative_path)

    found = list(survey(listing, {}, threads, probe, lambda file, _: unread.append(file)))
    seen = [(item.relative_path, isinstance(item, Unreadable)) for item in found]
    expected = [
        (file.relative_path, kind == "bad")
        for file, kind in zip(listing, kinds, strict=True)
        if kind != "unread"
    ]
    assert seen == expected
    lost = {file.relative_path for file in unread}
    assert lost == {f"{n}.mp4" for n, kind in enumerate(kinds) if kind == "unread"}
    assert len(unread) == len(lost)


def files(tmp_path, count):
    made = []
    for number in range(count):
        path = tmp_path / f"{number:03}.mp4"
        path.write_bytes(b"x" * (number + 1))
        made.append(ArchiveFile(str(path), path.name, number + 1, None))
    return made


def test_survey_keeps_order_and_turns_bad_files_into_values(tmp_path):
    def probe(file):
        if file.relative_path == "001.mp4":
            raise ProbeError("no picture track")
        return replace(INFO, video_id=file.relative_path)

    found = list(survey(files(tmp_path, 50), {}, 2, probe))
    assert isinstance(found[1], Unreadable)
    assert found[1].error == "no picture track"
    assert [f.video_id for f in found[2:]] == [f"{n:03}.mp4" for n in range(2, 50)]


def test_survey_does_not_bury_what_storage_lost(tmp_path):
    def probe(file):
        raise StorageError("connection lost")

    with pytest.raises(StorageError, match="connection lost"):
        list(survey(files(tmp_path, 1), {}, 2, probe))


def test_known_headers_are_not_read_again(tmp_path):
    def probe(file):
        raise AssertionError("probed twice")

    made = files(tmp_path, 2)
    first = list(survey(made, {}, 1, lambda f: _probe_by_id(f)))
    known = {i.video_id: asdict(i) | {"error": None, "uri": "masked"} for i in first}
    again = list(survey(made, known, 1, probe))
    assert again == first


def test_a_new_file_is_read_once_for_its_identity(tmp_path, monkeypatch):
    made = [write_video(tmp_path / f"{n}.mp4", frames=2) for n in range(3)]
    opened = []

    def counted(uri):
        opened.append(uri)
        return open(uri, "rb")

    monkeypatch.setattr(storage, "open_binary", counted)
    found = list(survey(storage.list_videos(str(tmp_path)), {}, 1))
    assert all(isinstance(item, VideoInfo) for item in found)
    assert sorted(opened) == sorted(map(str, made))


def _probe_by_id(file):
    from pipeline.storage.files import content_identity
    from pipeline.storage.identity import video_id

    identifier = video_id(file.relative_path, content_identity(file))
    return replace(INFO, video_id=identifier, uri=file.uri, relative_path=file.relative_path)


def test_archive_leaves_manifest_and_dead_letters(tmp_path):
    archive = tmp_path / "in"
    archive.mkdir()
    write_video(archive / "good.mp4", frames=4)
    write_text(archive / "text.mp4")
    write_empty(archive / "zero.mp4")
    output = str(archive / "out")
    for _ in range(2):
        read = read_archive(
            find_videos(str(archive), output),
            output,
            recorded=set(),
            threads=2,
            advance=lambda: None,
        )
        assert [v.relative_path for v in read.videos] == ["good.mp4"]
        assert list_stems(f"{output}/dead_letters") == {u.video_id for u in read.unreadable}
        assert len(read.ids) == 3
    # Results inside the archive, overlays for one, are no part of it.
    write_video(archive / "out" / "overlay.mp4", frames=2)
    assert len(find_videos(str(archive), output)) == 3


def test_no_video_names_the_folder(tmp_path):
    with pytest.raises(StorageError, match="no video in"):
        find_videos(str(tmp_path), str(tmp_path / "out"))
