"""The progress bar of a training run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from model.training import Progress


@contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[Progress], None]]:
    """Show steps done, losses by term (smoothed), steps and frames a second, time left.

    What could not be read is warned of once, and counted.
    """
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    smooth: dict[str, float] = {}
    unread: set[str] = set()

    def watch(progress: Progress) -> None:
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
        bar.update(task, completed=progress.step, losses=losses, rate=rate)
        if not bar.console.is_terminal and progress.step % 50 == 0:
            bar.console.print(f"step {progress.step}/{steps}  {rate}  {losses}", soft_wrap=True)

    with Bar(*columns) as bar:
        task = bar.add_task("training", total=steps, losses="", rate="")
        yield watch
