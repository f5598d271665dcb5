"""The reliability plot: how often tracks of a trust are right."""

from __future__ import annotations

import io
from collections.abc import Mapping

from pipeline.benchmark.trust.calibration import Calibration


def reliability_plot(found: Mapping[str, Calibration]) -> bytes:
    """A plot as SVG, with a line for each group of tracks. A dot is a bin of equal numbers.

    Args:
        found: By name of the group.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfect")
    for (name, each), marker in zip(found.items(), "os^Dv", strict=False):
        label = f"{name}: {each.count} tracks, error {each.error:.3f}"
        axes.plot(each.bins[:, 0], each.bins[:, 1], marker=marker, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="trust", ylabel="share of tracks that are right")
    axes.set_aspect("equal")
    axes.legend(loc="upper left", fontsize="small")
    sink = io.BytesIO()
    # Without a date and with fixed names of elements, so that equal plots are equal files.
    with matplotlib.rc_context({"svg.hashsalt": "vsdmot"}):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()
