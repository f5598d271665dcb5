"""The measures: numbers by hand on a stand-in student, and the command on real sequences."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from jobs.measure import main
from model.teach.config import DistillationConfig, TeacherConfig
from model.teach.distillation import Distiller, distiller_bytes, distiller_path
from model.teach.teacher import TeacherInfo
from model.track.checkpoint import CheckpointMetadata, save_tracker
from pipeline.benchmark.measure import OVERALL, Run, cells, frame_runs, quality_rows, semantic_rows
from pipeline.storage.files import list_videos
from pipeline.teachers.load import load_teacher
from pipeline.video.probe import probe
from tests.tiny import TINY, tiny_tracker
from tests.videos import read_number, write_video

KINDS = ("defocus", "low_light")


@pytest.fixture(scope="module")
def runs():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (24, 36, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    return [Run(name, 0, np.stack([picture, picture[:, ::-1]])) for name in ("one", "two")]


def by_sharpness(images, valid, patches):
    """A student whose quality is the mean step between neighbours of the patches."""
    step = patches.float().diff(dim=-1).abs().mean((1, 2, 3))
    return SimpleNamespace(quality=step / 255)


def test_runs_are_consecutive_frames_spread_over_the_video(tmp_path):
    info = probe(next(list_videos(str(write_video(tmp_path / "a.mp4", frames=60)))))
    found = frame_runs("a", info, 12)
    assert [r.start for r in found] == [0, 28, 56]
    for run in found:
        shown = [read_number(p) for p in run.pixels]
        assert shown == [run.start + i for i in range(4)]
    assert [len(r.pixels) for r in frame_runs("a", info, 2)] == [2]


def test_cells_begin_clean_and_know_the_true_severity(runs):
    found = list(cells(runs[0], ("swing",)))
    assert [(kind, severity) for kind, severity, _, _ in found] == [
        ("clean", 0), *(("swing", s) for s in range(1, 6))
    ]  # fmt: skip
    assert np.array_equal(found[0][2], runs[0].pixels) and not found[0][3].any()
    # A swing's frames are between clean and the severity asked for.
    assert all((truth >= 0).all() and (truth <= s).all() for _, s, _, truth in found)


def test_quality_that_follows_severity_correlates_and_one_that_does_not_does_not(runs):
    config = replace(TINY)
    true = SimpleNamespace(perceive=by_sharpness, config=config)
    rows = {(r["sequence"], r["kind"]): r for r in quality_rows(true, runs, "cpu", KINDS)}
    assert set(rows) == {(s, k) for s in ("one", "two", OVERALL) for k in (*KINDS, OVERALL)}
    assert rows["one", "defocus"]["correlation"] > 0.95
    assert rows["one", "defocus"]["frames"] == 2 * 6
    assert rows[OVERALL, OVERALL]["frames"] == 2 * 2 * 11  # clean frames are counted once

    def upside_down(*inputs):
        return SimpleNamespace(quality=1 - by_sharpness(*inputs).quality)

    false = SimpleNamespace(perceive=upside_down, config=config)
    assert quality_rows(false, runs, "cpu", ("defocus",))[0]["correlation"] < -0.95

    def constant(images, valid, patches):
        return SimpleNamespace(quality=torch.full((len(images),), 0.5))

    blind = SimpleNamespace(perceive=constant, config=config)
    assert quality_rows(blind, runs, "cpu", ("defocus",))[0]["correlation"] is None


def test_the_teacher_agrees_with_itself_on_clean_frames_and_less_on_worse_ones(runs):
    teacher = load_teacher(TeacherConfig("imagenet-lite2", "package"))
    distiller = Distiller(DistillationConfig(), TINY.semantic_dim, teacher.info)
    rows = semantic_rows(tiny_tracker(), distiller, teacher, runs, "cpu", ("defocus",))
    found = {(r["sequence"], r["kind"], r["severity"]): r for r in rows}
    clean, worst = found["one", "clean", 0], found["one", "defocus", 5]
    assert clean["teacher_dense"] == pytest.approx(1) == clean["teacher_pooled"]
    assert worst["teacher_dense"] < 0.9 and clean["frames"] == 2
    for space in ("dense", "pooled"):
        both = [found[s, "defocus", 5][f"student_{space}"] for s in ("one", "two")]
        assert found[OVERALL, "defocus", 5][f"student_{space}"] == pytest.approx(np.mean(both))
        assert all(-1 <= value <= 1 for value in both)


@pytest.fixture
def places(tmp_path):
    """A sequence and a student with its projectors."""
    folder = tmp_path / "data" / "walk"
    (folder / "gt").mkdir(parents=True)
    write_video(folder / "video.mp4", frames=10)
    (folder / "gt" / "gt.txt").write_text("1,1,10,10,20,20,1,1,1\n")
    (folder / "seqinfo.ini").write_text(
        "[Sequence]\nname=walk\nframeRate=25\nseqLength=10\nimWidth=160\nimHeight=96\n"
    )
    weights = tmp_path / "tiny.safetensors"
    save_tracker(weights, tiny_tracker(), CheckpointMetadata(TINY))
    info = TeacherInfo("imagenet-lite2", (120, 352), 1280)
    distiller = Distiller(DistillationConfig(), TINY.semantic_dim, info)
    distiller_path(weights).write_bytes(distiller_bytes(distiller))
    return [f"data={tmp_path / 'data'}", f"weights={weights}", f"output={tmp_path / 'out'}"]


@pytest.mark.parametrize("what", ["semantics", "quality"])
def test_the_command_prints_and_writes(places, tmp_path, capsys, what):
    small = ["frames=2", "kinds=[noise,codec]", "apart=[]"]
    assert main([f"what={what}", *places, *small]) == 0
    said = capsys.readouterr().out
    assert "codec" in said and "noise" in said
    rows = pq.read_table(tmp_path / "out" / f"{what}.parquet").to_pylist()
    record = json.loads((tmp_path / "out" / f"{what}.json").read_text())
    assert record["rows"] == rows and len(record["provenance"]["weights_sha256"]) == 64
    expected = {"semantics": 2 * (1 + 2 * 5), "quality": 2 * 3}
    assert len(rows) == expected[what]


def test_what_is_missing_is_said(places, tmp_path, capsys):
    def refused(*more, code=1):
        with pytest.raises(SystemExit) as leaving:
            main(["what=semantics", *places, *more])
        assert leaving.value.code == code
        return " ".join(capsys.readouterr().err.split())

    assert "no such folder" in refused(f"data={tmp_path / 'none'}")
    assert 'kinds: ["rain"] was given, allowed is' in refused("kinds=[rain]", code=2)
    assert "the teacher was imagenet-lite2, not ViT-B-32/random" in refused(
        "teacher=ViT-B-32", "pretrained=random"
    )
    (tmp_path / "tiny.distiller.safetensors").unlink()
    assert "tiny.distiller.safetensors: no such file" in refused()
