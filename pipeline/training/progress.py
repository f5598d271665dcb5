"""Display of a training: a progress bar, or lines of text without a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from model.learn.training import Progress
from model.learn.training_config import TrainingConfig

_EVERY_S = 5.0


@contextmanager
def progress_bar(config: TrainingConfig) -> Iterator[Callable[[Progress], None]]:
    """Show a bar of the used budget, with smoothed losses, rates and the time left.

    Each problem, such as an unreadable picture, is printed once. The bar shows their number.

    Yields:
        a function to call after each step.
    """
    # Rich is imported here, because training also runs without it.
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.fields[at]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    smooth: dict[str, float] = {}
    unread: set[str] = set()

    def update(progress: Progress) -> None:
        for line in set(progress.problems) - unread:
            unread.add(line)
            bar.console.print(f"[yellow]left out:[/] {escape(line)}", soft_wrap=True)
        for name, value in {"loss": progress.loss, **progress.terms}.items():
            smooth[name] = 0.95 * smooth.get(name, value) + 0.05 * value
        losses = "  ".join(f"{name} {value:.3f}" for name, value in smooth.items())
        if unread:
            losses = f"unread {len(unread)}  {losses}"
        frames = progress.frames / max(1e-9, progress.seconds)
        rate = f"{1 / max(1e-9, progress.seconds):.2f} steps/s  {frames:.1f} frames/s"
        at = _place(progress, config)
        bar.update(task, completed=progress.budget_used, at=at, losses=losses, rate=rate)
        if not bar.console.is_terminal and progress.step % 50 == 0:
            bar.console.print(f"{at}  {rate}  {losses}", soft_wrap=True)

    with Bar(*columns) as bar:
        task = bar.add_task("training", total=1.0, at="", losses="", rate="")
        yield update


def line_printer() -> Callable[[Progress], None]:
    """Return a function to call after each step; it prints a line every few seconds."""
    since: list[Progress] = []  # steps after the last line

    def update(progress: Progress) -> None:
        for line in progress.problems:
            print(f"left out: {line}", flush=True)
        since.append(progress)
        seconds = sum(p.seconds for p in since)
        if seconds < _EVERY_S and progress.budget_used < 1:
            return
        terms = "  ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
        rate = sum(p.frames for p in since) / max(1e-9, seconds)
        waited = sum(p.data_seconds for p in since) / max(1e-9, seconds)
        since.clear()
        print(
            f"{time.strftime('%H:%M:%S')} {progress.budget_used:.1%} step {progress.step} "
            f"loss {progress.loss:.3f}  {terms}  {rate:.1f} frames/s, "
            f"{waited:.0%} waiting for data",
            flush=True,
        )

    return update


def _place(progress: Progress, config: TrainingConfig) -> str:
    """Step and, if the budget is a time, minutes used."""
    if not config.minutes:
        return f"step {progress.step}/{config.steps}"
    used = progress.budget_used * config.minutes
    return f"step {progress.step}, {used:.1f}/{config.minutes:g} min"
