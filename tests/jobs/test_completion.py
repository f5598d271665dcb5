"""Completion of `vsdmot`: what is offered, and that bash and zsh put it on their line."""

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import tty

import pytest

from jobs.commands import COMMANDS
from jobs.completion import completions, settings_class
from jobs.settings import settings_of
from jobs.shells import Bash
from tests import ROOT


def offered(name, *words):
    """Values of the items for the last word."""
    return [item.value for item in completions(COMMANDS[name], words[:-1], words[-1])]


# What is offered


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_names_the_settings_of_its_job(name):
    assert settings_class(COMMANDS[name]).job == COMMANDS[name].job


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_is_offered_once_common_ones_first(name):
    command = COMMANDS[name]
    keys = [key.removesuffix("=") for key in offered(name, "") if key]
    first = [*command.words, *command.common]
    assert keys[: len(first)] == first
    assert sorted(keys) == sorted(dict(settings_of(settings_class(command))))


def test_keys_bring_their_meanings():
    (item,) = completions(COMMANDS["train"], ["a", "b"], "training.minu")
    assert (item.type, item.value) == ("key", "training.minutes=")
    assert (
        item.help
        == dict(settings_of(settings_class(COMMANDS["train"])))["training.minutes"].meaning
    )


def test_keys_that_were_given_are_not_offered_again():
    keys = offered("track", "/in", "weights=a", "")
    assert "output=" in keys
    assert not {"input=", "weights="} & set(keys)


def test_files_are_offered_while_words_may_be_given_by_position():
    def types(*words):
        return {item.type for item in completions(COMMANDS["track"], words[:-1], words[-1])}

    assert types("") == {"key", "file"}
    assert types("--config", "my.yaml", "weights=a", "/in", "/a=b/") == {"file"}
    assert types("/in", "/out", "") == {"key"}


@pytest.mark.parametrize(
    ("name", "word", "values"),
    [
        ("track", "mlflow.enabled=", ["mlflow.enabled=true", "mlflow.enabled=false"]),
        ("track", "mlflow.enabled=f", ["mlflow.enabled=false"]),
        ("measure", "what=s", ["what=semantics", "what=still", "what=split"]),
        ("measure", "kinds=noi", ["kinds=noise"]),  # a list, which one word may stand for
        ("train", "training.minutes=", []),
        ("track", "no_key=", []),
    ],
)
def test_values_are_those_that_the_setting_allows(name, word, values):
    assert offered(name, word) == values


@pytest.mark.parametrize("word", ["weights=", "weights=my", "trackers=", "baseline="])
def test_values_of_text_are_files(word):
    (item,) = completions(COMMANDS["eval"], [], word)
    assert (item.type, item.value) == ("value_file", word)


@pytest.mark.parametrize(
    ("line", "words", "incomplete"),
    [
        ("vsdmot ", [], ""),
        ("vsdmot tr", [], "tr"),
        ("vsdmot track 'my videos' weights=a", ["track", "my videos"], "weights=a"),
        ("vsdmot track my\\ ", ["track"], "my "),
        ('vsdmot track "my vi', ["track"], "my vi"),
    ],
)
def test_words_are_those_of_the_line(line, words, incomplete, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    shell = Bash(None, {}, "vsdmot", "_VSDMOT_COMPLETE")
    assert shell.get_completion_args() == (words, incomplete)


def test_nothing_slow_is_imported():
    code = """
import sys
from jobs.__main__ import main
from jobs.commands import COMMANDS
try:
    main()
except SystemExit as leaving:
    assert leaving.code == 0
print(*sorted({f"jobs.{c.job}" for c in COMMANDS.values()} & sys.modules.keys()))
from jobs.completion import completions
for command in COMMANDS.values():
    assert completions(command, [], "")
print(*sorted({"torch", "ray", "mlflow", "pandas"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "COMP_LINE": "vsdmot tr", "_VSDMOT_COMPLETE": "bash_complete"},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["plain,track", "plain,train", "", ""]


# The shells


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a few files, `vsdmot` in bin/ and the scripts of both shells."""
    folder = tmp_path_factory.mktemp("place")
    program = folder / "bin" / "vsdmot"
    program.parent.mkdir()
    python = shlex.join(["exec", sys.executable, "-m", "jobs"])
    program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} {python} "$@"\n')
    program.chmod(0o755)
    for name in ("my weights.safetensors", "low.mp4", "config.yaml"):
        (folder / name).touch()
    (folder / "low videos").mkdir()
    for shell in ("bash", "zsh"):
        done = subprocess.run(
            [program], env={**os.environ, "_VSDMOT_COMPLETE": f"{shell}_source"},
            capture_output=True, check=True,
        )  # fmt: skip
        (folder / f"{shell}.sh").write_bytes(done.stdout)
    return folder


def environment(place):
    return {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PS1": "$ ",
        "TERM": "dumb",
    }


def bash_reply(place, line):
    """What bash's function for `vsdmot` replies to a line, and the options that it sets."""
    words = re.findall(r"=|[^\s=]+", line) + [""] * line.endswith((" ", "="))
    script = f"""
source bash.sh
compopt() {{ echo "option $2"; }}
COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
_vsdmot_completion vsdmot {shlex.quote(words[-1])} {shlex.quote(words[-2])}
printf 'reply %s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=place, env=environment(place), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert not done.stderr
    found = [each.split(" ", 1) for each in done.stdout.splitlines()]
    return [text for kind, text in found if kind == "reply" and text], {
        text for kind, text in found if kind == "option"
    }


def test_bash_offers_commands(place):
    assert bash_reply(place, "vsdmot ") == (list(COMMANDS), set())
    assert bash_reply(place, "vsdmot tr") == (["track", "train"], set())


def test_bash_offers_keys_by_prefix(place):
    keys, options = bash_reply(place, "vsdmot train /in /out training.m")
    assert keys == [
        f"{key}=" for key, _ in settings_of(settings_class(COMMANDS["train"]))
        if key.startswith("training.m")
    ]  # fmt: skip
    assert "training.minutes=" in keys
    assert options == {"nospace"}


def test_bash_offers_values_without_their_key(place):
    assert bash_reply(place, "vsdmot track mlflow.enabled=") == (["true", "false"], set())
    assert bash_reply(place, "vsdmot measure what=se") == (["semantics"], set())


def test_bash_leaves_files_to_readline(place):
    assert bash_reply(place, "vsdmot track weights=my") == ([], {"default"})
    assert bash_reply(place, "vsdmot track --config co") == ([], {"default"})


def test_bash_offers_files_beside_keys(place):
    found, _ = bash_reply(place, "vsdmot track low")
    assert found[0] == "low_quality_below="
    assert sorted(found[1:]) == ["low.mp4", r"low\ videos/"]


def typed(shell, place, lines):
    """What an interactive shell prints while lines are typed.

    A line ends with Control-A, which goes to its start, and a `printf` there, which prints each
    word of it as <word>, on a line of its own.
    """
    start = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}[shell]
    ready = {"bash": "", "zsh": "bindkey -e; autoload -Uz compinit; compinit -u -D; "}[shell]
    first = f"{ready}source ./{shell}.sh\r"
    text = first + "".join(f"{line}\x01printf '\\n<%s>' \r" for line in lines) + "exit\r"
    ours, theirs = pty.openpty()
    tty.setraw(theirs)  # else keys that come before the shell is ready edit a line of the terminal
    with subprocess.Popen(
        [shell, *start], stdin=theirs, stdout=theirs, stderr=theirs, cwd=place,
        env=environment(place), start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, text.encode())
        printed = b""
        try:
            while piece := os.read(ours, 65536):
                printed += piece
        except OSError:  # how Linux tells that the other end was closed
            process.wait()
        finally:
            process.kill()
            os.close(ours)
    return printed.decode().replace("\r", "")


TYPED = {
    "ev\ta": ["eval", "a"],
    "train a b training.minu\t60": ["train", "a", "b", "training.minutes=60"],
    "track mlflow.enabled=t\ta": ["track", "mlflow.enabled=true", "a"],
    "track weights=my\ta": ["track", "weights=my weights.safetensors", "a"],
    "track 'my w\ta": ["track", "my weights.safetensors", "a"],
    "track low\\ \ta": ["track", "low videos/a"],
    "track --config co\ta": ["track", "--config", "config.yaml", "a"],
    "track --config=co\ta": ["track", "--config=config.yaml", "a"],
}
"""What is typed after `vsdmot`, and the words that come of it."""


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_the_line(shell, place):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    output = typed(shell, place, [f"vsdmot {keys}" for keys in TYPED])
    printed = re.findall(r"^<(.*?)>", output, re.MULTILINE)
    assert printed == [word for words in TYPED.values() for word in ("vsdmot", *words)], output


def test_zsh_shows_meanings(place):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    output = typed("zsh", place, ["vsdmot tra\t", "vsdmot track a b tracker.\t"])
    assert re.search(r"^track +-- Track the people", output, re.MULTILINE)
    assert re.search(r"^tracker\.keep_threshold= +-- least score", output, re.MULTILINE)
