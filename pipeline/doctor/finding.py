"""What a check finds, and what a check is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.doctor.config import DoctorConfig

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor.

    Attributes:
        name: What was looked at.
        state: problem: a run fails or is wrong. warning: a run works, but something is slower or
            missing.
        found: What was found.
        remedy: What to do; "" if nothing.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


class Check(Protocol):
    """A check. It may raise, crash or hang: it runs in a process of its own, for a limited time."""

    def __call__(self, config: DoctorConfig) -> Iterable[Finding]:
        """Look, and say what was found."""


def ok(name: str, found: str) -> Finding:
    """A finding that is as it should be."""
    return Finding(name, "ok", found)


def warning(name: str, found: str, remedy: str) -> Finding:
    """A finding that a run works with."""
    return Finding(name, "warning", found, remedy)


def problem(name: str, found: str, remedy: str) -> Finding:
    """A finding that has to be changed before a run."""
    return Finding(name, "problem", found, remedy)
