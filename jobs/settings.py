"""What the command line knows of a job's settings, read from its dataclass.

Types, bounds and defaults stand in the class, meanings in the `Attributes:` of its docstring.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin

from model.settings import allowed, annotations_of, default_of, nullable, options
from pipeline.storage.schema import mask_secrets


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a job.

    Attributes:
        kind: its annotation.
        meaning: what it means, in words.
        default: its value where none is given; `MISSING` where one has to be.
    """

    kind: Any
    meaning: str
    default: Any

    @property
    def required(self) -> bool:
        """Whether a value has to be given."""
        return self.default is MISSING

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        return allowed(self.kind)

    @property
    def nullable(self) -> bool:
        """Whether null is a value."""
        return nullable(self.kind)

    def takes(self, plain: type) -> bool:
        """Whether values of a type are allowed."""
        return plain in (_bare(option) for option in options(self.kind))


def settings_of(cls: Any, default: Any = None, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Every setting of a dataclass by its dotted key.

    Args:
        cls: a dataclass, nested as it likes.
        default: an instance of it with the defaults; None for those of the class.
        prefix: of the keys.
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
    """The dataclasses within a dataclass, by the name of the group of settings that each is."""
    return {name: kind for name, kind in annotations_of(cls).items() if is_dataclass(kind)}


def attribute_meanings(cls: type) -> dict[str, str]:
    """Read a docstring's `Attributes:` block: one or more names, a colon, the meaning."""
    block = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")[2]
    meanings: dict[str, str] = {}
    for entry in re.split(r"\n {4}(?=\S)", block):
        names, _, meaning = entry.strip().partition(":")
        for name in names.split(","):
            meanings[name.strip()] = " ".join(meaning.split()).rstrip(".")
    return meanings


def first_paragraph(cls: type) -> str:
    """What a docstring says first, in one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())


def shown(value: object) -> str:
    """A value as it can be typed, secrets masked."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return mask_secrets(str(value))


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind
