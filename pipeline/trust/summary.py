"""The table `track_summary` of one video."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from pipeline.storage.schema import TRACK_SUMMARY
from pipeline.trust.features import features
from pipeline.trust.model import TrustModel
from pipeline.trust.sums import TrackSums


def summary_table(
    video_id: str,
    sums: TrackSums,
    trust: TrustModel | None,
    seams_s: Sequence[float] = (),
    rejoined: Collection[int] = (),
) -> pa.Table:
    """A row for each track, sorted by id.

    Args:
        video_id: Of the video.
        sums: Of all its rows.
        trust: Computes the trust in the tracks; None leaves it null.
        seams_s: Times of the seams; what lies before one is of the window on its left.
        rejoined: Ids that later tracks got.
    """
    of, ids = sums.records, sums.ids
    count = of["boxes"].astype(np.float64)
    seams = np.sort(np.array(seams_s, np.float64))
    crossed = np.searchsorted(seams, of["last_s"], "right") - np.searchsorted(
        seams, of["first_s"], "right"
    )
    names = np.array([*sums.classes, ""], object)
    columns = {
        "video_id": np.full(len(ids), video_id, object),
        "track_id": ids,
        "class_name": names[of["best_class"]],
        **{name: of[name] for name in ("first_frame", "last_frame", "first_s", "last_s")},
        "length_s": of["last_s"] - of["first_s"],
        "boxes": of["boxes"],
        "path_px": of["path"],
        "net_px": np.hypot(*(of["last_middle"] - of["first_middle"]).T),
        "height_mean": of["height"] / count,
        "score_mean": of["score"] / count,
        "score_min": of["score_min"],
        "quality_mean": of["quality"] / count,
        "quality_min": of["quality_min"],
        "edge_share": of["edge"] / count,
        "overlap_mean": of["overlap"] / count,
        **{name: of[name] for name in ("gaps", "gaps_s", "gap_longest_s")},
        "seams": crossed,
        "rejoined": np.isin(ids, list(rejoined)),
        "best_frame": of["best_frame"],
        "best_s": of["best_s"],
        **{f"best_{side}": of["best_box"][:, i] for i, side in enumerate("xywh")},
        "trust": trust(features(sums)) if trust else np.full(len(ids), np.nan, np.float32),
    }
    arrays = [
        pa.array(columns[field.name], from_pandas=field.name == "trust").cast(field.type)
        for field in TRACK_SUMMARY
    ]
    return pa.Table.from_arrays(arrays, schema=TRACK_SUMMARY)
