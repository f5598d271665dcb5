"""Write a page on a run of tracking: `vsdmot report OUTPUT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.markup import escape

from jobs.cli import EXIT_BAD_CONFIG, EXIT_DONE, EXIT_FAILED, console, fail, load_config, warn
from pipeline.report.config import ReportConfig
from pipeline.storage.errors import StorageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(ReportConfig, argv)
    # Imported after the settings are checked, because decoding needs torch, which takes seconds.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from pipeline.report.make import OtherReportError, UnknownVideoError, make_report
    from pipeline.report.run_tables import NoRunError

    columns = (
        TextColumn("pages"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[at]}"),
    )
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("pages", total=None, at="")
            report = make_report(
                config,
                lambda made, of, name: bar.update(task, completed=made, total=of, at=escape(name)),
            )
    except (NoRunError, OtherReportError, UnknownVideoError) as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except StorageError as error:
        fail(str(error), EXIT_FAILED)
    for name, reason in report.failed.items():
        warn(f"no page for {name}: {reason}")
    for line in report.closing_lines():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
