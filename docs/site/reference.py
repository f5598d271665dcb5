"""Writes the pages of the reference from the code.

Commands with their settings, tables, exit codes, scores, and metrics for Prometheus.

A page is Markdown. Pages are not kept in git.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.cli import EXIT_BAD_CONFIG, EXIT_DONE, EXIT_FAILED, usage, values_of_file
from jobs.commands import COMMANDS, Command
from jobs.completion import settings_class
from jobs.help import help_groups
from jobs.settings import attribute_meanings, first_paragraph, shown
from pipeline.benchmark.average_precision import DetectionScores, PictureScores
from pipeline.benchmark.metrics import TrackingScores
from pipeline.storage.schema import FIELD_MEANINGS, SCHEMA_VERSION, SCHEMAS, TABLE_MEANINGS

_SCORES = (TrackingScores, DetectionScores, PictureScores)
_COMMON_CODES = {EXIT_DONE: "done", EXIT_FAILED: "failed", EXIT_BAD_CONFIG: "a bad setting"}


def write(folder: Path) -> None:
    """Write all pages into a folder; a page that has not changed keeps its time."""
    for name, text in pages().items():
        write_if_changed(folder / name, text)


def write_if_changed(path: Path, text: str) -> None:
    """Write a text file, unless it has this text already."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """All pages, by their path in the folder of the reference."""
    made = {
        "commands.md": commands_page(),
        "exit-codes.md": exit_codes_page(),
        "tables.md": tables_page(),
        "scores.md": scores_page(),
        "metrics.md": metrics_page(),
    }
    for name, command in COMMANDS.items():
        made[f"settings/{name}.md"] = settings_page(name, command)
    return made


def commands_page() -> str:
    """All commands, with what each is for and an example."""
    rows = [
        (f"[`vsdmot {name}`](settings/{name}.md)", _cell(command.line), f"`{command.example}`")
        for name, command in COMMANDS.items()
    ]
    toc = "\n".join(f"settings/{name}" for name in COMMANDS)
    return (
        "# Commands and their settings\n\n"
        "A setting is given as `key=value`, or in a YAML file named by `--config`. The first words "
        "of a command need no key. `vsdmot COMMAND --help` lists the settings too.\n\n"
        f"{_table(('command', 'what it is for', 'example'), rows)}\n"
        f"```{{toctree}}\n:hidden:\n\n{toc}\n```\n"
    )


def settings_page(name: str, command: Command) -> str:
    """The settings of a command, by group: default, what is allowed, meaning."""
    config_class = settings_class(command)
    given = values_of_file(config_class)
    parts = [
        f"# vsdmot {name}\n\n{_cell(config_class.about)}\n\n"
        f"    {command.example}\n\n"
        + "\n".join(f"    {line}" for line in usage(config_class))
        + "\n"
    ]
    for title, group in help_groups(config_class, command):
        rows = []
        for key, setting in group.items():
            default = "required"
            if key in given or not setting.required:
                default = f"`{shown(given.get(key, setting.default)) or 'empty'}`"
            rows.append((f"`{key}`", default, _cell(setting.allowed), _cell(setting.meaning)))
        group_name, _, about = title.partition(": ")
        heading = f"\n## {group_name}\n\n" + (f"{_cell(about)}\n\n" if about else "")
        parts.append(heading + _table(("setting", "default", "allowed", "meaning"), rows))
    return "".join(parts)


def exit_codes_page() -> str:
    """What each exit code means, for all commands and for those that say more."""
    common = [(f"{code}", meaning) for code, meaning in sorted(_COMMON_CODES.items())]
    parts = [
        "# Exit codes\n\nAll commands have these. `make` turns each code but 0 into 2.\n\n",
        _table(("code", "meaning"), common),
    ]
    for name, command in COMMANDS.items():
        codes, note = _exit_codes(command.job)
        if codes:
            rows = [(code, _cell(meaning)) for code, meaning in codes]
            parts.append(f"\n## vsdmot {name}\n\n" + _table(("code", "meaning"), rows))
            parts.append(f"\n{_cell(note)}\n" if note else "")
    return "".join(parts)


def tables_page() -> str:
    """The fields of all tables of a run."""
    docstring = ast.get_docstring(ast.parse(_source("pipeline.storage.schema"))) or ""
    notes = docstring.split("\n\n")[1]
    parts = [
        f"# Tables\n\nVersion {SCHEMA_VERSION} of the schema. {_cell(notes)} "
        "A file is `OUTPUT/TABLE/VIDEO_ID.parquet`; merged files have the same fields.\n"
    ]
    for table, schema in SCHEMAS.items():
        rows = [
            (
                f"`{field.name}`",
                f"{field.type}",
                "can be null" if field.nullable else "",
                _cell(FIELD_MEANINGS[table][field.name]),
            )
            for field in schema
        ]
        parts.append(f"\n## {table}\n\n{_cell(TABLE_MEANINGS[table])}\n\n")
        parts.append(_table(("field", "type", "", "meaning"), rows))
    return "".join(parts)


def scores_page() -> str:
    """The scores of the benchmark and of measures."""
    parts = ["# Scores\n\nWhat `vsdmot eval` and `vsdmot measure` report.\n"]
    for scores in _SCORES:
        meanings = attribute_meanings(scores)
        rows = [
            (f"`{field.name}`", _cell(meanings[field.name])) for field in _fields(scores, meanings)
        ]
        words = re.sub(r"(?<!^)(?=[A-Z])", " ", scores.__name__).capitalize()
        parts.append(f"\n## {words}\n\n{_cell(first_paragraph(scores))}\n\n")
        parts.append(_table(("score", "meaning"), rows))
    return "".join(parts)


def metrics_page() -> str:
    """The metrics of a run for Prometheus."""
    tree = ast.parse(_source("pipeline.runtime.stage_metrics"))
    names = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    rows = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="Counter" | "Gauge" as kind),
                args=[ast.Name(id=name), meaning, *labels],
            ):
                of = ", ".join(f"`{label}`" for each in labels for label in ast.literal_eval(each))
                told = _cell(ast.literal_eval(meaning))
                rows.append((f"`ray_{names[name]}`", kind.lower(), of, told))
    notes = (ast.get_docstring(tree) or "").split("\n\n")[1]
    head = ("metric", "kind", "labels", "meaning")
    return f"# Metrics for Prometheus\n\n{_cell(notes)}\n\n{_table(head, rows)}"


def _fields(scores: Any, meanings: dict[str, str]) -> Iterator[Any]:
    return (field for field in dataclasses.fields(scores) if meanings.get(field.name))


def _exit_codes(job: str) -> tuple[list[tuple[str, str]], str]:
    """Codes with their meanings, and a note, from `Exit codes:` in the docstring of a job."""
    docstring = ast.get_docstring(ast.parse(_source(f"jobs.{job}"))) or ""
    said = " ".join(docstring.partition("Exit codes:")[2].split("\n\n")[0].split())
    codes, _, note = said.partition(".")
    return re.findall(r"(\d+) (.*?)(?:; (?=\d+ )|$)", codes), note.strip()


def _source(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {module}")
    return Path(spec.origin).read_text(encoding="utf-8")


def _cell(text: str) -> str:
    """Text as Markdown in a table: nothing in it is markup but code in backticks."""
    plain = " ".join(text.replace("``", "`").split())
    parts = plain.split("`")
    parts[::2] = [re.sub(r"([|<>*\[\]{}$])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", r"\|") for part in parts[1::2]]
    return "`".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
