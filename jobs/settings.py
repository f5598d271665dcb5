"""Command-line settings made from the plain dataclasses that the code itself works with.

`model/` knows no pydantic, so its configs are dataclasses; here they get validation and help,
from their types, defaults and the `Attributes:` of their docstrings, written once.
"""

import inspect
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

import pydantic
from pydantic import BaseModel, create_model

from jobs.cli import Settings


def settings_model(cls: Any, base: type[BaseModel] = Settings) -> type[BaseModel]:
    """Make a pydantic model that takes the same values as a dataclass and forbids others.

    Args:
        cls: a dataclass, nested as it likes.
        base: what the model inherits; it is to forbid unknown keys.
    """
    hints, meanings = get_type_hints(cls), attribute_meanings(cls)
    members: dict[str, Any] = {}
    for field in fields(cls):
        kind = hints[field.name]
        if is_dataclass(kind):
            nested = settings_model(kind)
            members[field.name] = (nested, pydantic.Field(default_factory=nested))
            continue
        meaning = meanings.get(field.name, "")
        default = _default(field)
        members[field.name] = (kind, pydantic.Field(default, description=meaning))
    model: type[BaseModel] = create_model(
        cls.__name__, __base__=base, __doc__=cls.__doc__, **members
    )
    return model


def attribute_meanings(cls: type) -> dict[str, str]:
    """Read a docstring's `Attributes:` block: one or more names, a colon, the meaning."""
    block = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")[2]
    meanings: dict[str, str] = {}
    for entry in re.split(r"\n {4}(?=\S)", block):
        names, _, meaning = entry.strip().partition(":")
        for name in names.split(","):
            meanings[name.strip()] = " ".join(meaning.split()).rstrip(".")
    return meanings


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return ... if field.default_factory is MISSING else field.default_factory()
