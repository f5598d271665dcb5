"""`vsdmot measure cuts`: how many shot cuts are found, and how many that are none."""

from dataclasses import asdict

from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console
from jobs.measure_output import say_left_out
from jobs.measure_settings import FRAMES, MeasureConfig
from model.version import code_version
from pipeline.benchmark.long.cut_measure import (
    MIXED,
    Row,
    cells_of_sequence,
    joined_row,
    sequence_row,
)
from pipeline.benchmark.measure import write_rows
from pipeline.datasets.mot import MotError, find_sequences, read_sequence
from pipeline.degrade.conditions import conditions
from pipeline.storage.errors import StorageError
from pipeline.video.cuts import Cells
from pipeline.video.errors import DecodeError
from pipeline.video.probe import ProbeError


def run_cuts(config: MeasureConfig) -> int:
    """Measure, print, write `cuts.parquet` and `cuts.json`; returns the exit code.

    Raises:
        MotError: there is no sequence.
        StorageError: the output cannot be written.
    """
    shown: dict[str, dict[str, Cells]] = {}
    left_out: dict[str, str] = {}
    asked = conditions(config.kinds, config.severities, (0,))
    for sequence in map(read_sequence, find_sequences(config.data)):
        with console.status(sequence.name):
            try:
                cells = dict(cells_of_sequence(sequence, asked, config.frames or FRAMES))
            except (ProbeError, DecodeError, StorageError, StopIteration) as error:
                left_out[sequence.name] = str(error) or "has no video file"
                continue
        shown[sequence.name] = {name: c[:: config.stride or 1] for name, c in cells.items()}
    say_left_out(left_out)
    if not shown:
        raise MotError(f"data={config.data}: no sequence could be read; the reasons are above")
    rows = _rows(shown, config.apart)
    console.print(cut_table(rows))
    record = {"config": asdict(config), "code_version": code_version(), "left_out": left_out}
    written = write_rows(config.output, config.what, rows, record)
    console.print(f"written to {written}", soft_wrap=True, highlight=False)
    return EXIT_FAILED if left_out else EXIT_DONE


def _rows(shown: dict[str, dict[str, Cells]], apart: tuple[str, ...]) -> list[Row]:
    """Rows of all sequences under all conditions, and of their strings."""
    rows = [sequence_row(name, c, cells) for name, by in shown.items() for c, cells in by.items()]
    joined = {name: by for name, by in shown.items() if name not in apart}
    if len(joined) < 2:
        return rows
    for condition in next(iter(joined.values())):
        rows.append(joined_row(condition, {name: [by[condition]] for name, by in joined.items()}))
    everything = {name: list(by.values()) for name, by in joined.items()}
    return [*rows, joined_row(MIXED, everything)]


def cut_table(rows: list[Row]) -> Table:
    """Table of wrong cuts in single shots, and of cuts found in strings, by condition."""
    table = Table("condition", title="shot cuts", title_justify="left")
    for column in ("frames of one shot", "wrong cuts", "cuts between shots", "found", "wrong"):
        table.add_column(column, justify="right", no_wrap=True)
    for condition in dict.fromkeys(row["condition"] for row in rows):
        alone, joined = (
            [r for r in rows if r["condition"] == condition and (r["cuts"] > 0) == cut]
            for cut in (False, True)
        )
        cuts, found = _sum(joined, "cuts"), _sum(joined, "found")
        table.add_row(
            condition,
            str(_sum(alone, "frames")),
            str(_sum(alone, "wrong")),
            str(cuts),
            f"{100 * found / cuts:.1f} %" if cuts else "",
            str(_sum(joined, "wrong")),
        )
    return table


def _sum(rows: list[Row], name: str) -> int:
    return sum(row[name] for row in rows)
