"""Command lines: what is allowed, and what is said when something is not."""

from typing import Literal

import pytest
from pydantic import Field

from jobs.bench import BenchConfig
from jobs.cli import JobConfig, Settings, flat, load_config, parse_config, print_config
from jobs.distill_rate import RateConfig
from jobs.eval import EvalConfig
from jobs.export import ExportConfig
from jobs.loader_rate import LoaderRateConfig
from jobs.measure_settings import MeasureConfig
from jobs.pack import PackConfig
from jobs.render import RenderConfig
from jobs.track_settings import TrackConfig
from pipeline.storage.schema import mask_secrets


class Engine(Settings):
    size: Literal["nano", "small"] = Field(default="nano", description="how large")
    share: float | None = Field(default=None, ge=0, le=1, description="how much")


class DemoConfig(JobConfig):
    job = "demo"
    about = "A demonstration."

    input: str = Field(description="where from")
    steps: int = Field(default=3, ge=1, description="how many")
    names: list[str] = Field(default=[], description="which")
    engine: Engine = Engine()


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        load_config(DemoConfig, arguments)
    assert leaving.value.code == 2
    return capsys.readouterr().err


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "demo.yaml"
    file.write_text("input: /a\nsteps: 7\nengine: {share: 0.5}\n")
    config = parse_config(DemoConfig, ["--config", str(file), "engine.size=small", "steps=8"])
    assert flat(config) == {
        "input": "/a", "steps": 8, "names": [], "engine.size": "small", "engine.share": 0.5,
    }  # fmt: skip


def test_text_stays_text_and_null_is_nothing():
    config = parse_config(DemoConfig, ["input=007", "engine.share=null", "names=[a, b]"])
    assert (config.input, config.engine.share, config.names) == ("007", None, ["a", "b"])
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
        ExportConfig,
        LoaderRateConfig,
        MeasureConfig,
        PackConfig,
        RateConfig,
        RenderConfig,
    ],
)
def test_help_says_defaults_that_can_be_typed(config_class, capsys):
    with pytest.raises(SystemExit):
        load_config(config_class, ["--help"])
    text = capsys.readouterr().out
    assert "default" in text and "Undefined" not in text


def test_the_shipped_file_is_valid_and_says_the_defaults():
    assert parse_config(TrackConfig, ["input=a", "output=b"]) == TrackConfig(input="a", output="b")


def test_secrets_are_not_shown(capsys):
    from rich.console import Console

    print_config(Console(), parse_config(DemoConfig, ["input=ftp://me:pass@host/a"]))
    assert "pass" not in capsys.readouterr().out
    assert mask_secrets("s3://k:v@b/x?token=abc&a=1") == "s3://k:***@b/x?token=***&a=1"
    assert mask_secrets("s3://bucket/a:b@c.mp4") == "s3://bucket/a:b@c.mp4"
