"""Prints `--help` of a job: its usage, and all settings by group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.commands import Command, command_of
from jobs.settings import Setting, first_paragraph, groups_of, settings_of, shown

_KEY_WIDTH = 24  # least width of the column of keys, which aligns the groups


def print_help(
    console: Console, config_class: Any, calls: Sequence[str], given: Mapping[str, Any]
) -> None:
    """Print the help of a job.

    Args:
        console: console to print to.
        config_class: dataclass of its settings.
        calls: usage lines.
        given: values of its config file by dotted key.
    """
    command = command_of(config_class.job)
    if command is not None:
        console.print(f"example: {command[1].example}\n", markup=False, highlight=False)
    console.print("usage: " + "\n       ".join(calls) + "\n", markup=False, highlight=False)
    console.print(config_class.about, highlight=False)
    for title, group in help_groups(config_class, command[1] if command else None):
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, min_width=_KEY_WIDTH)
        table.add_column()
        for key, setting in group.items():
            default = "required"
            if key in given or not setting.required:
                default = f"default {shown(given.get(key, setting.default)) or 'empty'}"
            table.add_row(key, escape(f"{setting.meaning} [{setting.allowed}; {default}]"))
        console.print(f"\n[bold]{escape(title)}[/]", highlight=False)
        console.print(table, highlight=False)


def help_groups(
    config_class: Any, command: Command | None
) -> Iterator[tuple[str, dict[str, Setting]]]:
    """Yield title and settings of each group: common settings, other single ones, nested groups."""
    left = dict(settings_of(config_class))
    words, common = (command.words, command.common) if command else ((), ())

    def take(names: Iterable[str]) -> dict[str, Setting]:
        return {name: left.pop(name) for name in names}

    if first := take([*words, *common]):
        yield "common settings", first
    if single := take([name for name in left if "." not in name]):
        yield "more settings" if first else "settings", single
    for name, group in groups_of(config_class).items():
        if nested := [key for key in left if key.startswith(f"{name}.")]:
            yield f"{name}: {first_paragraph(group)}", take(nested)
