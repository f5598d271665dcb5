"""What completes a word of a command: keys of settings, their values, files.

A shell runs this for each completion, so nothing slow is imported: settings come from the modules
that hold them, without the libraries that a job runs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, get_args

from click.shell_completion import CompletionItem

from jobs.commands import Command, is_setting
from jobs.settings import Setting, settings_of
from model.settings import choices

# Types of items beside those of Click; the scripts of `jobs.shells` act on them.
_KEY = "key"  # ends in "=", so no space follows
_VALUE = "value"  # of a key, which stands before it
_VALUE_FILE = "value_file"  # the shell completes a file after "key="


def completions(
    command: Command, before: Sequence[str], incomplete: str
) -> list[CompletionItem[str]]:
    """What may stand where the cursor is, among the words of a command.

    Args:
        command: the command.
        before: complete words after its name.
        incomplete: the word at the cursor, up to the cursor.
    """
    settings = dict(settings_of(settings_class(command)))
    if is_setting(incomplete):
        key = incomplete.partition("=")[0]
        return _values(key, settings[key], incomplete) if key in settings else []
    given, left = _given(command, before)
    # In the order of the help.
    keys = dict.fromkeys([*command.words, *command.common, *settings])
    items = [
        CompletionItem(f"{key}=", _KEY, settings[key].meaning)
        for key in keys
        if key not in given and key.startswith(incomplete)
    ]
    return [*items, CompletionItem(incomplete, "file")] if left else items


def settings_class(command: Command) -> Any:
    """The dataclass of a command's settings."""
    module, _, name = command.settings.partition(":")
    return getattr(import_module(module), name)


def _values(key: str, setting: Setting, incomplete: str) -> list[CompletionItem[str]]:
    words = ["true", "false"] if setting.takes(bool) else choices(setting.kind)
    if words:
        words = [*words, "null"] if setting.nullable else words
        texts = [f"{key}={word}" for word in words]
        return [CompletionItem(text, _VALUE) for text in texts if text.startswith(incomplete)]
    return [CompletionItem(incomplete, _VALUE_FILE)] if _takes_text(setting.kind) else []


def _takes_text(kind: Any) -> bool:
    """Whether text is allowed, alone or in a list; a name of a file is text."""
    return kind is str or any(map(_takes_text, get_args(kind)))


def _given(command: Command, words: Sequence[str]) -> tuple[set[str], bool]:
    """The keys that words give, and whether another word may be given by position."""
    given, positions = set(), list(command.words)
    remaining = iter(words)
    for word in remaining:
        if word == "--config":
            next(remaining, None)
        elif is_setting(word):
            given.add(word.partition("=")[0])
        elif positions and not word.startswith("-"):
            given.add(positions.pop(0))
    return given, bool(positions)
