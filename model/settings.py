"""Settings: frozen dataclasses whose annotations say what a value may be.

    @dataclass(frozen=True, slots=True)
    class DecodeConfig:
        window: Annotated[int, Range(1, 256)] = 8

        def __post_init__(self) -> None:
            check(self)

`check` holds an instance to its annotations. `build` makes one, with those inside it, from plain
values such as JSON gives; the command line and `jobs.train --resolved` both come here. Only the
standard library is needed.
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
        above, below: whether `low` and `high` themselves are out of bounds.
        multiple_of: the value is a multiple of this.
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
    """A text or a list with something in it."""

    def holds(self, value: Any) -> bool:
        """Whether there is something in it."""
        return len(value) > 0

    def __str__(self) -> str:
        return "not empty"


@dataclass(frozen=True, slots=True)
class Matching:
    """A text of a form.

    Attributes:
        pattern: regular expression for all of it.
        words: the form in words.
    """

    pattern: str
    words: str

    def holds(self, value: Any) -> bool:
        """Whether a text has the form."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.words


Share = Annotated[float, Range(0, 1)]
Device = Annotated[str, Matching(r"cpu|cuda(:\d+)?", "cpu, cuda or cuda:N")]


def check(settings: Any) -> None:
    """Hold an instance to its annotations; for `__post_init__`.

    Raises:
        ValueError: names each bad key, what was given and what is allowed.
    """
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    if problems := _problems(type(settings), values, ""):
        raise ValueError("\n".join(problems))


def build(cls: type[T], values: Mapping[str, Any], default: T | None = None) -> T:
    """Make an instance from plain values: a mapping for a dataclass, a list for a tuple.

    A single word stands for a list of one word.

    Args:
        cls: a dataclass, nested as it likes.
        values: by name; what is missing is as `default` has it, or as the class has it.
        default: an instance.

    Raises:
        ValueError: names each key that is unknown, missing or bad, with the groups it is in.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"settings are keys with values, got {_given(values)}")
    problems: list[str] = []
    made = _built(cls, values, default, "", problems)
    if made is _NOT_MADE:
        raise ValueError("\n".join(problems))
    found: T = made
    return found


def annotations_of(cls: Any) -> dict[str, Any]:
    """The annotations of a dataclass, resolved, by the name of the field."""
    return {name: hint for name, hint in _hints(cls).items() if name in _names(cls)}


def default_of(field: Field[Any]) -> Any:
    """The value of a field that is not given; `MISSING` where one has to be."""
    if field.default is not MISSING or field.default_factory is MISSING:
        return field.default
    return field.default_factory()


def allowed(kind: Any) -> str:
    """What an annotation allows in words, for example "a number, 0 to 1, or null"."""
    words = ", or ".join(_words(option) for option in options(kind))
    return words + (", or null" if nullable(kind) else "")


def options(kind: Any) -> list[Any]:
    """The annotations that a union is made of, but for None; any other one alone."""
    if get_origin(kind) in (Union, types.UnionType):
        return [option for option in get_args(kind) if option is not type(None)]
    return [kind]


def nullable(kind: Any) -> bool:
    """Whether None is a value of an annotation."""
    return type(None) in get_args(kind)


def choices(kind: Any) -> list[str]:
    """All words of the `Literal`s in an annotation."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [word for part in get_args(kind) for word in choices(part)]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted key; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def flat_settings(settings: Any) -> dict[str, Any]:
    """The values of a settings instance by dotted key, as JSON has them."""
    return flat(json.loads(json.dumps(asdict(settings))))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the keys whose values differ, with both, a line each; a missing key is a null.

    Args:
        before: by dotted key, as read from a folder.
        now: by dotted key.
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
    """What is wrong with values, each against the annotation of its field."""
    return [
        f"{prefix}{name}: {_given(value)} was given, allowed is {allowed(kind)}{_hint(kind, value)}"
        for name, kind in annotations_of(cls).items()
        if name in values and not _fits(kind, value := values[name])
    ]


def _built(
    cls: Any, values: Mapping[str, Any], default: Any, prefix: str, problems: list[str]
) -> Any:
    """An instance, or `_NOT_MADE` with what is wrong added to `problems`."""
    known, before = annotations_of(cls), len(problems)
    for name in sorted(set(values) - set(known)):
        problems.append(f"{prefix}{name}: unknown; known are {', '.join(known)}")
    made: dict[str, Any] = {}
    for field in fields(cls):
        name, kind = field.name, known[field.name]
        usual = default_of(field) if default is None else getattr(default, name)
        if is_dataclass(kind) and isinstance(given := values.get(name, {}), Mapping):
            nested = None if usual is MISSING else usual
            made[name] = _built(kind, given, nested, f"{prefix}{name}.", problems)
        elif name in values:
            made[name] = _converted(kind, values[name])
        elif usual is MISSING:
            problems.append(f"{prefix}{name} is missing; give {prefix}{name}=…")
        else:
            made[name] = usual
    # A group that could not be made is told of already.
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
    """Whether a value is one of an annotation's."""
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
    """A plain value as its annotation has it; one that is none of its values as it is."""
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
    """The allowed word nearest to the one that was given."""
    given = value if isinstance(value, tuple) else (value,)
    words = choices(kind)
    for word in given:
        if isinstance(word, str) and word not in words:
            near = difflib.get_close_matches(word, words, 1)
            return f"; did you mean {near[0]}?" if near else ""
    return ""
