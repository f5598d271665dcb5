"""Outputs of a benchmark: Parquet, Markdown, the HTML page, comparisons, MLflow."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.benchmark.cells import Cell, read_row
from pipeline.benchmark.memory import MemoryUse
from pipeline.benchmark.metrics import tracking_scores
from pipeline.benchmark.moments import scored_pair, worst_moments
from pipeline.benchmark.plan import EvalSettings, cell_uri
from pipeline.benchmark.report import render_report
from pipeline.benchmark.results import DEGRADED, Results, Row
from pipeline.benchmark.table import against, markdown, markdown_table
from pipeline.datasets.layouts import DataSet
from pipeline.datasets.mot import MotError
from pipeline.degrade.conditions import CLEAN
from pipeline.runtime.mlflow_run import MlflowRun
from pipeline.storage import files as storage
from pipeline.storage.schema import to_parquet_bytes

_LOGGED = ("mota", "idf1", "ap50", "frames_per_second", "peak_memory_mb")


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings of a benchmark beside its cells.

    Attributes:
        apart: sequences that are in no mean because the settings say so.
        damaged: sequences with bad data, and the reason. They are in no mean of any tracker, so
            that all means are over the same sequences.
        left_out: sequences and trackers without cells, and the reason.
        memory: peak memory by tracker.
    """

    apart: Collection[str]
    damaged: Mapping[str, str]
    left_out: Mapping[str, str]
    memory: Mapping[str, MemoryUse]


@dataclass(frozen=True, slots=True)
class Published:
    """Published results: rows, Markdown, files by name; and sequences in no mean for bad data."""

    results: Results
    markdown: str
    files: dict[str, bytes]
    damaged: list[str]


def publish(
    cells: Sequence[Cell],
    data: DataSet,
    settings: EvalSettings,
    findings: Findings,
    name: str | None,
    baseline: str | None,
    pictures: bool,
) -> Published | None:
    """Make rows.parquet, table.md and report.html below the output; None without any cell.

    `name`: rows are kept as runs/NAME.parquet too. `baseline`: such a name, or a path of rows.

    Raises:
        MotError: The baseline is not there.
    """
    output = settings.output
    there = storage.list_stems(f"{output}/cells")
    rows: list[Row] = []
    for cell in cells:
        if cell.name in there:
            row = read_row(cell_uri(output, cell))
            row.pop("stage_s")
            memory = findings.memory.get(cell.tracker.name)
            row["peak_memory_mb"] = memory and memory.added_mb
            row["process_memory_mb"] = memory and memory.process_mb
            rows.append(row | {"cell": cell.name})
    # If its frames do not fit its ground truth, a sequence has no valid scores.
    damaged = {row["sequence"]: row["problem"] for row in rows if row["problem"]}
    damaged |= findings.damaged
    for row in rows:
        row["apart"] = row["sequence"] in damaged or row["sequence"] in findings.apart
    results = Results(rows)
    if not results.rows:
        return None
    left_out = {**findings.left_out, **{f"{n}, in no mean": why for n, why in damaged.items()}}
    comparisons = _comparisons(results, output, baseline)
    text = markdown(results, _notes(results, settings, left_out))
    text += f"\n## Combined, clean\n\n{_combined(cells, results, data, settings)}\n"
    for title, table in comparisons.items():
        text += f"\n## {title}\n\n{table}\n"
    moments = worst_moments(results, cells, data.sequences, settings) if pictures else []
    page = render_report(results, text, comparisons, left_out, moments)
    stored = _parquet(rows)
    files = {
        "rows.parquet": stored, "table.md": text.encode(), "report.html": page.encode(),
    }  # fmt: skip
    for file, content in files.items():
        storage.write_atomic(f"{output}/{file}", content)
    if name:
        storage.write_atomic(f"{output}/runs/{name}.parquet", stored)
    return Published(results, text, files, sorted(damaged))


def log_results(
    log: MlflowRun, settings: Mapping[str, object], results: Results, files: Mapping[str, bytes]
) -> None:
    """Log a benchmark in MLflow and end the run.

    Args:
        log: Open; closed here.
        settings: By dotted key.
        results: HOTA goes in for every condition, other figures for clean.
        files: By name: the rows, the table with its comparisons, the page with its figures.
    """
    log.params(settings)
    metrics = {}
    for tracker in results.trackers:
        plain = tracker.replace(":", "/").replace("+", "-")
        for condition in (*results.conditions, DEGRADED):
            if (found := results.estimate(tracker, condition)) is not None:
                metrics[f"{plain}/hota/{condition}"] = found.mean
        for figure in _LOGGED:
            if (found := results.estimate(tracker, CLEAN, figure)) is not None:
                metrics[f"{plain}/{figure}/clean"] = found.mean
    log.metrics(metrics, step=0)
    for name, content in files.items():
        log.file(name, content)
    log.close("FINISHED")


def read_rows(uri: str) -> list[Row]:
    """The rows of a benchmark's rows.parquet."""
    rows: list[Row] = pq.read_table(pa.BufferReader(storage.read_bytes(uri))).to_pylist()
    return rows


def _comparisons(results: Results, output: str, baseline: str | None) -> dict[str, str]:
    """Tables of differences to the run before, if it was another, and to the baseline."""
    found = {}
    last = f"{output}/rows.parquet"
    if storage.exists(last):
        before = Results(read_rows(last))
        if {row["cell"] for row in before.rows} != {row["cell"] for row in results.rows}:
            found["Against the last run"] = against(results, "", before)
    if baseline:
        kept = f"{output}/runs/{baseline}.parquet"
        uri = kept if storage.exists(kept) else baseline
        if not storage.exists(uri):
            raise MotError(f"baseline {baseline!r}: neither {kept} nor a file of that name")
        title = f"Against the baseline {baseline}"
        found[title] = against(results, "", Results(read_rows(uri)))
    return found


def _combined(
    cells: Sequence[Cell], results: Results, data: DataSet, settings: EvalSettings
) -> str:
    """Scores over the boxes of all counted sequences together; computed once for each set."""
    counted = {row["cell"] for row in results.rows if not row["apart"]}
    first = min(row["seed"] for row in results.rows)
    head = ("tracker", "HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "Frag", "FP", "FN")
    figures = (
        "hota", "det_a", "ass_a", "mota", "idf1", "id_switches", "fragmentations",
        "false_positives", "false_negatives",
    )  # fmt: skip
    lines = []
    for tracker in results.trackers:
        mine = [
            cell
            for cell in cells
            if cell.name in counted
            and (cell.tracker.name, cell.condition.name) == (tracker, CLEAN)
            and cell.condition.seed == first
        ]
        if mine:
            scores = _pooled(mine, data, settings)
            lines.append((tracker, *(f"{scores[figure]:.4g}" for figure in figures)))
    note = "All boxes as one sequence: long and crowded sequences weigh more."
    return f"{note}\n\n" + markdown_table(head, lines)


def _pooled(cells: Sequence[Cell], data: DataSet, settings: EvalSettings) -> dict[str, Any]:
    names = json.dumps(sorted(cell.name for cell in cells))
    key = hashlib.sha256(names.encode()).hexdigest()[:16]
    uri = f"{settings.output}/combined/{key}.json"
    if not storage.exists(uri):
        pairs = {c.sequence: scored_pair(c, data.sequences[c.sequence], settings) for c in cells}
        scores = asdict(tracking_scores(pairs)[1])
        storage.create_if_absent(uri, json.dumps(scores).encode())
    found: dict[str, Any] = json.loads(storage.read_bytes(uri))
    return found


def _notes(results: Results, settings: EvalSettings, left_out: dict[str, str]) -> list[str]:
    rows = results.rows
    counted = sorted({row["sequence"] for row in rows if not row["apart"]})
    aside = sorted({row["sequence"] for row in rows if row["apart"]})
    weights = {r["tracker"]: r["source_sha256"][:12] for r in rows if not r["peer"]}
    lines = [
        f"data{' **synthetic**, drawn, which says nothing of people' if settings.synthetic else ''}"
        f": {', '.join(counted) or 'none counted'}; hash {_hash(rows)}",
        f"apart, in no mean: {', '.join(aside) or 'none'}",
        f"frames of each: {settings.frames or 'all'}; MOT16/17 preprocessing: "
        f"{'on' if settings.preprocessing else 'off'}; percent; precision float32",
        "weights: " + ", ".join(f"{name} {sha}" for name, sha in weights.items()),
        f"libraries: {_libraries(rows)}",
        *(f"**left out** {name}: {reason}" for name, reason in left_out.items()),
    ]
    return ["\n".join(f"- {line}" for line in lines)]


def _libraries(rows: Sequence[Row]) -> str:
    """Versions of libraries; where rows came from several, how many came from each."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        for name, version in json.loads(row["libraries"]).items():
            found.setdefault(name, Counter()).update([version] if version else [])
    parts = []
    for name, versions in found.items():
        if len(versions) == 1:
            parts.append(f"{name} {next(iter(versions))}")
        elif versions:
            each = (f"{version} ({count} rows)" for version, count in versions.items())
            parts.append(f"**{name}** {' and '.join(each)}")
    return ", ".join(parts)


def _hash(rows: Sequence[Row]) -> str:
    names = sorted({(row["sequence"], row["data_sha256"]) for row in rows})
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    keys = dict.fromkeys(key for row in rows for key in row)
    return to_parquet_bytes(pa.Table.from_pylist([{k: r.get(k) for k in keys} for r in rows]))
