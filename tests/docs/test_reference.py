"""The pages of the reference: all that the code has is on them, with its meaning."""

import importlib.util
from dataclasses import fields

import pytest

from jobs.cli import EXIT_DEAD_LETTERS, EXIT_STOPPED
from jobs.commands import COMMANDS
from jobs.completion import settings_class
from jobs.settings import settings_of
from pipeline.benchmark.metrics import TrackingScores
from pipeline.runtime.stage_metrics import (
    FRAMES,
    STAGE_SECONDS,
    VIDEO_SECONDS,
    VIDEOS,
    VIDEOS_OPEN,
)
from pipeline.storage.schema import FIELD_MEANINGS, SCHEMAS, TABLE_MEANINGS
from tests import ROOT


@pytest.fixture(scope="module")
def pages():
    place = ROOT / "docs" / "site" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_every_field_of_every_table_has_a_meaning(pages):
    for table, schema in SCHEMAS.items():
        assert TABLE_MEANINGS[table] in pages["tables.md"]
        assert list(FIELD_MEANINGS[table]) == schema.names
        assert all(FIELD_MEANINGS[table].values())
        _, _, part = pages["tables.md"].partition(f"\n## {table}\n")
        rows = [line for line in part.split("\n## ")[0].splitlines() if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == schema.names


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_of_a_command_has_a_row_with_its_meaning(pages, name):
    page = pages[f"settings/{name}.md"]
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(rows) == {key for key, _ in settings_of(settings_class(COMMANDS[name]))}
    assert all(len(row.split(" | ")) == 4 and row.split(" | ")[3] != " |" for row in rows.values())
    assert f"(settings/{name}.md)" in pages["commands.md"]


def test_exit_codes_of_tracking_and_scores_are_told(pages):
    _, _, part = pages["exit-codes.md"].partition("## vsdmot track\n")
    told = part.split("\n## ")[0]
    for code in (EXIT_DEAD_LETTERS, EXIT_STOPPED):
        assert f"\n| {code} | " in told
    assert "After 1 and 4 the same command resumes." in told
    assert all(f"\n| `{score.name}` | " in pages["scores.md"] for score in fields(TrackingScores))


def test_what_looks_like_markup_is_shown_as_it_is(pages):
    assert r"/cams/\*/2024-0?/\*.mp4" in pages["settings/track.md"]
    assert r"\[min, max\]" in pages["settings/track.md"]


def test_metrics_for_prometheus_are_told(pages):
    told = {line.split("`")[1] for line in pages["metrics.md"].splitlines() if "| `ray_" in line}
    named = (FRAMES, STAGE_SECONDS, VIDEO_SECONDS, VIDEOS, VIDEOS_OPEN)
    assert told == {f"ray_{name}" for name in named}
