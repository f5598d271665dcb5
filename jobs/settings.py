"""Descriptions of the settings of a job, for the command line.

Types, bounds and defaults come from its dataclass, meanings from `Attributes:` of its docstring.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin

from model.settings import allowed, annotations_of, default_of, nullable, options
from pipeline.storage.secrets import mask_secrets


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a job.

    Attributes:
        kind: its annotation.
        meaning: its meaning in words.
        default: its default; `MISSING` if a value must be given.
    """

    kind: Any
    meaning: str
    default: Any

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is MISSING

    @property
    def allowed(self) -> str:
        """Allowed values, in words."""
        return allowed(self.kind)

    @property
    def nullable(self) -> bool:
        """Whether null is allowed."""
        return nullable(self.kind)

    def takes(self, plain: type) -> bool:
        """Whether values of a type are allowed."""
        return plain in (_bare(option) for option in options(self.kind))


def settings_of(cls: Any, default: Any = None, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Yield dotted key and description of every setting of a dataclass.

    Args:
        cls: a dataclass, which may contain others.
        default: an instance that gives the defaults; None takes those of the class.
        prefix: prefix of the keys.
    """
    meanings, kinds = attribute_meanings(cls), annotations_of(cls)
    for field in fields(cls):
        kind = kinds[field.name]
        usual = default_of(field) if default is None else getattr(default, field.name)
        if is_dataclass(kind):
            nested = None if usual is MISSING else usual
            yield from settings_of(kind, nested, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, Setting(kind, meanings.get(field.name, ""), usual)


def groups_of(cls: Any) -> dict[str, Any]:
    """Dataclasses inside a dataclass, by name of their group of settings."""
    return {name: kind for name, kind in annotations_of(cls).items() if is_dataclass(kind)}


def attribute_meanings(cls: type) -> dict[str, str]:
    """Read the `Attributes:` of a docstring: one or more names, a colon, the meaning.

    A class that adds settings to another has its meanings too.
    """
    inherited: dict[str, str] = {}
    for base in cls.__bases__:
        inherited |= attribute_meanings(base) if is_dataclass(base) else {}
    return inherited | _own_meanings(cls)


def _own_meanings(cls: type) -> dict[str, str]:
    block = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")[2]
    meanings: dict[str, str] = {}
    for entry in re.split(r"\n {4}(?=\S)", block):
        names, _, meaning = entry.strip().partition(":")
        for name in names.split(","):
            meanings[name.strip()] = " ".join(meaning.split()).rstrip(".")
    return meanings


def first_paragraph(cls: type) -> str:
    """First paragraph of a docstring, in one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())


def shown(value: object) -> str:
    """A value as it is typed on the command line, secrets masked."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return mask_secrets(str(value))


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind
