"""Settings: what annotations allow, and instances made from plain values."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.settings import (
    Matching,
    NotEmpty,
    Range,
    Share,
    allowed,
    build,
    check,
    differences,
    flat,
)

Even = Annotated[int, Range(2, 64, multiple_of=2)]


@dataclass(frozen=True, slots=True)
class Wheel:
    size: Even = 16
    kinds: Annotated[tuple[Literal["road", "sand"], ...], NotEmpty()] = ("road",)
    span: tuple[Even, Even] | None = None

    def __post_init__(self):
        check(self)
        if self.size == 64 and self.kinds == ("sand",):
            raise ValueError("kinds: sand wheels of 64 break")


@dataclass(frozen=True, slots=True)
class Car:
    name: str
    load: Share = 0.5
    speed: Annotated[float, Range(0, 9, above=True, below=True)] = 1.0
    workers: Annotated[int, Range(0)] | tuple[int, int] | None = None
    front: Wheel = Wheel(size=8)
    back: Wheel = Wheel()

    def __post_init__(self):
        check(self)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (bool, "true or false"),
        (Annotated[int, Range(1, 256)], "a whole number, 1 to 256"),
        (Annotated[float, Range(0, above=True)] | None, "a number, more than 0, or null"),
        (Annotated[float, Range(high=3)], "a number, at most 3"),
        (Even, "a whole number, 2 to 64, a multiple of 2"),
        (Annotated[float, Range(0, float("inf"), below=True)], "a number, 0 or more"),
        (tuple[str, ...], "a list, each text"),
        (Annotated[tuple[int, ...], NotEmpty()], "a list, not empty, each a whole number"),
        (tuple[Even, Even], "a list of 2, each a whole number, 2 to 64, a multiple of 2"),
        (Literal["a", "b"], "one of a, b"),
        (Annotated[str, Matching("x+", "some x")], "some x"),
    ],
)
def test_what_is_allowed_in_words(kind, words):
    assert allowed(kind) == words


@given(st.builds(Car, st.text(), back=st.builds(Wheel, st.sampled_from([2, 4, 64]))))
def test_plain_values_give_the_same_settings_again(car):
    assert build(Car, json.loads(json.dumps(asdict(car)))) == car


def test_what_is_not_given_is_as_the_group_has_it_there():
    car = build(Car, {"name": "a", "front": {"kinds": "sand"}, "load": 1, "workers": [1, 2]})
    assert car == Car("a", 1.0, workers=(1, 2), front=Wheel(8, ("sand",)))
    assert isinstance(car.load, float)
    assert build(Wheel, {"size": 4}, Wheel(8, span=(2, 4))) == Wheel(4, span=(2, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"load": 1.5}, "load: 1.5 was given, allowed is a number, 0 to 1"),
        ({"load": float("nan")}, "load: NaN was given"),
        ({"load": True}, "load: true was given"),
        ({"load": "half"}, "load: half was given"),
        ({"speed": 0}, "speed: 0.0 was given, allowed is a number, more than 0, less than 9"),
        ({"workers": -1}, "workers: -1 was given"),
        ({"workers": [1, 2, 3]}, r"workers: \[1, 2, 3\] was given"),
        ({"front": {"size": 7}}, "front.size: 7 was given, .* a multiple of 2"),
        ({"front": {"size": 8.5}}, "front.size: 8.5 was given, allowed is a whole number"),
        ({"back": {"kinds": ["raod"]}}, r"back.kinds: \[\"raod\"\] .* did you mean road\?"),
        ({"back": {"kinds": []}}, r"back.kinds: \[\] was given"),
        ({"back": {"span": [2, 3]}}, r"back.span: \[2, 3\] was given"),
        ({"back": {"size": 64, "kinds": ["sand"]}}, "sand wheels of 64 break"),
        ({"back": 3}, "back: 3 was given, allowed is a group of size, kinds, span"),
        ({"back": {"siz": 3}}, "back.siz: unknown; known are size, kinds, span"),
        ({"name": None}, "name: null was given, allowed is text"),
    ],
)
def test_a_bad_value_is_named_with_its_group_and_what_is_allowed(values, message):
    with pytest.raises(ValueError, match=message):
        build(Car, {"name": "a", **values})


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ValueError, match="name is missing") as told:
        build(Car, {"load": 2, "front": {"size": 3}, "back": {"size": 5}})
    assert len(str(told.value).splitlines()) == 4


def test_an_instance_holds_its_annotations_too():
    with pytest.raises(ValueError, match="size: 3 was given, allowed is"):
        Wheel(3)
    with pytest.raises(ValueError, match="size: 66 was given"):
        replace(Wheel(), size=66)


def test_differences_name_both_values_and_take_a_missing_key_for_null():
    before, now = {"a": {"b": 1, "c": None}, "d": [1]}, {"a": {"b": 2}, "d": [1], "e": {}}
    assert differences(flat(before), flat(now)) == [
        "a.b: 1 in the folder, 2 now",
        "e: nothing in the folder, {} now",
    ]


def test_off_is_a_word_where_it_is_one_of_the_choices():
    @dataclass(frozen=True)
    class Switch:
        skip: Literal["auto", "off"] = "auto"
        plain: Literal["auto", "none"] = "auto"

    assert build(Switch, {"skip": False}).skip == "off"
    with pytest.raises(ValueError, match="plain: false was given"):
        build(Switch, {"plain": False})
