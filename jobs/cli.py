"""Settings of a job from a YAML file and the command line, checked by the job's dataclass."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape

from jobs.commands import command_of, is_setting
from jobs.settings import Setting, settings_of, shown
from model.settings import build, flat, flat_settings
from model.shipped import here_or_shipped
from pipeline.storage.secrets import mask_secrets

EXIT_DONE, EXIT_FAILED, EXIT_BAD_CONFIG, EXIT_DEAD_LETTERS, EXIT_STOPPED = 0, 1, 2, 3, 4

Config = TypeVar("Config")

_READS_WEIGHTS = ("weights", "start")

# A file or pipe has no width, so tables get a fixed one.
console = Console(width=None if sys.stdout.isatty() else 140)
"""Console that jobs print to."""


class ConfigError(ValueError):
    """A setting is unknown or has a bad value; the message names it and what is allowed."""


def load_config(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Parse a command line; exits with 0 after `--help`, and with 2 on a bad setting.

    Args:
        config_class: A dataclass whose docstring describes its fields under `Attributes:`. Its
            class variable `job` is the name of the job, `about` a sentence for `--help`.
        argv: Arguments without the name of the program; None: those of this process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if "-h" in arguments or "--help" in arguments:
            from jobs.help import print_help

            rest = [a for a in arguments if a not in ("-h", "--help")]
            given = values_of_file(config_class, rest)
            print_help(console, config_class, usage(config_class), given)
            sys.exit(EXIT_DONE)
        return parse_config(config_class, arguments)
    except ConfigError as error:
        fail(f"{job_name(config_class)}: {error}", EXIT_BAD_CONFIG)


def values_of_file(config_class: Any, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Values of the config file that arguments name, else of the shipped one, by dotted key.

    Raises:
        ConfigError: The file cannot be read, or has an unknown key.
    """
    path = _split(config_class, arguments)[0]
    values = _read_yaml(path)
    _check_keys(config_class, values, str(path))
    return flat(_plain(values, False))


def parse_config(config_class: type[Config], arguments: Sequence[str]) -> Config:
    """Parse arguments as `load_config` does, without `--help` and without exiting.

    Raises:
        ConfigError: A setting is unknown, missing or has a bad value.
    """
    config_path, overrides = _split(config_class, arguments)
    known = dict(settings_of(config_class))
    values = _read_yaml(config_path)
    _check_keys(config_class, values, str(config_path))
    try:
        for key, text in overrides:
            _check_key(config_class, key)
            OmegaConf.update(values, key, _parse(known[key], text), merge=True)
        plain = _plain(values, True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error}") from error
    for key in _READS_WEIGHTS:
        # Default weights are given by their path in the repository. In another working directory
        # the file of the package is used.
        standard = known[key].default if key in known else ""
        if str(name := plain.get(key, standard)).startswith("weights/"):
            plain[key] = here_or_shipped(name)
    given = flat(plain)
    missing = [
        f"{key} is missing; give {key}=… ({setting.meaning})"
        for key, setting in known.items()
        if given.get(key) == "???" or (setting.required and key not in given)
    ]
    if missing:
        raise ConfigError("\n".join(missing))
    try:
        return build(config_class, plain)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def print_config(console: Console, config: Any) -> None:
    """Print the resolved settings, secrets masked."""
    console.print(f"[bold]{job_name(type(config))}[/bold]")
    for key, value in flat_settings(config).items():
        console.print(f"  {key} = {escape(shown(value))}", soft_wrap=True, highlight=False)


def job_name(config_class: Any) -> str:
    """Name of the job that settings belong to, and of its file in configs/."""
    name: str = config_class.job
    return name


def fail(message: str, code: int) -> NoReturn:
    """Print an error, secrets masked, and exit."""
    Console(stderr=True).print(
        f"[red]error:[/red] {escape(mask_secrets(message))}", soft_wrap=True, highlight=False
    )
    sys.exit(code)


def warn(message: str) -> None:
    """Print a warning, secrets masked."""
    console.print(f"[yellow]{escape(mask_secrets(message))}[/]", soft_wrap=True, highlight=False)


def usage(config_class: Any) -> list[str]:
    """Usage lines of a job: as a command of vsdmot, if it is one, and as a Python module."""
    name = job_name(config_class)
    command = command_of(name)
    words = [word.upper() for word in command[1].words] if command else []
    calls = [f"vsdmot {command[0]}"] if command else []
    rest = " ".join([*words, "key=value … [--config FILE]"])
    return [f"{call} {rest}" for call in (*calls, f"python -m jobs.{name}")]


def _split(
    config_class: Any, arguments: Sequence[str]
) -> tuple[Path | None, list[tuple[str, str]]]:
    """Split arguments into config file and (key, value) pairs; positional words get their keys.

    Raises:
        ConfigError: the config file is missing, or a word is not understood.
    """
    config_path: Path | None = None
    overrides = []
    command = command_of(job_name(config_class))
    words = list(command[1].words) if command else []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config" or argument.startswith("--config="):
            _, equals, path = argument.partition("=")
            config_path = Path(path if equals else next(remaining, ""))
            if not config_path.is_file():
                raise ConfigError(
                    f"--config {str(config_path)!r}: no such file; give the path of a YAML file"
                )
        elif is_setting(argument):
            key, _, text = argument.partition("=")
            overrides.append((key.strip(), text))
        elif words and not argument.startswith("-"):
            overrides.append((words.pop(0), argument))
        else:
            raise ConfigError(
                f"{argument!r} is not understood; settings are given as key=value, the file as "
                f"--config PATH: {usage(config_class)[0]}; --help lists the keys"
            )
    if config_path is None:
        shipped = Path(here_or_shipped(f"configs/{job_name(config_class)}.yaml"))
        config_path = shipped if shipped.is_file() else None
    return config_path, overrides


def _plain(values: Any, resolve: bool) -> dict[str, Any]:
    """OmegaConf values as plain values."""
    plain: Any = OmegaConf.to_container(values, resolve=resolve)
    found: dict[str, Any] = plain
    return found


def _read_yaml(path: Path | None) -> Any:
    if path is None:
        return OmegaConf.create({})
    try:
        values = OmegaConf.load(path)
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}; correct the file") from error
    if not OmegaConf.is_dict(values):
        raise ConfigError(f"{path} must hold keys and values, such as 'window: 8'")
    return values


def _check_keys(config_class: Any, values: Any, where: str) -> None:
    groups = {key.rpartition(".")[0] for key, _ in settings_of(config_class)}
    for key, value in flat(_plain(values, False)).items():
        if not (value == {} and key in groups):
            _check_key(config_class, key, f" in {where}")


def _check_key(config_class: Any, key: str, where: str = "") -> None:
    known = [name for name, _ in settings_of(config_class)]
    if key in known:
        return
    inside = [name for name in known if name.startswith(key + ".")]
    if inside:
        raise ConfigError(f"{key}{where} is a group; give one of {', '.join(inside)}")
    # The last part is compared first, because the group of a key is often left out.
    by_name = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = [by_name[n] for n in difflib.get_close_matches(key.rpartition(".")[2], by_name, 1)]
    near = near or difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"unknown key {key}{where}; {hint}allowed are {', '.join(known)}")


def _parse(setting: Setting, text: str) -> Any:
    """Value of an argument: unchanged for a text (a folder may be named 007), else read as YAML."""
    if setting.takes(str):
        return None if text == "null" and setting.nullable else text
    try:
        value = yaml.safe_load(text)
        # In YAML 1.1, 4e-4 without a decimal point is a text.
        return float(value) if isinstance(value, str) and setting.takes(float) else value
    except (yaml.YAMLError, ValueError):
        return text
