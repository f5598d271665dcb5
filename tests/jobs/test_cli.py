"""Command lines: what is allowed, and what is said when something is not."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pytest
import yaml

from jobs.bench import BenchConfig
from jobs.cli import ConfigError, load_config, parse_config, print_config
from jobs.distill_rate import RateConfig
from jobs.eval import EvalConfig
from jobs.export import ExportConfig
from jobs.loader_rate import LoaderRateConfig
from jobs.measure_settings import MeasureConfig
from jobs.pack import PackConfig
from jobs.render import RenderConfig
from jobs.settings import settings_of, shown
from model.settings import Range, Share, flat, flat_settings
from model.shipped import here_or_shipped, shipped
from pipeline.kit.kit_job import KitJob
from pipeline.runtime.settings import Pool
from pipeline.storage.secrets import mask_secrets
from pipeline.tracking.config import TrackConfig
from pipeline.training.distill_job import DistillJob
from pipeline.training.train_job import TrainJob


@dataclass(frozen=True, slots=True)
class Engine:
    """What it runs on.

    Attributes:
        size: how large.
        share: how much.
    """

    size: Literal["nano", "small"] = "nano"
    share: Share | None = None


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """Settings of a demonstration.

    Attributes:
        input: where from.
        steps: how many.
        rate: how fast.
        names: which.
        engine: what it runs on.
    """

    job: ClassVar[str] = "demo"
    about: ClassVar[str] = "A demonstration."

    input: str
    steps: Annotated[int, Range(1)] = 3
    rate: float = 0.5
    names: tuple[str, ...] = ()
    engine: Engine = Engine(size="small")


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        load_config(DemoConfig, arguments)
    assert leaving.value.code == 2
    return capsys.readouterr().err


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "demo.yaml"
    file.write_text("input: /a\nsteps: 7\nengine: {share: 0.5}\n")
    config = parse_config(DemoConfig, ["--config", str(file), "rate=4e-1", "steps=8"])
    assert config == DemoConfig("/a", 8, 0.4, (), Engine("small", 0.5))
    assert flat_settings(config) == {
        "input": "/a", "steps": 8, "rate": 0.4, "names": [], "engine.size": "small",
        "engine.share": 0.5,
    }  # fmt: skip


def test_text_stays_text_and_null_is_nothing():
    config = parse_config(DemoConfig, ["input=007", "engine.share=null", "names=[a, b]"])
    assert (config.input, config.engine.share, config.names) == ("007", None, ("a", "b"))
    assert parse_config(DemoConfig, ["input=/a=b c"]).input == "/a=b c"


def test_unknown_key_names_the_nearest(capsys):
    error = error_of(capsys, "input=/a", "engine.siz=nano")
    assert "engine.siz" in error
    assert "did you mean engine.size?" in error
    assert "did you mean engine.share?" in error_of(capsys, "input=/a", "shar=1")


def test_unknown_key_in_the_file_names_the_file(capsys, tmp_path):
    file = tmp_path / "demo.yaml"
    file.write_text("input: /a\nengine: {sise: nano}\n")
    error = error_of(capsys, "--config", str(file))
    assert "engine.sise" in error
    assert "demo.yaml" in error


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("engine.size=nanoo", ["engine.size", "nanoo", "nano, small", "did you mean nano?"]),
        ("engine.share=2", ["engine.share", "2", "a number, 0 to 1, or null"]),
        ("steps=few", ["steps", "few", "a whole number, 1 or more"]),
        ("engine=nano", ["engine is a group", "engine.size"]),
        ("--verbose", ["--verbose", "key=value"]),
        ("--config=/nowhere.yaml", ["/nowhere.yaml", "no such file"]),
    ],
)
def test_bad_value_says_what_is_allowed(capsys, argument, parts):
    error = error_of(capsys, "input=/a", argument)
    for part in parts:
        assert part in error


def test_missing_key(capsys):
    assert "input is missing" in error_of(capsys)


def test_help_lists_every_key(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as leaving:
        load_config(TrackConfig, ["--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    for key in ("input", "tracker.birth_threshold", "cluster.workers", "mlflow.uri"):
        assert key in text


@pytest.mark.parametrize(
    "config_class",
    [
        BenchConfig,
        EvalConfig,
        DistillJob,
        ExportConfig,
        KitJob,
        LoaderRateConfig,
        MeasureConfig,
        PackConfig,
        RateConfig,
        RenderConfig,
        TrainJob,
    ],
)
def test_help_says_defaults_that_can_be_typed(config_class, capsys):
    with pytest.raises(SystemExit):
        load_config(config_class, ["--help"])
    text = capsys.readouterr().out
    assert "default" in text and "Undefined" not in text


def test_without_a_file_the_defaults_are_those_of_the_class():
    config = parse_config(TrackConfig, ["input=a", "output=b"])
    weights = here_or_shipped(TrackConfig("a", "b").weights)
    assert config == TrackConfig(input="a", output="b", weights=weights)


@pytest.mark.parametrize("config_class", [EvalConfig, KitJob, MeasureConfig, PackConfig])
def test_a_shipped_file_holds_only_what_departs_from_the_class(config_class):
    given = flat(yaml.safe_load(shipped(f"configs/{config_class.job}.yaml").read_text()))
    assert given
    for key, setting in settings_of(config_class):
        assert key not in given or shown(given.pop(key)) != shown(setting.default), key
    assert not given


def test_a_job_that_cannot_use_a_range_of_workers_says_so():
    with pytest.raises(ConfigError, match=r"cluster\.workers: \[1, 2\] was given, this job takes"):
        parse_config(EvalConfig, ["data=a", "cluster.workers=[1,2]"])
    tracked = parse_config(TrackConfig, ["input=a", "output=b", "cluster.workers=[1,2]"])
    assert tracked.cluster.pool(8) == Pool(1, 2, 2)
    with pytest.raises(ConfigError, match=r"cluster\.workers: null was given, this job takes"):
        parse_config(TrainJob, ["cluster.workers=null"])
    assert parse_config(TrainJob, ["cluster.workers=[1,2]"]).cluster.least_and_most() == (1, 2)


def test_secrets_are_not_shown(capsys):
    from rich.console import Console

    print_config(Console(), parse_config(DemoConfig, ["input=ftp://me:pass@host/a"]))
    assert "pass" not in capsys.readouterr().out
    assert mask_secrets("s3://k:v@b/x?token=abc&a=1") == "s3://k:***@b/x?token=***&a=1"
    assert mask_secrets("s3://bucket/a:b@c.mp4") == "s3://bucket/a:b@c.mp4"
