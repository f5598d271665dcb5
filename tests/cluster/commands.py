"""The files of configs/cluster, and the commands of vsdmot in them."""

import json
import re
import shlex
import tomllib
from importlib import import_module

import yaml

from jobs.cli import parse_config
from jobs.commands import COMMANDS
from tests import ROOT

CLUSTER = ROOT / "configs" / "cluster"
DOCKERFILE = CLUSTER / "docker" / "Dockerfile"
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
AWS = CLUSTER / "aws" / "cluster.yaml"
SLURM = CLUSTER / "slurm" / "track.sbatch"
UNIT = CLUSTER / "box" / "vsdmot-track.service"
COMPOSE = CLUSTER / "team" / "compose.yaml"

_COMMAND = re.compile(r"\bvsdmot (?:track|status) [^&\n]*?(?=\"?$| &)", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?\w+\}?")


def load(path):
    return yaml.safe_load(path.read_text())


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked():
    """Version of each package in requirements.lock."""
    pins = (line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines())
    return {name.partition("[")[0]: version.split()[0] for name, version in pins}


def words(path):
    """The commands of vsdmot that a file runs or tells to run, each as its words."""
    if path in KUBERAY:
        return [shlex.split(load(path)["spec"]["entrypoint"])]
    if path == DOCKERFILE:
        checks = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", path.read_text(), re.MULTILINE)
        return [json.loads(check) for check in checks]
    if path == COMPOSE:
        return [["vsdmot", *load(path)["services"]["track"]["command"]]]
    # A command may go on in the next line, also within a comment.
    text = re.sub(r"\\\n(?:# +)?", " ", path.read_text())
    return [shlex.split(found) for found in _COMMAND.findall(text)]


def settings(command):
    """The settings that a command builds; variables of a shell stand for any text."""
    assert command[0] == "vsdmot"
    given = [_VARIABLE.sub("/x", word) for word in command[2:]]
    module, _, name = COMMANDS[command[1]].settings.partition(":")
    return parse_config(getattr(import_module(module), name), given)
