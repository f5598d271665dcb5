"""What `make` hands to the jobs where data is given, and what the jobs say where it is not."""

import shutil
import subprocess

import pytest

from jobs.bench import BenchConfig
from jobs.cli import load_config, parse_config
from jobs.eval import EvalConfig
from jobs.measure_settings import MeasureConfig
from jobs.pack import PackConfig
from tests import ROOT, environment_for_make

CONFIGS = {"bench": BenchConfig, "eval": EvalConfig, "measure": MeasureConfig, "pack": PackConfig}


def arguments(target, *variables, **environment):
    """The arguments of the job of a target, which is printed instead of run."""
    if shutil.which("make") is None:
        pytest.skip("make is not there")
    said = subprocess.run(
        ["make", "-s", "-o", ".venv/.stamp", target, "RUN=printf '%s\\n'", *variables],
        cwd=ROOT,
        env=environment_for_make() | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    job, *rest = said.stdout.splitlines()
    assert job == f"jobs.{target}"
    return rest


def config_of(target, *variables, **environment):
    return parse_config(CONFIGS[target], arguments(target, *variables, **environment))


@pytest.mark.parametrize("folder", ["/my/data", "/my data/it's, [here]"])
def test_every_job_finds_its_part_of_the_data(folder):
    data = f"DATA={folder}"
    detectors = (
        f"yolox@{folder}/weights/yolox_nano_416.onnx",
        f"retail@{folder}/weights/person-detection-retail-0013.xml",
    )
    bench = config_of("eval", data)
    assert (bench.data, bench.detectors) == (f"{folder}/sequences/val", detectors)
    assert "bytetrack+retail" in bench.trackers and bench.apart
    measure = config_of("measure", data, "ARGS=what=detection")
    assert (measure.data, measure.detectors) == (f"{folder}/sequences/val", detectors)
    assert measure.stills == f"{folder}/images/annotations.json"
    pack = config_of("pack", data)
    assert pack.sequences == (f"{folder}/sequences/train",)
    assert pack.stills == (f"{folder}/images/annotations.json",)
    speed = config_of("bench", data)
    assert speed.video == speed.still == f"{folder}/sequences/val/TUD-Stadtmitte/video.mp4"
    assert speed.detector == f"{folder}/weights/yolox_nano_416.onnx"
    assert config_of("bench", data, "VIDEO=/my/video.mp4").video == "/my/video.mp4"


def test_keys_win_over_the_data_and_the_environment_can_name_it():
    given = "ARGS=data=/other trackers=[student]"
    bench = config_of("eval", given, VSDMOT_DATA="/my/data")
    assert (bench.data, bench.trackers) == ("/other", ("student",))
    assert bench.detectors[0] == "yolox@/my/data/weights/yolox_nano_416.onnx"


def test_without_data_the_benchmark_draws_sequences():
    bench = config_of("eval")
    assert bench.data is None and bench.detectors == ()


@pytest.mark.parametrize(
    ("target", "problem"), [("measure", "is missing; give"), ("pack", "nothing to pack; give")]
)
def test_without_data_the_other_jobs_say_how_to_give_it(target, problem, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as leaving:
        load_config(CONFIGS[target], arguments(target))
    assert leaving.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert problem in said and f"make {target} DATA=FOLDER" in said


def test_measures_of_sequences_need_no_more_than_sequences():
    measure = config_of("measure", "ARGS=what=semantics data=/my/sequences")
    assert (measure.data, measure.stills, measure.detectors) == ("/my/sequences", "", ())
