"""The HTML page of a benchmark: one file without scripts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from pipeline.benchmark.moments import Moment
from pipeline.benchmark.results import DEGRADED, Results
from pipeline.degrade.conditions import CLEAN


def render_report(
    results: Results,
    text: str,
    comparisons: Mapping[str, str],
    left_out: Mapping[str, str],
    moments: Sequence[Moment],
) -> str:
    """The page as HTML. Names come from files and settings and are escaped by the template."""
    environment = Environment(
        loader=PackageLoader("pipeline.benchmark", "templates"),
        autoescape=select_autoescape(["html"]),
    )
    trackers = [
        {
            "name": tracker,
            "clean": results.estimate(tracker, CLEAN),
            "degraded": results.estimate(tracker, DEGRADED),
            "fps": results.estimate(tracker, CLEAN, "frames_per_second"),
        }
        for tracker in results.trackers
    ]
    return environment.get_template("eval.html").render(
        trackers=trackers,
        heat=_heat(results),
        scatter=_scatter(results),
        comparisons=comparisons,
        left_out=left_out,
        moments=moments,
        text=text,
    )


def _heat(results: Results) -> list[dict[str, Any]]:
    """For each tracker a grid kind x severity of HOTA; the colour is its share of clean HOTA."""
    found = []
    degraded = [row for row in results.rows if row["condition"] != CLEAN]
    kinds = list(dict.fromkeys(row["kind"] for row in degraded))
    severities = sorted({row["severity"] for row in degraded if row["severity"]})
    for tracker in results.trackers:
        clean = results.estimate(tracker, CLEAN)
        lines = []
        for kind in kinds:
            values = []
            for severity in severities or [0]:
                at = results.estimate(tracker, f"{kind}-{severity}")
                values.append(at or results.estimate(tracker, kind))
            lines.append({"kind": kind, "cells": [_coloured(v, clean) for v in values]})
        found.append({"tracker": tracker, "severities": severities, "lines": lines})
    return found if kinds else []


def _coloured(value: Any, clean: Any) -> dict[str, Any]:
    if value is None:
        return {"text": "not measured", "colour": "#eee", "drop": ""}
    if clean is None:
        return {"text": f"{value.mean:.1f}", "colour": "#eee", "drop": ""}
    kept = float(np.clip(value.mean / max(clean.mean, 1e-6), 0, 1))
    colour = f"hsl({round(120 * kept)} 60% 80%)"
    return {
        "text": f"{value.mean:.1f}",
        "colour": colour,
        "drop": f"{value.mean - clean.mean:+.1f}",
    }


def _scatter(results: Results) -> Markup:
    """HOTA of each cell of the first tracker against the quality it measured, as SVG."""
    from matplotlib.figure import Figure

    tracker = results.trackers[0]
    rows = [r for r in results.rows if r["tracker"] == tracker and r.get("quality") is not None]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        quality, hota = ([row[name] for row in mine] for name in ("quality", "hota"))
        axes.scatter(quality, hota, s=18, label=kind, color=None if kind != CLEAN else "black")
    axes.set(xlabel="measured quality of the sequence", ylabel="HOTA", xlim=(0, 1))
    if rows:
        axes.legend(fontsize=7, ncols=2)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    # Safe: matplotlib wrote it, and its only texts are names of kinds and numbers.
    return Markup(svg[svg.index("<svg") :])
