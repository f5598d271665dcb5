"""HTML of pages from templates; what comes from tables and settings is escaped."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pipeline.storage.secrets import mask_secrets

ASSETS = ("style.css", "common.js", "table.js", "boxes.js", "player.js", "timeline.js", "tracks.js",
          "video.js")  # fmt: skip
"""Files that all pages of a report share."""


def render(template: str, **values: Any) -> bytes:
    """A page as UTF-8."""
    return _environment().get_template(template).render(values).encode()


def asset(name: str) -> bytes:
    """A file that all pages share."""
    return files("pipeline.report").joinpath("assets", name).read_bytes()


def clock(seconds: float | None) -> str:
    """A time in a video, as 1:02:03.4 or 2:03.4."""
    if seconds is None:
        return "unknown"
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{rest // 10:02d}.{rest % 10}"


def lasting(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def people(number: int) -> str:
    """A number of people."""
    return "1 person" if number == 1 else f"{number:,} people"


def money(value: float) -> str:
    """An amount with cents, or with three digits that count where it is less than one."""
    return f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.3g}"


def size(number: int) -> str:
    """A number of bytes."""
    value = float(number)
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": clock,
        "lasting": lasting,
        "money": money,
        "people": people,
        "size": size,
        "whole": lambda n: f"{n:,.0f}",
        "percent": lambda share: f"{100 * share:.0f} %",
        "quality": lambda value: "unknown" if value is None else f"{value:.2f}",
        "masked": mask_secrets,
    }
    return environment
