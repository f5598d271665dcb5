"""Settings: frozen dataclasses whose annotations hold the bounds of values.

    @dataclass(frozen=True, slots=True)
    class DecodeConfig:
        window: Annotated[int, Range(1, 256)] = 8

        def __post_init__(self) -> None:
            check(self)

`check` compares an instance with its annotations. `build` makes an instance, with nested ones, from
plain values such as those of JSON. The command line and `jobs.train --resolved` both use it. Only
the standard library is imported.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_NOTHING = "nothing"
_NOT_MADE = object()


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number.

    Attributes:
        low, high: least and greatest value; None for no bound.
        above: whether the value must be greater than `low`.
        below: whether the value must be less than `high`.
        multiple_of: a whole number that must divide the value.
    """

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    multiple_of: int = 1

    def holds(self, value: Any) -> bool:
        """Whether a number is within bounds; NaN never is."""
        return (
            (self.low is None or (value > self.low if self.above else value >= self.low))
            and (self.high is None or (value < self.high if self.below else value <= self.high))
            and (self.multiple_of == 1 or value % self.multiple_of == 0)
        )

    def __str__(self) -> str:
        words = []
        high = None if self.high == math.inf else self.high
        if self.low is not None and high is not None and not (self.above or self.below):
            words.append(f"{self.low} to {high}")
        else:
            if self.low is not None:
                words.append(f"more than {self.low}" if self.above else f"{self.low} or more")
            if high is not None:
                words.append(f"less than {high}" if self.below else f"at most {high}")
        if self.multiple_of > 1:
            words.append(f"a multiple of {self.multiple_of}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class NotEmpty:
    """Bounds of a text or a list that must not be empty."""

    def holds(self, value: Any) -> bool:
        """Whether a text or a list is not empty."""
        return len(value) > 0

    def __str__(self) -> str:
        return "not empty"


@dataclass(frozen=True, slots=True)
class Matching:
    """Bounds of a text that must match a pattern.

    Attributes:
        pattern: regular expression for the whole text.
        words: the pattern in words, for messages.
    """

    pattern: str
    words: str

    def holds(self, value: Any) -> bool:
        """Whether a text matches."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.words


Share = Annotated[float, Range(0, 1)]
Device = Annotated[str, Matching(r"cpu|cuda(:\d+)?", "cpu, cuda or cuda:N")]


def check(settings: Any) -> None:
    """Check that the values of an instance are allowed by its annotations; for `__post_init__`.

    Raises:
        ValueError: a value is not allowed; names each bad key, its value and what is allowed.
    """
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    if problems := _problems(type(settings), values, ""):
        raise ValueError("\n".join(problems))


def build(cls: type[T], values: Mapping[str, Any], default: T | None = None) -> T:
    """Make an instance from plain values: a mapping for a dataclass, a list for a tuple.

    A single word is accepted for a list of one word.

    Args:
        cls: a dataclass, which may contain others.
        values: values by name.
        default: an instance that gives missing values; None takes the defaults of the class.

    Raises:
        ValueError: a key is unknown or missing, or its value is not allowed; names each such key
            with its groups.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"settings must be keys with values, but {_given(values)} was given")
    problems: list[str] = []
    made = _built(cls, values, default, "", problems)
    if made is _NOT_MADE:
        raise ValueError("\n".join(problems))
    found: T = made
    return found


def annotations_of(cls: Any) -> dict[str, Any]:
    """Resolved annotations of a dataclass, by name of the field."""
    return {name: hint for name, hint in _hints(cls).items() if name in _names(cls)}


def default_of(field: Field[Any]) -> Any:
    """Default of a field; `MISSING` if a value must be given."""
    if field.default is not MISSING or field.default_factory is MISSING:
        return field.default
    return field.default_factory()


def allowed(kind: Any) -> str:
    """Values that an annotation allows, in words, for example "a number, 0 to 1, or null"."""
    words = ", or ".join(_words(option) for option in options(kind))
    return words + (", or null" if nullable(kind) else "")


def options(kind: Any) -> list[Any]:
    """Members of a union without None; for another annotation a list of itself."""
    if get_origin(kind) in (Union, types.UnionType):
        return [option for option in get_args(kind) if option is not type(None)]
    return [kind]


def nullable(kind: Any) -> bool:
    """Whether an annotation allows None."""
    return type(None) in get_args(kind)


def choices(kind: Any) -> list[str]:
    """Values of all `Literal`s in an annotation, as text."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [word for part in get_args(kind) for word in choices(part)]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to one, by dotted key; an empty mapping is kept as a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def flat_settings(settings: Any) -> dict[str, Any]:
    """Values of a settings instance by dotted key, in types of JSON."""
    return flat(json.loads(json.dumps(asdict(settings))))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the keys whose values differ, one line each with both values.

    A missing key is equal to null.

    Args:
        before: values of the folder, by dotted key.
        now: current values, by dotted key.
    """
    return [
        f"{key}: {_shown(before, key)} in the folder, {_shown(now, key)} now"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], default=str) if key in values else _NOTHING


@lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


@lru_cache(maxsize=256)
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _problems(cls: type, values: Mapping[str, Any], prefix: str) -> list[str]:
    """A line for each value that the annotation of its field does not allow."""
    return [
        f"{prefix}{name}: {_given(value)} was given, allowed is {allowed(kind)}{_hint(kind, value)}"
        for name, kind in annotations_of(cls).items()
        if name in values and not _fits(kind, value := values[name])
    ]


def _built(
    cls: Any, values: Mapping[str, Any], default: Any, prefix: str, problems: list[str]
) -> Any:
    """Make an instance; on errors add them to `problems` and return `_NOT_MADE`."""
    known, before = annotations_of(cls), len(problems)
    for name in sorted(set(values) - set(known)):
        problems.append(f"{prefix}{name}: unknown; known are {', '.join(known)}")
    made: dict[str, Any] = {}
    for field in fields(cls):
        name, kind = field.name, known[field.name]
        standard = default_of(field) if default is None else getattr(default, name)
        if is_dataclass(kind) and isinstance(given := values.get(name, {}), Mapping):
            nested = None if standard is MISSING else standard
            made[name] = _built(kind, given, nested, f"{prefix}{name}.", problems)
        elif name in values:
            made[name] = _converted(kind, values[name])
        elif standard is MISSING:
            problems.append(f"{prefix}{name} is missing; give {prefix}{name}=…")
        else:
            made[name] = standard
    # Errors of nested groups are in `problems` already.
    plain = {name: value for name, value in made.items() if value is not _NOT_MADE}
    problems += _problems(cls, plain, prefix)
    if len(problems) > before:
        return _NOT_MADE
    try:
        return cls(**made)
    except ValueError as error:
        problems.append(str(error))
        return _NOT_MADE


def _fits(kind: Any, value: Any) -> bool:
    """Whether an annotation allows a value."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _fits(arguments[0], value) and all(rule.holds(value) for rule in arguments[1:])
    if origin in (Union, types.UnionType):
        return any(_fits(option, value) for option in arguments)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(_fits, arguments, value))
        return all(_fits(arguments[0], item) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value == value
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _converted(kind: Any, value: Any) -> Any:
    """Convert a plain value to the type of its annotation; a value that does not fit stays."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _converted(arguments[0], value)
    if origin in (Union, types.UnionType):
        if _fits(kind, value):
            return value
        tried = (_converted(option, value) for option in arguments)
        return next((made for made in tried if _fits(kind, made)), value)
    if origin is tuple and isinstance(value, list | tuple):
        items = arguments if arguments[-1] is not Ellipsis else [arguments[0]] * len(value)
        if len(items) != len(value):
            return tuple(value)
        return tuple(map(_converted, items, value))
    if origin is tuple and isinstance(value, str) and re.fullmatch(r"\w+", value):
        return (value,)
    if origin is Literal and value is False and "off" in arguments:
        return "off"  # YAML reads this word as a truth value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _words(kind: Any, rules: str = "") -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        forms = [rule.words for rule in arguments[1:] if isinstance(rule, Matching)]
        return forms[0] if forms else _words(arguments[0], "".join(f", {r}" for r in arguments[1:]))
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in arguments)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        return f"a list{count}{rules}, each {allowed(arguments[0])}"
    if is_dataclass(kind):
        return f"a group of {', '.join(annotations_of(kind))}"
    return _WORDS[kind] + rules


def _given(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    return json.dumps(value, default=str)


def _hint(kind: Any, value: Any) -> str:
    """A hint with the allowed word most similar to the given one; empty if there is none."""
    given = value if isinstance(value, tuple) else (value,)
    words = choices(kind)
    for word in given:
        if isinstance(word, str) and word not in words:
            near = difflib.get_close_matches(word, words, 1)
            return f"; did you mean {near[0]}?" if near else ""
    return ""
