"""Commands of a shell block, as calls of jobs where they are calls of jobs.

`vsdmot`, `make` and `python -m jobs.NAME` become a job with its arguments, which is run in this
process or whose settings are checked. Of `make`, the recipe says which jobs it calls.
"""

import re
import shlex
import subprocess
from dataclasses import dataclass
from string import Template

from jobs.cli import parse_config
from jobs.commands import COMMANDS, command_of, is_setting
from jobs.completion import settings_class
from tests import ROOT, environment_for_make

_VSDMOT = ("vsdmot", ".venv/bin/vsdmot")
_PYTHON = ("python", "python3", ".venv/bin/python")


@dataclass(frozen=True)
class Call:
    """A job with its arguments; `job` is empty for any other command, which has `line`."""

    job: str
    arguments: tuple[str, ...]
    line: str

    def config(self):
        """The settings of the job, checked; None if the job is no command of vsdmot."""
        named = command_of(self.job)
        if named is None:
            return None
        return parse_config(settings_class(named[1]), self.arguments)


def calls(text: str) -> list[Call]:
    """The commands of a block, in order."""
    found = []
    for line in _joined(text):
        words = shlex.split(line, comments=True)
        if words:
            found += _calls(words, line)
    return found


def _calls(words: list[str], line: str) -> list[Call]:
    program, *rest = words
    if program in _VSDMOT and rest and rest[0] in COMMANDS:
        return [Call(COMMANDS[rest[0]].job, tuple(rest[1:]), line)]
    if program in _VSDMOT and rest and rest[0].startswith("-"):
        return [Call("__main__", tuple(rest), line)]
    if program in _VSDMOT and rest:
        raise ValueError(f"{line}: vsdmot has no command {rest[0]}")
    if program in _PYTHON and rest[:1] == ["-m"] and rest[1].startswith("jobs."):
        return [Call(rest[1].removeprefix("jobs."), tuple(rest[2:]), line)]
    if program == "make":
        return [Call(job, tuple(arguments), line) for job, *arguments in _recipe(rest)] or [
            Call("", (), "true")
        ]
    return [Call("", (), line)]


def _recipe(words: list[str]) -> list[list[str]]:
    """Each job that make would call, with its arguments. Nothing is run."""
    make = ["make", "-s", "-n", "-o", ".venv/.stamp", *words]
    shown = subprocess.run(
        make, cwd=ROOT, env=environment_for_make(), capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, f"{shlex.join(make)}: {shown.stderr}"
    given = dict(word.split("=", 1) for word in words if is_setting(word))
    given["VSDMOT_DATA"] = given.get("DATA", "")
    jobs = []
    for line in _joined(shown.stdout):
        if "-m jobs." in line:
            called = shlex.split(line.partition("||")[0])
            job, *rest = called[called.index("-m") + 1 :]
            jobs.append([job.removeprefix("jobs."), *(Template(w).substitute(given) for w in rest)])
    return jobs


def _joined(text: str) -> list[str]:
    """Lines, each with those that continue it."""
    return re.sub(r"\\\n\s*", " ", text).splitlines()


def needs_help(call: Call) -> bool:
    """Whether a call only asks for help."""
    return bool({"--help", "-h"} & {word for word in call.arguments if not is_setting(word)})
