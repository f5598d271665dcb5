"""Command lines: a YAML file and dotted overrides, checked against a typed config."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.commands import Command, command_of
from jobs.describe import allowed, nullable, submodel, takes_text
from model.shipped import here_or_shipped
from pipeline.storage.schema import mask_secrets

EXIT_DONE, EXIT_FAILED, EXIT_BAD_CONFIG, EXIT_DEAD_LETTERS, EXIT_STOPPED = 0, 1, 2, 3, 4

Config = TypeVar("Config", bound=BaseModel)

# A path with "=" in it is no setting if anything before the "=" cannot be in a key.
_SETTING = re.compile(r"\s*[A-Za-z_][\w.-]*\s*=")
_READS_WEIGHTS = ("weights", "start")
_KEY_WIDTH = 24  # of the column of keys, so that groups stand in one line

# A log has no width of its own to fit a table to.
console = Console(width=None if sys.stdout.isatty() else 140)
"""Where jobs write."""


class Settings(BaseModel):
    """A group of settings: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JobConfig(Settings):
    """The settings of a job; subclasses name it.

    Attributes:
        job: Name of the command and of its file in configs/.
        about: One sentence for `--help`.
    """

    job: ClassVar[str]
    about: ClassVar[str]


class ClusterConfig(Settings):
    """Where the work runs. None of it changes results."""

    address: str | None = Field(
        default=None,
        description="Ray cluster to join, e.g. ray://head:10001 or auto; null starts one here",
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        description="tracking processes; null: one a GPU, else one a CPU with one CPU to spare; "
        "0: no Ray, all in this process",
    )
    probe_threads: int = Field(
        default=16, ge=1, le=256, description="headers read at the same time"
    )


class MlflowConfig(Settings):
    """Where the run is logged. None of it changes results."""

    enabled: bool = Field(
        default=True, description="log parameters, metrics and the summary to MLflow"
    )
    uri: str = Field(
        default="sqlite:///mlflow.db",
        description="MLflow store or server, e.g. http://host:5000; the default is a file here, "
        "the one that a plain `mlflow ui` opens",
    )
    experiment: str = Field(
        default="vsdmot", min_length=1, description="MLflow experiment, made if missing"
    )


class ConfigError(ValueError):
    """A setting is unknown or has a bad value; the message names it and what is allowed."""


def load_config(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """The config of a command line; exits with 0 after `--help`, with 2 on a bad setting.

    Args:
        config_class: What is allowed.
        argv: Arguments without the program's name; None is the process's own.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if "-h" in arguments or "--help" in arguments:
            rest = [a for a in arguments if a not in ("-h", "--help")]
            _print_help(config_class, _read_yaml(_split(config_class, rest)[0]))
            sys.exit(EXIT_DONE)
        return parse_config(config_class, arguments)
    except ConfigError as error:
        fail(f"{job_name(config_class)}: {error}", EXIT_BAD_CONFIG)


def parse_config(config_class: type[Config], arguments: Sequence[str]) -> Config:
    """As `load_config`, without `--help` and without leaving the process.

    Raises:
        ConfigError: A setting is unknown, missing or has a bad value.
    """
    config_path, overrides = _split(config_class, arguments)
    values = _read_yaml(config_path)
    _check_keys(config_class, values, str(config_path))
    try:
        for key, text in overrides:
            _check_key(config_class, key)
            OmegaConf.update(values, key, _parse(config_class, key, text), merge=True)
        plain = OmegaConf.to_container(values, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error}") from error
    assert isinstance(plain, dict)
    for key in _READS_WEIGHTS:
        # Defaults name weights by their place in the repository, which may be elsewhere.
        if str(plain.get(key)).startswith("weights/"):
            plain[key] = here_or_shipped(plain[key])
    missing = [key for key, value in _leaves(plain) if value == "???"]
    if missing:
        raise ConfigError(_missing(config_class, missing[0]))
    try:
        return config_class.model_validate(plain)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(config_class, e) for e in error.errors())) from error


def print_config(console: Console, config: BaseModel) -> None:
    """Print the resolved config, secrets masked."""
    console.print(f"[bold]{job_name(type(config))}[/bold]")
    for key, value in flat(config).items():
        console.print(f"  {key} = {escape(_show(value))}", soft_wrap=True, highlight=False)


def job_name(config_class: type[BaseModel]) -> str:
    """The command a config belongs to; one that does not say goes by its name: PackConfig, pack."""
    if issubclass(config_class, JobConfig):
        return config_class.job
    return re.sub("(Config|Job)$", "", config_class.__name__).lower()


def flat(config: BaseModel) -> dict[str, Any]:
    """Values by dotted key."""
    return dict(_leaves(config.model_dump(mode="json")))


def fail(message: str, code: int) -> NoReturn:
    """Print an error, secrets masked, and leave with an exit code."""
    Console(stderr=True).print(
        f"[red]error:[/red] {escape(mask_secrets(message))}", soft_wrap=True, highlight=False
    )
    sys.exit(code)


def keys(config_class: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by its dotted key."""
    for name, field in config_class.model_fields.items():
        nested = submodel(field)
        if nested is None:
            yield prefix + name, field
        else:
            yield from keys(nested, f"{prefix}{name}.")


def _split(
    config_class: type[BaseModel], arguments: Sequence[str]
) -> tuple[Path | None, list[tuple[str, str]]]:
    """The config file and the (key, value) overrides; a file asked for must be there."""
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
                raise ConfigError(f"--config {str(config_path)!r}: no such file")
        elif _SETTING.match(argument):
            key, _, text = argument.partition("=")
            overrides.append((key.strip(), text))
        elif words and not argument.startswith("-"):
            overrides.append((words.pop(0), argument))
        else:
            raise ConfigError(
                f"{argument!r} is not understood; settings are given as key=value, the file as "
                f"--config PATH: {_usage(config_class)[0]}; --help lists the keys"
            )
    if config_path is None:
        shipped = Path(here_or_shipped(f"configs/{job_name(config_class)}.yaml"))
        config_path = shipped if shipped.is_file() else None
    return config_path, overrides


def _usage(config_class: type[BaseModel]) -> list[str]:
    """How the job is called; where it is a command of vsdmot, by that name first."""
    name = job_name(config_class)
    command = command_of(name)
    words = [word.upper() for word in command[1].words] if command else []
    calls = [f"vsdmot {command[0]}"] if command else []
    rest = " ".join([*words, "key=value … [--config FILE]"])
    return [f"{call} {rest}" for call in (*calls, f"python -m jobs.{name}")]


def _read_yaml(path: Path | None) -> Any:
    if path is None:
        return OmegaConf.create({})
    try:
        values = OmegaConf.load(path)
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not OmegaConf.is_dict(values):
        raise ConfigError(f"{path} must hold keys and values, such as 'window: 8'")
    return values


def _check_keys(config_class: type[BaseModel], values: Any, where: str) -> None:
    groups = {key.rpartition(".")[0] for key, _ in keys(config_class)}
    for key, value in _leaves(OmegaConf.to_container(values, resolve=False)):
        if not (value == {} and key in groups):
            _check_key(config_class, key, f" in {where}")


def _check_key(config_class: type[BaseModel], key: str, where: str = "") -> None:
    known = [name for name, _ in keys(config_class)]
    if key in known:
        return
    inside = [name for name in known if name.startswith(key + ".")]
    if inside:
        raise ConfigError(f"{key}{where} is a group; give one of {', '.join(inside)}")
    # By its last part first: whoever writes birth_treshold may not know the group it is in.
    by_name = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = [by_name[n] for n in difflib.get_close_matches(key.rpartition(".")[2], by_name, 1)]
    near = near or difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"unknown key {key}{where}; {hint}allowed are {', '.join(known)}")


def _parse(config_class: type[BaseModel], key: str, text: str) -> Any:
    """An override's value: as it stands for text (a folder may be called 007), else as YAML."""
    field = dict(keys(config_class))[key]
    if takes_text(field):
        return None if text == "null" and nullable(field) else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _explain(config_class: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    field = dict(keys(config_class)).get(key)
    if error["type"] == "missing":
        return _missing(config_class, key)
    if field is None:
        return f"{key}: {error['msg']}"
    given = error["input"]
    hint = ""
    if isinstance(given, str):
        near = difflib.get_close_matches(given, allowed(field).replace(",", "").split(), 1)
        hint = f"; did you mean {near[0]}?" if near and near[0] != given else ""
    return f"{key}: {_show(given)} was given, allowed is {allowed(field)}{hint}"


def _missing(config_class: type[BaseModel], key: str) -> str:
    field = dict(keys(config_class)).get(key)
    return f"{key} is missing; give {key}=…" + (f" ({field.description})" if field else "")


def _print_help(config_class: type[BaseModel], values: Any) -> None:
    name = job_name(config_class)
    command = command_of(name)
    if command is not None:
        console.print(f"example: {command[1].example}\n", markup=False, highlight=False)
    console.print(
        "usage: " + "\n       ".join(_usage(config_class)) + "\n", markup=False, highlight=False
    )
    about = _first_paragraph(config_class)
    if issubclass(config_class, JobConfig):
        about = config_class.about
    console.print(about, highlight=False)
    _check_keys(config_class, values, f"configs/{name}.yaml")
    from_file = dict(_leaves(OmegaConf.to_container(values, resolve=False)))
    for title, group in _groups(config_class, command[1] if command else None):
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, min_width=_KEY_WIDTH)
        table.add_column()
        for key, field in group.items():
            required = field.is_required() and key not in from_file
            given = from_file.get(key, field.get_default(call_default_factory=True))
            default = "required" if required else f"default {_show(given) or 'empty'}"
            table.add_row(key, escape(f"{field.description} [{allowed(field)}; {default}]"))
        console.print(f"\n[bold]{escape(title)}[/]", highlight=False)
        console.print(table, highlight=False)


def _groups(
    config_class: type[BaseModel], command: Command | None
) -> Iterator[tuple[str, dict[str, FieldInfo]]]:
    """Every setting once, by title of its group: common ones, other single ones, nested ones."""
    left = dict(keys(config_class))
    words, common = (command.words, command.common) if command else ((), ())

    def take(names: Iterable[str]) -> dict[str, FieldInfo]:
        return {name: left.pop(name) for name in names}

    if first := take([*words, *common]):
        yield "common settings", first
    if single := take([name for name in left if "." not in name]):
        yield "more settings" if first else "settings", single
    for name, field in config_class.model_fields.items():
        group = submodel(field)
        if group is not None and (nested := [key for key in left if key.startswith(f"{name}.")]):
            yield f"{name}: {_first_paragraph(group)}", take(nested)


def _first_paragraph(config_class: type[BaseModel]) -> str:
    return " ".join(inspect.cleandoc(config_class.__doc__ or "").partition("\n\n")[0].split())


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _show(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return mask_secrets(str(value))


def warn(message: str) -> None:
    """Tell of something that does not end the job."""
    console.print(f"[yellow]{escape(mask_secrets(message))}[/]", soft_wrap=True, highlight=False)
