"""Each block of README and documentation runs, or says in a comment before it why it does not.

Of a block that does not run, the settings of each command are checked all the same. The example
of each command in `vsdmot --help` is treated like a block.
"""

import json

import pytest
import yaml

from jobs.commands import COMMANDS
from tests.docs.markdown import PAGES, Block, blocks

_BLOCKS = [block for page in PAGES for block in blocks(page)]
_NO_CODE = {"text", "{toctree}"}

_EXAMPLES_NOT_RUN = {
    "train": "trains for an hour",
    "distill": "takes 5,000 steps",
    "measure": "measures the shipped student",
    "eval": "runs the shipped student",
    "bench": "measures for minutes",
    "kit-back": "needs what a borrowed machine gave back",
}
_EXAMPLES_SLOW = {"doctor", "plan"}


def _run_python(block: Block, place) -> None:
    exec(compile(place.text(block.text), str(block), "exec"), {"__name__": "block"})


def _run_sql(block: Block, place) -> None:
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.connect().execute(place.text(block.text)).fetchall()


def _run_yaml(block: Block, place) -> None:
    assert yaml.safe_load(block.text)


def _run_json(block: Block, place) -> None:
    assert json.loads(block.text)


_RUN = {
    "sh": lambda block, place: place.shell(block.text),
    "python": _run_python,
    "sql": _run_sql,
    "yaml": _run_yaml,
    "json": _run_json,
}


def _parameters(found):
    return [
        pytest.param(b, id=str(b), marks=[pytest.mark.slow] if b.mark == "slow" else [])
        for b in found
    ]


@pytest.mark.parametrize("block", _parameters(b for b in _BLOCKS if b.language in _RUN))
def test_a_block(block, place):
    """Runs, unless it is marked."""
    if block.mark == "not run":
        if block.language == "sh":
            place.check(block.text)
        pytest.skip(block.reason)
    _RUN[block.language](block, place)


def test_every_block_is_run_or_marked():
    unknown = [
        f"{b}: {b.language or 'no language'}"
        for b in _BLOCKS
        if b.language not in {*_NO_CODE, *_RUN} and b.mark != "not run"
    ]
    assert not unknown, "name a language that runs, or text: " + ", ".join(unknown)
    assert all(b.reason for b in _BLOCKS if b.mark)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in _EXAMPLES_SLOW else [])
        for name in COMMANDS
    ],
)
def test_an_example_of_help(name, place):
    example = COMMANDS[name].example
    assert example.startswith(f"vsdmot {name} ")
    if name in _EXAMPLES_NOT_RUN:
        place.check(example)
        pytest.skip(_EXAMPLES_NOT_RUN[name])
    place.shell(example)
