"""What a setting allows, in words, from its type and its bounds."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def allowed(field: FieldInfo) -> str:
    """For example "a number, 0 to 1, or null"."""
    words = " or ".join(_word(kind) for kind in _kinds(field.annotation))
    bounds = _bounds(field)
    return words + (f", {bounds}" if bounds else "") + (", or null" if nullable(field) else "")


def nullable(field: FieldInfo) -> bool:
    """Whether null is a value of this setting."""
    return type(None) in get_args(field.annotation)


def takes_text(field: FieldInfo) -> bool:
    """Whether any text is a value of this setting."""
    return str in _kinds(field.annotation)


def submodel(field: FieldInfo) -> Any:
    """The group of settings that a field is, or None."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for kind in get_args(annotation) if kind is not type(None)]
    return [annotation]


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return f"a list, each {_word(get_args(kind)[0])}"
    return _WORDS.get(kind, str(kind))


def _bounds(field: FieldInfo) -> str:
    low = high = ""
    for bound in field.metadata:
        if isinstance(bound, Ge):
            low = f"{bound.ge}"
        elif isinstance(bound, Gt):
            low = f"more than {bound.gt}"
        elif isinstance(bound, Le):
            high = f"{bound.le}"
        elif isinstance(bound, Lt):
            high = f"less than {bound.lt}"
    if low and high:
        return f"{low} to {high}"
    if low:
        return low if low.startswith("more") else f"{low} or more"
    return high if not high or high.startswith("less") else f"at most {high}"
