"""The command `vsdmot`: one door to all jobs. `python -m jobs` is the same."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click
from click.shell_completion import CompletionItem, add_completion_class

from jobs.commands import COMMANDS, Command
from jobs.shells import Bash, Zsh


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or list them; returns the exit code of its job.

    Args:
        argv: Arguments without the program's name; None is the process's own.
    """
    arguments = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    add_completion_class(Bash)
    add_completion_class(Zsh)
    try:
        call = _FrontDoor().main(arguments, prog_name="vsdmot", standalone_mode=False)
    except click.UsageError as error:
        _say_error(f"vsdmot: {error.message}")
        return error.exit_code
    if not call:  # the commands were listed
        return 0
    # Within Click an interrupt or an EOFError of the job would become an error of Click's.
    job, words = call
    code: int = import_module(f"jobs.{job}").main(words)
    return code


class _FrontDoor(click.Group):
    """The commands of `jobs.commands`; which job to call, with which words, is its result."""

    def __init__(self) -> None:
        super().__init__(
            # Whatever comes first is a command or an unknown one, also with a dash.
            context_settings={
                "help_option_names": ["-h", "--help"],
                "ignore_unknown_options": True,
            }
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _JobCommand(name, COMMANDS[name]) if name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, *words = args
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            _refuse(name)
        return name, command, words

    def get_help(self, ctx: click.Context) -> str:
        return _list_of_commands()


class _JobCommand(click.Command):
    """A command whose words the job reads itself; its options are there to be completed."""

    def __init__(self, name: str, command: Command) -> None:
        super().__init__(
            name,
            params=[
                click.Option(["--config"], type=click.Path(), help="YAML file of settings."),
                click.Option(["--help"], is_flag=True, help="List the settings."),
            ],
            short_help=command.line,
            add_help_option=False,
        )
        self._command = command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> tuple[str, list[str]]:
        return self._command.job, ctx.args

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from jobs.completion import completions  # reads settings; the list of commands does not

        return completions(self._command, ctx.args, incomplete)


def _refuse(name: str) -> NoReturn:
    near = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
    hint = f"did you mean vsdmot {near[0]}? " if near else ""
    raise click.UsageError(f"unknown command {name!r}; {hint}there are {', '.join(COMMANDS)}")


def _list_of_commands() -> str:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table.grid(padding=(0, 2))
    for name, command in COMMANDS.items():
        table.add_row(f"[bold]{name}[/]", command.line)
        table.add_row("", f"[dim]{escape(command.example)}[/]")
    with console.capture() as capture:
        console.print("usage: vsdmot COMMAND … [key=value …]\n", markup=False, highlight=False)
        console.print(table, highlight=False)
        console.print("\nvsdmot COMMAND --help lists the keys of a command.", highlight=False)
    return capture.get().removesuffix("\n")


def _say_error(message: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(
        f"[red]error:[/red] {escape(message)}", soft_wrap=True, highlight=False
    )


if __name__ == "__main__":
    sys.exit(main())
