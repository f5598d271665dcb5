"""What is known of each track: as a plain computation over all rows finds it."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.storage.schema import TRACK_SUMMARY
from pipeline.trust.features import NAMES, features
from pipeline.trust.model import TrustModel
from pipeline.trust.summary import summary_table
from pipeline.trust.sums import TrackSums, greatest_overlap

WIDTH, HEIGHT, RATE = 640, 360, 25


def made(seed, frames=60, people=5, step=1):
    """Rows of `tracks` by frame and id, and index and quality of all frames."""
    random = np.random.default_rng(seed)
    index = 7 + step * np.arange(frames)
    quality = random.random(frames).astype(np.float32)
    at, who = np.nonzero(random.random((frames, people)) < 0.7)
    size = random.uniform(20, 120, (len(at), 2))
    corner = random.uniform(0, (WIDTH - 20, HEIGHT - 20), (len(at), 2))
    xywh = np.c_[corner, np.minimum(size, (WIDTH, HEIGHT) - corner)].astype(np.float32)
    rows = {
        "frame_index": index[at],
        "time_s": index[at] / RATE,
        "track_id": 3 * who + 1,
        **{side: xywh[:, i] for i, side in enumerate("xywh")},
        "score": random.uniform(0.3, 1, len(at)).astype(np.float32),
        "class_name": np.array(["person", "cyclist"], object)[who % 2],
    }
    return rows, index, quality


def summed(rows, index, quality, cuts=()):
    """Sums of rows that come in batches of whole frames."""
    sums = TrackSums((WIDTH, HEIGHT), index, quality)
    ends = np.searchsorted(rows["frame_index"], index[list(cuts)])
    for start, end in zip([0, *ends], [*ends, len(rows["frame_index"])], strict=True):
        sums.add({name: column[start:end] for name, column in rows.items()})
    return sums


def plain(rows, index, quality):
    """The summary of tracks, in the plainest way."""
    table = pd.DataFrame(rows)
    table["quality"] = quality[np.searchsorted(index, table.frame_index)]
    table["overlap"] = 0.0
    for _, frame in table.groupby("frame_index"):
        for i, a in frame.iterrows():
            for j, b in frame.iterrows():
                if i != j:
                    w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
                    h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
                    share = max(w, 0) * max(h, 0) / (a.w * a.h)
                    table.loc[i, "overlap"] = max(table.loc[i, "overlap"], share)
    edge = (table.x <= 3.2) | (table.y <= 1.8)
    edge |= (table.x + table.w >= WIDTH - 3.2) | (table.y + table.h >= HEIGHT - 1.8)
    table["edge"] = edge
    found = []
    for track_id, own in table.groupby("track_id"):
        place = np.searchsorted(index, own.frame_index)
        apart = np.diff(own.time_s)[np.diff(place) > 1]
        middle = np.c_[own.x + own.w / 2, own.y + own.h / 2]
        found.append(
            {
                "track_id": track_id,
                "first_frame": own.frame_index.min(),
                "last_frame": own.frame_index.max(),
                "length_s": own.time_s.max() - own.time_s.min(),
                "boxes": len(own),
                "path_px": np.hypot(*np.diff(middle, axis=0).T).sum(),
                "net_px": np.hypot(*(middle[-1] - middle[0])),
                "height_mean": own.h.mean(),
                "score_mean": own.score.mean(),
                "score_min": own.score.min(),
                "quality_mean": own.quality.mean(),
                "quality_min": own.quality.min(),
                "edge_share": own.edge.mean(),
                "overlap_mean": own.overlap.mean(),
                "gaps": len(apart),
                "gaps_s": apart.sum(),
                "gap_longest_s": apart.max(initial=0),
            }
        )
    return pd.DataFrame(found)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sets(st.integers(1, 19), max_size=4), st.sampled_from([1, 3]))
def test_summary_is_that_of_a_plain_computation(seed, cuts, step):
    rows, index, quality = made(seed, 20, 4, step)
    table = summary_table("v", summed(rows, index, quality, sorted(cuts)), None)
    assert table.schema.equals(TRACK_SUMMARY, check_metadata=True)
    wanted = plain(rows, index, quality)
    got = table.to_pandas()[wanted.columns.tolist()]
    pd.testing.assert_frame_equal(got, wanted, check_dtype=False, rtol=1e-4, atol=1e-4)
    assert table["trust"].null_count == len(table)
    assert set(table["class_name"].to_pylist()) <= {"person", "cyclist"}


def test_batches_do_not_change_what_is_found():
    rows, index, quality = made(3)
    whole = summed(rows, index, quality)
    parts = summed(rows, index, quality, range(1, 60))
    assert whole.ids.tolist() == parts.ids.tolist()
    for name in whole.records.dtype.names:
        np.testing.assert_allclose(whole.records[name], parts.records[name], rtol=1e-9)
    np.testing.assert_allclose(features(whole), features(parts), rtol=1e-9)


def test_best_box_is_large_sure_whole_and_clear():
    """Each of five boxes is the best one but for one fault; the sixth has none."""
    index, quality = np.arange(6), np.array([0.9, 0.1, 0.9, 0.9, 0.9, 0.9], np.float32)
    boxes = np.array([[100, 100, 20, 50], [100, 100, 60, 150], [100, 100, 60, 150],
                      [0, 100, 60, 150], [100, 100, 60, 150], [100, 100, 60, 150]])  # fmt: skip
    rows = {
        "frame_index": index, "time_s": index / RATE, "track_id": np.ones(6, int),
        **{side: boxes[:, i].astype(np.float32) for i, side in enumerate("xywh")},
        "score": np.array([0.9, 0.9, 0.4, 0.9, 0.9, 0.9], np.float32),
        "class_name": np.full(6, "person", object),
    }  # fmt: skip
    beside = {name: column[4:5].copy() for name, column in rows.items()} | {"track_id": [2]}
    rows = {name: np.concatenate([rows[name], beside[name]]) for name in rows}
    order = np.lexsort((rows["track_id"], rows["frame_index"]))
    rows = {name: column[order] for name, column in rows.items()}
    row = summary_table("v", summed(rows, index, quality), None).to_pylist()[0]
    assert (row["best_frame"], row["best_s"]) == (5, 0.2)
    assert [row[f"best_{side}"] for side in "xywh"] == boxes[5].tolist()


def test_a_still_track_has_no_way():
    index = np.arange(10)
    rows = {
        "frame_index": np.repeat(index, 2), "time_s": np.repeat(index / RATE, 2),
        "track_id": np.tile([1, 2], 10),
        "x": np.stack([np.full(10, 9.0), 9 + 20.0 * index], 1).ravel(),
        "y": np.tile([9.0, 200.0], 10), "w": np.full(20, 30.0), "h": np.full(20, 60.0),
        "score": np.ones(20), "class_name": np.full(20, "person", object),
    }  # fmt: skip
    sums = summed(rows, index, np.ones(10, np.float32))
    table = summary_table("v", sums, None)
    assert table["path_px"].to_pylist() == table["net_px"].to_pylist() == [0, 180]


def test_seams_and_joined_tracks_are_told():
    rows, index, quality = made(1, 50, 2)
    sums = summed(rows, index, quality)
    first, last = sums.records["first_s"][0], sums.records["last_s"][0]
    seams = [first, first + 0.1, last, last + 0.1]  # rows at the time of a seam are behind it
    table = summary_table("v", sums, None, seams, {int(sums.ids[1])})
    assert table["seams"][0].as_py() == 2
    assert table["rejoined"].to_pylist() == [False, True]


def test_no_track_is_an_empty_table():
    sums = TrackSums((WIDTH, HEIGHT), np.arange(3), np.ones(3, np.float32))
    sums.add({name: np.zeros(0) for name in ("track_id", "frame_index", *"xywh")})
    table = summary_table("v", sums, any_model())
    assert len(table) == 0 and table.schema.equals(TRACK_SUMMARY, check_metadata=True)


def any_model(**changes):
    ones = (1.0,) * len(NAMES)
    values = {
        "weights_sha256": "a" * 64,
        "thresholds": {"birth_threshold": 0.5, "keep_threshold": 0.2, "miss_tolerance": 30},
        "features": NAMES, "low": (-5.0,) * len(NAMES), "high": (5.0,) * len(NAMES),
        "mean": (0.0,) * len(NAMES), "scale": ones, "coefficients": ones, "intercept": 0.0,
        "fitted": {},
    }  # fmt: skip
    return TrustModel(**values | changes)


def test_trust_is_in_the_table():
    rows, index, quality = made(2)
    sums = summed(rows, index, quality)
    model = any_model()
    trust = summary_table("v", sums, model)["trust"]
    assert trust.type == pa.float32() and trust.null_count == 0
    np.testing.assert_array_equal(trust.to_numpy(), model(features(sums)))


def test_overlap_of_many_in_one_frame():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 10, 10], [90, 0, 5, 5]], float)
    same = greatest_overlap(np.zeros(4, int), boxes)
    assert same.tolist() == [1, 0.5, 1, 0]
    assert greatest_overlap(np.arange(4), boxes).tolist() == [0] * 4
    assert greatest_overlap(np.zeros(1, int), boxes[:1]) == pytest.approx(0)
