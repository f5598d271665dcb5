"""The command `vsdmot`: one door to all jobs. `python -m jobs` is the same."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.commands import COMMANDS

_BAD_COMMAND = 2  # as a bad setting; `jobs.cli` would take its time to import


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or list them; returns the exit code of its job.

    Args:
        argv: Arguments without the program's name; None is the process's own.
    """
    name, *arguments = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help"):
        _list_commands()
        return 0
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
        hint = f"did you mean vsdmot {near[0]}? " if near else ""
        _say_error(f"vsdmot: unknown command {name!r}; {hint}there are {', '.join(COMMANDS)}")
        return _BAD_COMMAND
    code: int = import_module(f"jobs.{command.job}").main(arguments)
    return code


def _list_commands() -> None:
    console = Console()
    console.print("usage: vsdmot COMMAND … [key=value …]\n", markup=False, highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, command in COMMANDS.items():
        table.add_row(f"[bold]{name}[/]", command.line)
        table.add_row("", f"[dim]{escape(command.example)}[/]")
    console.print(table, highlight=False)
    console.print(
        "\nvsdmot COMMAND --help lists the keys of a command.",
        highlight=False,
    )


def _say_error(message: str) -> None:
    Console(stderr=True).print(
        f"[red]error:[/red] {escape(message)}", soft_wrap=True, highlight=False
    )


if __name__ == "__main__":
    sys.exit(main())
