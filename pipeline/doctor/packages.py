"""Python and the packages: as pyproject.toml asks, and as requirements.lock pins them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from model.shipped import shipped
from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import Finding, ok, problem, warning

_PROJECT = "vsdmot"
_OLDEST = (3, 11)
_INSTALL = "install again: make setup, or pip install --upgrade vsdmot"


def check_packages(config: DoctorConfig) -> Iterable[Finding]:
    """The version of Python, and the packages that are required, locked and optional."""
    yield _python(sys.version_info[:2])
    try:
        asked = [Requirement(text) for text in requires(_PROJECT) or ()]
    except PackageNotFoundError:
        yield problem("packages", f"{_PROJECT} is not installed in {sys.prefix}", _INSTALL)
        return
    needed = [each for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]
    yield required(needed)
    yield from _extras([each for each in asked if each not in needed])
    lock = shipped("requirements.lock")
    if lock.is_file():
        yield locked(pins(lock), lock)


def _python(found: tuple[int, ...]) -> Finding:
    name = f"Python {platform.python_version()} in {sys.prefix}"
    if found < _OLDEST:
        return problem("python", name, "install Python 3.11 or newer, then make setup PYTHON=…")
    return ok("python", name)


def required(asked: Iterable[Requirement]) -> Finding:
    """Whether packages are there in versions that are allowed."""
    wrong = {}
    count = 0
    for one in asked:
        count += 1
        found = installed(one.name)
        if found is None:
            wrong[one.name] = "missing"
        elif not one.specifier.contains(found, prereleases=True):
            wrong[one.name] = f"{found}, wanted {one.specifier}"
    if wrong:
        text = "; ".join(f"{name}: {what}" for name, what in wrong.items())
        return problem("packages", text, _INSTALL)
    return ok("packages", f"all {count} that are needed, in versions that are allowed")


def _extras(asked: Iterable[Requirement]) -> Iterator[Finding]:
    missing: dict[str, list[str]] = {}
    for one in asked:
        extra = str(one.marker).rpartition("==")[2].strip(" '\"")
        if installed(one.name) is None:
            missing.setdefault(extra, []).append(one.name)
    if missing:
        text = "; ".join(f"{extra}: {', '.join(names)}" for extra, names in missing.items())
        yield warning(
            "extras",
            f"missing of the optional packages: {text}",
            f"tracking needs none of them; pip install '{_PROJECT}[EXTRA]' adds one",
        )
    else:
        yield ok("extras", "all optional packages are there")


def locked(pinned: Mapping[str, str], lock: Path) -> Finding:
    """Whether installed packages have the versions that the project is tested with."""
    other = {
        name: found
        for name, wanted in pinned.items()
        if (found := installed(name)) is not None and found.partition("+")[0] != wanted
    }
    if other:
        text = ", ".join(f"{name} {found} (not {pinned[name]})" for name, found in other.items())
        return warning(
            "lock", f"other versions than in {lock.name}: {text}", "make setup installs those"
        )
    return ok("lock", f"the versions of {lock.name}")


def pins(lock: Path) -> dict[str, str]:
    """Versions by package in a lock file."""
    found: dict[str, str] = {}
    for line in lock.read_text().splitlines():
        try:
            one = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:  # an option, or an empty line
            continue
        if one.marker is None or one.marker.evaluate():
            for each in one.specifier:
                found[canonicalize_name(one.name)] = each.version.partition("+")[0]
    return found


def installed(name: str) -> str | None:
    """Version of an installed package, None if it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
